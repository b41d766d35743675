"""Opening of a finished checkpoint by its folder, outside its run."""

from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.core.published import read_stage
from teachback.data.schema import Domain
from teachback.inference.predictor import Checkpoint
from teachback.models.loading import load_config

EXAMPLE = "such as outputs/amazon/seed42/books/student_second"


def open_checkpoint(folder: Path) -> tuple[Checkpoint, Domain]:
    """Open a checkpoint; returns it with the domain of its plain head (a teacher's first domain).

    Without stage.json, as for models of other origin, the domain comes from config.json, with unknown kind ("").

    Raises:
        TeachbackError: the folder holds no model, an untrained head, or a kind of model that cannot be used.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise TeachbackError(f"{folder} holds no model (no config.json); name a finished student's folder, {EXAMPLE}")
    record = read_stage(folder) if (folder / "stage.json").is_file() else {}
    if not record.get("head_trained", True):
        raise TeachbackError(
            f"{folder}: its classification layer is not trained yet; 5_student_second.sh trains it, name that folder"
        )
    domain = described(record) or _of_config(folder)
    return Checkpoint(folder, str(folder.absolute()), domain.name, {"arguments": {}} | record), domain


def described(record: dict) -> Domain | None:
    """First domain described in a stage's record; None without any."""
    for values in record.get("answers", {}).values():
        return Domain(**values | {"labels": tuple(values["labels"]), "marks": tuple(values["marks"])})
    return None


def _of_config(folder: Path) -> Domain:
    """Domain described by a classifier's config: ordered label names, or a regression."""
    config = load_config(folder)
    names = tuple(config.id2label[i] for i in sorted(config.id2label))
    if config.problem_type == "multi_label_classification":
        raise TeachbackError(f"{folder} gives several labels at once; only one label or a number a text is supported")
    if names == ("plausible",):
        raise TeachbackError(
            f"{folder} chooses between answers, and its stage.json does not say between how many; run its stage again"
        )
    if len(names) == 1 or config.problem_type == "regression":
        return Domain(folder.name, folder.name, (), kind="", task="regression")
    return Domain(folder.name, folder.name, names, kind="")
