"""Waiting of PyTorch's threads for each other. OpenMP reads these settings once, when PyTorch is loaded."""

import os

# Variables of the OpenMP standard, of GNU's library, and of LLVM's and Intel's. If the user has set one, none is changed.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SPINS = "1000"  # about 50 microseconds, GNU's own value if there are more threads than processors


def wait_briefly() -> None:
    """Let an idle thread spin briefly and then sleep. Call before PyTorch is loaded.

    By default GNU's library, which PyTorch's wheels for Linux contain, spins for 300,000 rounds. On a shared machine the
    spinning thread then keeps the thread that it waits for from running, in each of the thousands of parallel sections of a
    training step. The number of threads does not change, so results stay the same.
    """
    if not waiting():
        os.environ["GOMP_SPINCOUNT"] = SPINS


def waiting() -> dict[str, str]:
    """Variables in the environment that set how threads wait."""
    return {name: os.environ[name] for name in WAITING if name in os.environ}
