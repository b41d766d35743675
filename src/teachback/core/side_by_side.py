"""Processes side by side on one machine: their shares of its cores and GPUs, and their interruption."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


def visible_gpus(device: str) -> list[str]:
    """GPUs to distribute processes over; none if a specific device is given."""
    if device not in ("auto", "cuda"):
        return []
    if named := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return named.split(",")
    import torch  # takes seconds

    return [str(number) for number in range(torch.cuda.device_count())]


def threads_each(processes: int) -> int:
    """Number of threads of each of several processes."""
    return max(1, (os.cpu_count() or 1) // processes)


def environment_of(slot: int, threads: int, gpus: list[str]) -> dict[str, str]:
    """Environment of the process in a slot: its number of threads, unless the user has set it, and one of the GPUs."""
    names = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")  # of PyTorch and of tokenizers
    gpu = {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {}
    return dict.fromkeys(names, str(threads)) | os.environ | gpu


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGINT, so that the child processes can be stopped too."""

    def interrupt(*_):
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
