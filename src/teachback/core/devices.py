"""Choice of device and of numeric precision."""

import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from teachback.core.errors import TeachbackError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
CPU_INFO = Path("/proc/cpuinfo")


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


def resolve_precision(name: str, device: torch.device) -> str:
    """Parse PRECISION; ``auto`` is bf16 where the hardware computes faster in it, else fp32."""
    if name not in PRECISIONS:
        raise TeachbackError(f"PRECISION={name}: use one of {', '.join(PRECISIONS)}")
    if name == "fp16" and device.type == "cpu":
        raise TeachbackError("PRECISION=fp16 needs a GPU; set PRECISION=bf16, fp32 or auto")
    if name != "auto":
        return name
    return "bf16" if _computes_in_bfloat16(device) else "fp32"


def _computes_in_bfloat16(device: torch.device) -> bool:
    """Decide by hardware features, never by a timing: a varying answer would make finished stages stale."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if _has("_is_amx_tile_supported"):
        return True
    # torch reports bfloat16 as supported on every processor; few compute in it. Matrix products in bf16 are 2.3 times
    # faster than in float32 on AMD's AVX-512 BF16 units, and half as fast on Intel's without AMX.
    return _has("_is_avx512_bf16_supported") and _processor_vendor() == "AuthenticAMD"


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Within it PyTorch computes on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _has(check: str) -> bool:
    return hasattr(torch.cpu, check) and getattr(torch.cpu, check)()


@cache
def _processor_vendor() -> str:
    """CPU vendor id, such as ``AuthenticAMD``; "" if the system does not report it."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")


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
