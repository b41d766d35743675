"""Choice of numeric precision; PyTorch is imported only where a GPU may decide it."""

from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from teachback.core.errors import TeachbackError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
CPU_INFO = Path("/proc/cpuinfo")


def resolve_precision(name: str, device: "torch.device | str") -> str:
    """Parse PRECISION; ``auto`` is bf16 where the hardware computes faster in it, else fp32.

    Decided by hardware features, never by timing: a result that varied between runs would make finished stages outdated.

    Raises:
        TeachbackError: the name is unknown, or fp16 on a CPU.
    """
    on_cpu = str(device) == "cpu"
    if name not in PRECISIONS:
        raise TeachbackError(f"PRECISION={name}: use one of {', '.join(PRECISIONS)}")
    if name == "fp16" and on_cpu:
        raise TeachbackError("PRECISION=fp16 needs a GPU; set PRECISION=bf16, fp32 or auto")
    if name != "auto":
        return name
    return "bf16" if (_cpu_computes_in_bfloat16() if on_cpu else _gpu_computes_in_bfloat16(device)) else "fp32"


def resolve_precision_on(device: str, name: str) -> str:
    """`resolve_precision` for a value of DEVICE, without importing PyTorch if it is a build for CPUs alone."""
    if device == "auto" and version("torch").endswith("+cpu"):
        device = "cpu"
    if device == "cpu":
        return resolve_precision(name, device)
    from teachback.core.devices import resolve_device

    return resolve_precision(name, resolve_device(device))


def _gpu_computes_in_bfloat16(device: "torch.device | str") -> bool:
    import torch

    return torch.cuda.get_device_capability(device) >= (8, 0)


def _cpu_computes_in_bfloat16() -> bool:
    """Whether bfloat16 is faster on this processor, by its features as Linux lists them.

    PyTorch supports bfloat16 on every processor, but few compute in it. Matrix products are 2.3 times faster than in
    float32 on AMD's AVX-512 BF16 units, and half as fast on Intel's without AMX.
    """
    vendor, flags = _processor()
    return "amx_bf16" in flags or ("avx512_bf16" in flags and vendor == "AuthenticAMD")


@cache
def _processor() -> tuple[str, frozenset[str]]:
    """CPU vendor id, such as ``AuthenticAMD``, and feature flags; empty if the system does not report them."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return "", frozenset()
    found = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return found.get("vendor_id", ""), frozenset(found.get("flags", "").split())
