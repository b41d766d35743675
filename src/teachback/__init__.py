"""Teachback: compressing text classifiers by knowledge distillation.

The Python API, which needs PyTorch, is loaded on first use, so that ``import teachback`` is fast.
"""

from importlib import import_module

__version__ = "0.1.0"

_PLACES = {
    "MPDistil": "mpdistil",
    "MetaKD": "metakd",
    "MetaKDConfig": "settings",
    "TeachbackError": "core.errors",
    "TrainingConfig": "settings",
    "create_simple_dataloader": "loaders",
    "load_superglue_dataset": "loaders",
}
__all__ = list(_PLACES)  # loaded on first use


def __getattr__(name: str):
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
