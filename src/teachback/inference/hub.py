"""Upload of finished folders to the Hugging Face hub, on request."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.core.options import option

# Files that a user of the model does not need, or that describe the machine it was trained on.
LEFT_OUT = ["stage.json", "*/stage.json", "training_only.safetensors", "last/*", "*.tsv", "*.png", ".*"]


@dataclass
class HubArguments:
    """Arguments of the upload, named as in Hugging Face's `TrainingArguments`."""

    push_to_hub: bool = option(False, "Upload the finished folder.")
    hub_model_id: str | None = option(None, "Repository, such as user/name; with several domains name-<domain>.")
    hub_private_repo: bool | None = option(None, "Create the repository as private.")
    hub_token: str | None = option(None, "Token with write access; unset: that of `hf auth login` or HF_TOKEN.")


def check_hub(arguments: HubArguments) -> None:
    """Refuse incomplete upload arguments before training."""
    if arguments.push_to_hub and not arguments.hub_model_id:
        raise TeachbackError("--push_to_hub needs --hub_model_id, the repository, such as user/name")
    if arguments.hub_model_id and not arguments.push_to_hub:
        raise TeachbackError(f"--hub_model_id {arguments.hub_model_id} has no effect without --push_to_hub")


def push(folders: Sequence[Path], arguments: HubArguments) -> None:
    """Upload each finished folder to a separate repository if ``push_to_hub`` is set, from the main process."""
    if not arguments.push_to_hub:
        return
    from accelerate import PartialState  # imported only here, so that --help is fast

    if not PartialState().is_main_process:
        return
    for folder in folders:
        repository = arguments.hub_model_id or ""  # `check_hub` has refused it
        if len(folders) > 1:  # one per domain
            name = folder.name.removeprefix("teacher-single-") if "teacher-" in folder.name else folder.parent.name
            repository += "-" + re.sub(r"[^\w.-]+", "-", name)
        _upload(folder, repository, arguments)


def _upload(folder: Path, repository: str, arguments: HubArguments) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError

    api = HfApi(token=arguments.hub_token)
    try:
        place = api.create_repo(repository, private=arguments.hub_private_repo, exist_ok=True)
        api.upload_folder(
            repo_id=place.repo_id, folder_path=folder, ignore_patterns=LEFT_OUT, commit_message=f"Upload {folder.name}"
        )
    except (HTTPError, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())
        raise TeachbackError(
            f"{folder} is finished, but could not be uploaded to {repository} ({reason}); the same command tries again"
        ) from error
    print(f"uploaded {folder} to {repository}")
