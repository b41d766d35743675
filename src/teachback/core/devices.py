"""Choice of device, and what PyTorch computes with on it."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from teachback.core.errors import TeachbackError


def resolve_device(name: str) -> torch.device:
    """Parse DEVICE; ``auto`` is the GPU if there is one, else the CPU.

    Raises:
        TeachbackError: the name is unknown, or this machine lacks that GPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TeachbackError(f"DEVICE={name}: use auto, cpu, cuda or cuda:<number>") from error
    if device.type not in ("cpu", "cuda"):
        raise TeachbackError(f"DEVICE={name}: use auto, cpu, cuda or cuda:<number>")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TeachbackError(
            f"DEVICE={name}: PyTorch sees {torch.cuda.device_count()} GPUs; set DEVICE=cpu or auto"
        )
    return device


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Run the block with this number of PyTorch threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def autocast(precision: str, device: torch.device):
    """Autocast context of a resolved precision; a no-op for fp32."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def choose_gpu(device: torch.device) -> None:
    """Restrict CUDA_VISIBLE_DEVICES to the given GPU, so that libraries do not spread over the others."""
    if device.type == "cuda" and device.index is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(device.index)


def peak_memory_bytes() -> dict[str, int]:
    """Peak memory of this process in bytes: ``resident`` set size, and ``gpu`` if there is one."""
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux
    peak = {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated()
    return peak
