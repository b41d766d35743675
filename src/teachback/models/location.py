"""Location of a model by its name, found without loading it or PyTorch."""

import json
from contextlib import suppress
from pathlib import Path

from teachback.core.errors import TeachbackError

SCRATCH_SIZES = {"scratch:tiny": (2, 128), "scratch:mini": (4, 256)}  # layers, width


def locate(name: str, data_dir: str | Path) -> str:
    """Resolve a model name to its folder under data/models, if stage 1 fetched it, else return it unchanged.

    For a sentence-transformers folder with its encoder in a subfolder, return that subfolder.

    Raises:
        TeachbackError: an unknown ``scratch:`` size, or the path of a missing folder.
    """
    if name.startswith("scratch:"):
        if name not in SCRATCH_SIZES:
            raise TeachbackError(f"model {name!r} is unknown; models from scratch are: {', '.join(SCRATCH_SIZES)}")
        return name
    fetched = Path(data_dir) / "models" / name.replace("/", "--")
    if fetched.is_dir():
        return _encoder_folder(str(fetched))
    if (name.startswith(("/", ".", "~")) or name.count("/") > 1) and not Path(name).is_dir():
        raise TeachbackError(f"model {name!r}: there is no such folder (relative paths start from {Path.cwd()})")
    return _encoder_folder(name)


def _encoder_folder(place: str) -> str:
    """``place``, or the subfolder of its first module if only sentence-transformers' modules.json names the folder of the encoder."""
    modules = Path(place) / "modules.json"
    if modules.is_file() and not (Path(place) / "config.json").is_file():
        with suppress(ValueError, LookupError, TypeError):
            return str(Path(place) / json.loads(modules.read_text(encoding="utf-8"))[0]["path"])
    return place
