"""Reading the command lines of the training stages."""

import sys

from teachback.core.arguments import DataArguments
from teachback.core.devices import choose_gpu, resolve_device, resolve_precision
from teachback.core.errors import TeachbackError
from teachback.core.options import (
    Parser,
    parse_options,
    without_unset,
)
from teachback.core.training_arguments import REFUSED, OptimizerArguments


def parse(*classes, argv: list[str] | None = None):
    """Parse the command line into the classes; arguments that would have no effect are refused."""
    argv = sys.argv[1:] if argv is None else argv
    _refuse_without_effect(classes, argv)
    argv = without_unset(tuple(c for c in classes if c is not OptimizerArguments), argv)
    if OptimizerArguments in classes and not {"-h", "--help"} & set(argv):
        argv = argv + _hardware_flags(argv)
    return parse_options(*classes, argv=argv)


def _refuse_without_effect(classes: tuple, argv: list[str]) -> None:
    for flag in (word.split("=")[0].lstrip("-") for word in argv if word.startswith("--")):
        if flag in REFUSED and OptimizerArguments in classes:
            raise TeachbackError(f"--{flag} has no effect here: {REFUSED[flag]}")


def require_known(*classes, argv: list[str]) -> None:
    """Refuse flags that none of the classes has, or that have no effect, without setting up devices or processes."""
    _refuse_without_effect(classes, argv)
    argv = without_unset(tuple(c for c in classes if c is not OptimizerArguments), argv)
    if unknown := Parser(classes, allow_abbrev=False).parse_known_args(argv)[1]:
        raise TeachbackError(f"unknown arguments: {' '.join(unknown)}; --help lists those that there are")


def parse_some(*classes, argv: list[str]) -> list:
    """Parse only the flags of ``classes`` and ignore the rest, without setting up devices or processes."""
    if not classes:
        return []
    try:
        parsed = Parser(classes, allow_abbrev=False).parse_args_into_dataclasses(
            args=without_unset(tuple(c for c in classes if c is not OptimizerArguments), argv), return_remaining_strings=True
        )
    except (ValueError, TypeError, ArithmeticError) as error:
        raise TeachbackError(f"{' '.join(str(error).split())} (--help lists what there is)") from error
    return list(parsed[:-1])


def _hardware_flags(argv: list[str]) -> list[str]:
    """Translate DEVICE and PRECISION to Hugging Face's flags, before it sets up processes and devices."""
    parser = Parser(DataArguments, allow_abbrev=False)  # type: ignore[arg-type]  # a NewType of theirs
    data, *_ = parser.parse_args_into_dataclasses(args=argv, return_remaining_strings=True)
    device = resolve_device("cpu" if "--use_cpu" in argv else data.device)
    choose_gpu(device)
    flags = ["--use_cpu"] if device.type == "cpu" else []
    if not {"--bf16", "--fp16"} & set(argv):
        precision = resolve_precision(data.precision, device)
        flags += [f"--{precision}"] if precision != "fp32" else []
    return flags
