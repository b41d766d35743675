"""Work in a forked process, with its exit status and signals."""

import os
import signal
import sys
from collections.abc import Callable


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked process and return its exit status, or 128 plus the number of the signal that ended it.

    SIGTERM is forwarded to the child. Ctrl-C need not be, as terminals send it to both processes.
    """
    signals, forwarded = (signal.SIGTERM, signal.SIGINT), []
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    sys.stdout.flush()
    number = os.fork()
    if not number:
        for each in signals:
            signal.signal(each, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        work()
        sys.exit()  # ends like a normal process, with the libraries' exit handlers

    def forward(*_) -> None:
        forwarded.append(signal.SIGTERM)
        os.kill(number, signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, forward), signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    _, ended = os.waitpid(number, 0)
    for each, handler in zip(signals, before):
        signal.signal(each, handler)
    status = os.waitstatus_to_exitcode(ended)
    status = 128 - status if status < 0 else status
    return status or (128 + forwarded[0] if forwarded else 0)
