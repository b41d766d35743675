"""How the threads of PyTorch wait for each other. OpenMP reads it once, when PyTorch is loaded."""

import os

# Of OpenMP's standard, GNU's library and that of LLVM and Intel. One that the user has set decides alone.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SPINS = "1000"  # some 50 microseconds, as long as GNU's library itself spins where there are more threads than processors


def wait_briefly() -> None:
    """Let an idle thread spin briefly and then sleep. Call before PyTorch is loaded.

    By default GNU's library, which PyTorch's wheels for Linux bring along, spins for 300,000 rounds. On a machine that others
    use too, the thread that spins then keeps the one that it waits for from running, in each of a step's thousands of sections.
    The number of threads, and so every result, stays the same.
    """
    if not waiting():
        os.environ["GOMP_SPINCOUNT"] = SPINS


def waiting() -> dict[str, str]:
    """The variables that say how threads wait, as far as they are set."""
    return {name: os.environ[name] for name in WAITING if name in os.environ}
