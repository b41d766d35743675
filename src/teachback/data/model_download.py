"""Fetch checkpoints from the Hugging Face hub into data/models, for machines that compute without network."""

from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

from teachback.core.errors import TeachbackError
from teachback.core.files import sync, working_folder
from teachback.core.locks import locked
from teachback.core.runs import swap

WEIGHTS = "*.safetensors"
PATTERNS = (WEIGHTS, "*.json", "*.txt", "*.model")  # no format that can hold a pickle
CONVERTER = "SFconvertbot"  # the hub's own account: it offers safetensors copies of older checkpoints as pull requests


def fetch_model(name: str, data_dir: Path) -> Path | None:
    """Have data/models/<name with / as -->; None for models that are not on the hub (``scratch:``, a folder)."""
    if name.startswith("scratch:") or Path(name).expanduser().is_dir():
        print(f"{name}: nothing to fetch")
        return None
    folder = Path(data_dir) / "models" / name.replace("/", "--")
    if (folder / "config.json").is_file() and any(folder.glob(WEIGHTS)):
        print(f"{folder} is there already")
        return folder
    try:
        with locked(folder):
            _fetch(name, folder)
    except TeachbackError:
        raise
    except Exception as error:  # the hub's client raises errors of three libraries
        raise TeachbackError(
            f"cannot fetch {name} from the model hub ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); "
            f"on a machine with network put its config.json, safetensors and tokenizer files into {folder}"
        ) from error
    print(f"fetched {name} into {folder}")
    return folder


def _fetch(name: str, folder: Path) -> None:
    """Download into a folder beside, then put it in place."""
    with working_folder(folder) as parent:
        new = parent / "model"
        snapshot_download(name, revision=_revision(name), local_dir=new, allow_patterns=list(PATTERNS))
        if not any(new.glob(WEIGHTS)):
            raise TeachbackError(
                f"{name} came without safetensors weights; save it with save_pretrained, and put that in {folder}"
            )
        sync(new)
        swap(new, folder)


def _revision(name: str) -> str | None:
    """The main revision if it has safetensors, else the hub's own conversion of it."""
    api = HfApi()
    if any(file.endswith(".safetensors") for file in api.list_repo_files(name)):
        return None
    for request in api.get_repo_discussions(name, author=CONVERTER, discussion_type="pull_request"):
        if request.status != "closed" and "safetensors" in request.title:
            return request.git_reference
    raise TeachbackError(
        f"{name} has no safetensors weights on the hub; convert it once with save_pretrained, and name that folder"
    )
