"""Download checkpoints from the Hugging Face hub into data/models, for machines without network.

Checkpoints that exist only as pickles are converted to safetensors, also from a local folder.
"""

from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, snapshot_download

from teachback.core.errors import TeachbackError
from teachback.core.files import sync, working_folder
from teachback.core.locks import locked
from teachback.core.runs import swap
from teachback.data.model_conversion import PICKLED, convert_folder, pickled_files

WEIGHTS = "*.safetensors"
PATTERNS = (WEIGHTS, "*.json", "*.txt", "*.model")  # no format that can hold a pickle
CONVERTER = "SFconvertbot"  # account of the hub that offers safetensors copies of older checkpoints as pull requests


def fetch_model(name: str, data_dir: Path) -> Path | None:
    """Ensure that data/models/<name with / as --> exists and return it.

    Returns None if there is nothing to fetch: ``scratch:`` models and folders of safetensors.
    """
    folder = Path(data_dir) / "models" / name.replace("/", "--")
    local = Path(name).expanduser()
    if local.is_dir() and pickled_files(local) and not any(local.glob(WEIGHTS)):
        return _converted(local, folder)
    if name.startswith("scratch:") or local.is_dir():
        print(f"{name}: nothing to fetch")
        return None
    if (folder / "config.json").is_file() and any(folder.glob(WEIGHTS)):
        print(f"{folder} exists already")
        return folder
    try:
        with locked(folder):
            _fetch(name, folder)
    except TeachbackError:
        raise
    except Exception as error:  # the hub's client raises errors of three libraries
        raise TeachbackError(
            f"cannot fetch {name} from the model hub ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); "
            f"download its config.json, safetensors and tokenizer files on a machine with network, and put them into {folder}"
        ) from error
    print(f"fetched {name} into {folder}")
    return folder


def _converted(source: Path, folder: Path) -> Path:
    """Convert a local model to safetensors below data/models, which takes precedence over the original folder."""
    made = [path.stat().st_mtime for path in folder.glob(WEIGHTS)]
    if made and min(made) >= max(path.stat().st_mtime for path in pickled_files(source)):
        print(f"{folder} exists already")
        return folder
    with locked(folder), working_folder(folder) as parent:
        new = parent / "model"
        new.mkdir()
        convert_folder(source, new)
        sync(new)
        swap(new, folder)
    print(f"converted the weights of {source} to safetensors in {folder}")
    return folder


def _fetch(name: str, folder: Path) -> None:
    """Download into a temporary folder, convert pickles, then move the model into place."""
    revision, patterns = _source(name)
    with working_folder(folder) as parent:
        new = parent / "model"
        snapshot_download(name, revision=revision, local_dir=new, allow_patterns=patterns)
        if not any(new.glob(WEIGHTS)) and pickled_files(new):
            convert_folder(new, new)
            for path in pickled_files(new):
                path.unlink()
        if not any(new.glob(WEIGHTS)):
            raise TeachbackError(
                f"{name} has no safetensors weights; save it with save_pretrained, and put the result in {folder}"
            )
        sync(new)
        swap(new, folder)


def _source(name: str) -> tuple[str | None, list[str]]:
    """Revision and file patterns to download: safetensors of main, else of the hub's conversion, else pickles."""
    api = HfApi()
    files, safe = api.list_repo_files(name), list(PATTERNS)
    if any(file.endswith(".safetensors") for file in files):
        return None, safe
    for request in api.get_repo_discussions(name, author=CONVERTER, discussion_type="pull_request"):
        if request.status != "closed" and "safetensors" in request.title:
            return request.git_reference, safe
    if any(PurePosixPath(file).match(PICKLED) for file in files):
        return None, [PICKLED, *safe]
    raise TeachbackError(
        f"{name} has neither safetensors weights on the hub nor a pytorch_model.bin to convert; choose another model"
    )
