"""Which device and which number format a stage computes with."""

import os
import resource
import sys
import time
from functools import cache

import torch

from teachback.core.errors import TeachbackError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
WORTHWHILE = 1.25  # times that products in bf16 have to be faster, for what they lose in precision and in casts


def resolve_device(name: str) -> torch.device:
    """``auto`` takes the GPU where there is one; ``cuda`` without one is an error."""
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
            f"DEVICE={name}: this machine shows {torch.cuda.device_count()} GPUs; set DEVICE=cpu or auto"
        )
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """``auto`` takes bf16 where the hardware computes faster in it, else fp32."""
    if name not in PRECISIONS:
        raise TeachbackError(f"PRECISION={name}: use one of {', '.join(PRECISIONS)}")
    if name == "fp16" and device.type == "cpu":
        raise TeachbackError("PRECISION=fp16 needs a GPU; set PRECISION=bf16, fp32 or auto")
    if name != "auto":
        return name
    return "bf16" if _computes_in_bfloat16(device) else "fp32"


def _computes_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # torch says that every processor "supports" bfloat16; only these compute in it, and some of the latter slower.
    if _has("_is_amx_tile_supported"):
        return True
    return _has("_is_avx512_bf16_supported") and _bfloat16_gain() > WORTHWHILE


def _has(check: str) -> bool:
    return hasattr(torch.cpu, check) and getattr(torch.cpu, check)()


@cache
def _bfloat16_gain() -> float:
    """How many times faster this processor multiplies matrices in bf16 than in fp32, measured in some 50 ms."""
    return _product_seconds(torch.float32) / _product_seconds(torch.bfloat16)


def _product_seconds(dtype: torch.dtype) -> float:
    """The shortest of several products, which other work on the machine disturbs least."""
    one, other = torch.ones(512, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        one @ other
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def autocast(precision: str, device: torch.device):
    """The autocast context of a resolved precision (does nothing for fp32)."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def choose_gpu(device: torch.device) -> None:
    """Let this process, and the libraries it uses, see only the GPU that was named."""
    if device.type == "cuda" and device.index is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(device.index)


def peak_memory_bytes() -> dict[str, int]:
    """Most memory this process has held: resident set, and GPU memory where there is a GPU."""
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux
    peak = {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated()
    return peak
