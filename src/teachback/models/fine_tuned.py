"""Classifiers fine-tuned elsewhere as teachers: their task head, and their labels in the order of a domain's."""

from pathlib import Path

import torch
from torch import nn

from teachback.core.errors import TeachbackError
from teachback.data.bad_rows import listed
from teachback.data.schema import Domain, label_options
from teachback.models.admission import admit_classifier
from teachback.models.layers import final_layer
from teachback.models.loading import load_config, load_tokenizer, load_whole_classifier
from teachback.models.location import locate

CLASSIFIER = "ForSequenceClassification"
# What an architecture does, by the end of its name; the first match counts.
HEADS = {
    "ForTokenClassification": "labels single tokens", "ForQuestionAnswering": "marks answers in a text",
    "ForMultipleChoice": "reads all choices at once", "ForCausalLM": "generates text", "LMHeadModel": "generates text",
    "ForConditionalGeneration": "generates text", "ForMaskedLM": "fills in masked tokens",
    "ForPreTraining": "is only pre-trained", "Model": "has no head",
}  # fmt: skip
TRAIN_IT = "to train a classifier on its encoder, set it as TEACHER_MODEL"


def load_fine_tuned(name: str, domain: Domain, order: list[int], data_dir: str | Path = "data", dropout: float | None = None):
    """Load a fine-tuned sequence classifier in eval mode with ``domain``'s labels, and its tokenizer.

    ``order``: as from `label_order`. ``dropout``: every dropout probability, for students that are cut from it.

    Raises:
        TeachbackError: weights are missing, such as those of a trained head, or the model fails the checks of `admit_classifier`.
    """
    tokenizer = load_tokenizer(name, data_dir)
    model = load_whole_classifier(name, tokenizer, data_dir, dropout)
    reorder_outputs(final_layer(model), order)
    model.config.update(label_options(domain))
    admit_classifier(name, model, tokenizer)
    return model.eval(), tokenizer


def label_order(name: str, domain: Domain, labels: str = "", data_dir: str | Path = "data") -> list[int]:
    """Number of the checkpoint's output for each of ``domain``'s labels, from its config alone.

    ``labels``: a map "theirs=ours,..." for labels of other names.

    Raises:
        TeachbackError: another kind of model than a classifier of texts, or labels that are not the domain's.
    """
    place = locate(name, data_dir)
    if place.startswith("scratch:"):
        raise TeachbackError(f"TEACHER_CHECKPOINT={name} has random weights, which have not learnt anything; set it as TEACHER_MODEL instead")
    if any(Path(place).glob("model_head.*")):
        raise TeachbackError(
            f"{place} is a SetFit model, whose head is in a separate file ({next(Path(place).glob('model_head.*')).name}); "
            f"{TRAIN_IT}, or predict the train rows with SetFit and pass its probabilities as SOFT_LABELS to stage 5"
        )
    config = load_config(place, name)
    _refuse_head(name, config)
    if domain.task == "regression" or domain.kind == "choices":
        return _only_output(name, config, domain, labels)
    names = [config.id2label[number] for number in sorted(config.id2label)]
    if len(names) != len(domain.labels):
        raise TeachbackError(
            f"{name} has {len(names)} classes ({listed(names)}), but {domain.name} has {len(domain.labels)} ({listed(domain.labels)}); "
            "a teacher must have exactly the domain's labels"
        )
    ours = _translated(name, names, domain, labels)
    return [ours.index(label) for label in domain.labels]


def other_head(config) -> str:
    """Name and purpose of an architecture that is not a text classifier: "BertModel, which has no head"; "" for a classifier."""
    other = next((name for name in config.architectures or () if not name.endswith(CLASSIFIER)), "")
    does = next((does for end, does in HEADS.items() if other.endswith(end)), "is of another kind")
    return other and f"{other}, which {does}"


def _refuse_head(name: str, config) -> None:
    """Refuse a checkpoint unless its head gives a whole text a single label."""
    if other := other_head(config):
        raise TeachbackError(
            f"{name} is a {other}, but a teacher must be a text classifier (...{CLASSIFIER}); {TRAIN_IT}; to learn "
            "from texts that it generates, convert them to probabilities and pass these as SOFT_LABELS to stage 5"
        )
    if config.problem_type == "multi_label_classification":
        raise TeachbackError(f"{name} is a multi-label classifier, but a teacher must give a text one label or a number")
    pooling = getattr(config, "classifier_pooling", "cls")
    if pooling != "cls":
        raise TeachbackError(
            f"{name} classifies the {pooling} of its tokens (classifier_pooling), but the losses on pooled states assume the first token; "
            f"{TRAIN_IT}, or pass its probabilities as SOFT_LABELS to stage 5"
        )


def _only_output(name: str, config, domain: Domain, labels: str) -> list[int]:
    what = "a number" if domain.task == "regression" else "one output, which judges each choice"
    if config.num_labels != 1:
        raise TeachbackError(f"{name} has {config.num_labels} classes, but {domain.name} needs {what}; use another checkpoint")
    if labels:
        raise TeachbackError(f"TEACHER_LABELS={labels}: {name} has {what} for {domain.name} and no labels; unset TEACHER_LABELS")
    return [0]


def _translated(name: str, names: list[str], domain: Domain, labels: str) -> list[str]:
    """Domain's label for each of a checkpoint's: by the map ``labels``, else by name, ignoring case."""
    given = _parsed(labels, names, domain)
    same = {label.casefold(): label for label in domain.labels}
    if len(same) < len(domain.labels):  # two labels that differ only in case
        same = {label: label for label in domain.labels}
    ours = [given.get(theirs) or same.get(theirs) or same.get(theirs.casefold(), "") for theirs in names]
    if sorted(ours) != sorted(domain.labels):
        example = ",".join(f"{theirs}={label}" for theirs, label in zip(names, domain.labels))
        raise TeachbackError(
            f"{name} has the labels {listed(names)}, but {domain.name} has {listed(domain.labels)}; map each of them once, as in "
            f"TEACHER_LABELS={example} (if that is their order)"
        )
    return ours


def _parsed(labels: str, names: list[str], domain: Domain) -> dict[str, str]:
    given: dict[str, str] = {}
    for item in filter(None, labels.split(",")):
        theirs, sign, label = (part.strip() for part in item.partition("="))
        if not sign or theirs not in names or label not in domain.labels or theirs in given:
            raise TeachbackError(
                f"TEACHER_LABELS={labels}: {item.strip()!r} is not a pair <label of the checkpoint>=<label of {domain.name}>, or repeats a label; "
                f"labels of the checkpoint: {listed(names)}; of {domain.name}: {listed(domain.labels)}"
            )
        given[theirs] = label
    return given


@torch.no_grad()
def reorder_outputs(layer: nn.Linear, order: list[int]) -> None:
    """Put the outputs of a final layer into another order."""
    for values in (layer.weight, layer.bias):
        if values is not None:
            values.copy_(values[order])
