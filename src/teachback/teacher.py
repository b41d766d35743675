"""Stage 3: the meta-teacher of Meta-KD and the paper's baselines (single, mix, mtl)."""

import logging
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from teachback.arguments import TeacherArguments
from teachback.errors import TeachbackError
from teachback.losses import domain_corruption_loss, false_domains, hard_label_loss, meta_teacher_loss, permuted_domains
from teachback.metrics import Score, by_domain
from teachback.models import (
    Classifier,
    TransferableKnowledge,
    check_finite,
    final_layer,
    load_finished_classifier,
    mean_over_tokens,
    per_row,
    per_sequence,
)
from teachback.suite_data import SuiteData
from teachback.suites.schema import Domain, Row
from teachback.training import TrainingModule

logger = logging.getLogger(__name__)


def head_names(kind: str, domains: list[Domain]) -> dict[str, Domain]:
    """Heads of a teacher, in order: one a label set, or one a domain for ``mtl``."""
    heads: dict[str, Domain] = {}
    for domain in domains:
        heads.setdefault(head_name(kind, domain), domain)
    return heads


def head_name(kind: str, domain: Domain) -> str:
    """The head that answers for a domain; one that is never trained on has none of its own, even with ``mtl``."""
    return domain.name if kind == "mtl" and domain.trainable else domain.head


class Teacher(nn.Module):
    """A classifier over several domains, with what the meta-teacher adds to it.

    ``forward`` needs the batch's ``domain`` [B], numbers among ``domains``.
    """

    head_of_domain: torch.Tensor

    def __init__(self, model, kind: str, domains: list[Domain], transferable: bool):
        super().__init__()
        heads = head_names(kind, domains)
        self.kind, self.domains = kind, domains
        self.classifier = Classifier(model, heads)
        head_of = [list(heads).index(head_name(kind, domain)) for domain in domains]
        self.register_buffer("head_of_domain", torch.tensor(head_of), persistent=False)
        width = model.config.hidden_size
        self.transferable = TransferableKnowledge(width, len(domains)) if transferable else None
        self.domain_classifier = nn.Linear(width, len(domains)) if transferable else None

    def outputs(self, batch: dict, hidden_states: bool = False):
        """Logits of each row's own head, pooled and hidden states."""
        return self.classifier(batch, self.head_of_domain[batch["domain"]], hidden_states=hidden_states)

    def logits_of(self, pooled: torch.Tensor, batch: dict) -> torch.Tensor:
        """The same logits from pooled states [S, H] alone: [B, C]."""
        return self.classifier.head_logits(pooled, self.head_of_domain[batch["domain"]], batch.get("sequences"))

    def domain_knowledge(self, hidden_states, batch: dict) -> torch.Tensor:
        """h_d before its tanh, from the last layer's states; of several sequences their mean: [B, H]."""
        assert self.transferable is not None  # only teachers that have it are asked
        return knowledge_by_row(self.transferable, hidden_states[-1], batch)

    def head_for(self, domain: Domain) -> nn.Linear:
        """The final layer that serves ``domain``."""
        index = int(self.head_of_domain[[d.name for d in self.domains].index(domain.name)])
        return cast(nn.Linear, self.classifier.other_heads[index - 1]) if index else final_layer(self.classifier.model)

    def add_unseen(self, domain: Domain) -> None:
        """Let the teacher answer for a domain that it was not trained on.

        The head is that of the domain's label set; its domain embedding is the mean of the trained ones.
        """
        heads, head = list(self.classifier.heads), head_name(self.kind, domain)
        if head not in heads:
            why = "a head for each of its domains alone" if self.kind == "mtl" else "no head for its labels"
            raise TeachbackError(f"the {self.kind} teacher never saw {domain.name} and has {why}; use another TEACHER")
        self.domains = [*self.domains, domain]
        self.head_of_domain = torch.cat([self.head_of_domain, self.head_of_domain.new_tensor([heads.index(head)])])
        if self.transferable is not None:
            self.transferable.add_mean_domain()

    def training_only(self) -> dict[str, torch.Tensor]:
        """The weights that the plain checkpoint has no place for."""
        return {
            name: value.contiguous()
            for name, value in self.state_dict().items()
            if not name.startswith("classifier.model.")
        }

    def save(self, folder: Path, tokenizer) -> None:
        """Write the plain checkpoint, the tokenizer, and the rest in training_only.safetensors."""
        self.classifier.model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        save_file(self.training_only(), Path(folder) / "training_only.safetensors")


def knowledge_by_row(transferable: TransferableKnowledge, last_hidden: torch.Tensor, batch: dict) -> torch.Tensor:
    """What ``transferable`` makes of token states [S, L, H], each row's sequences averaged: [B, H], before the tanh."""
    return knowledge_of_means(transferable, mean_over_tokens(last_hidden, batch["attention_mask"]), batch)


def knowledge_of_means(transferable: TransferableKnowledge, means: torch.Tensor, batch: dict) -> torch.Tensor:
    """The same from each sequence's averaged token states [S, H]: [B, H], before the tanh."""
    sequences = batch.get("sequences")
    domain = per_sequence(batch["domain"], sequences, len(means))
    return per_row(transferable.of_mean(means, domain), sequences)


def load_teacher(folder: Path, record: dict, suite) -> Teacher:
    """The teacher of a finished stage 3 in eval mode; a weight it lacks is an error."""
    arguments = record["arguments"]
    domains = [suite.domain(name) for name in arguments["trained_domains"]]
    teacher = Teacher(load_finished_classifier(folder), arguments["teacher"], domains, record["transferable"])
    model = {f"classifier.model.{name}": value for name, value in teacher.classifier.model.state_dict().items()}
    try:
        teacher.load_state_dict(load_file(Path(folder) / "training_only.safetensors") | model)
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise TeachbackError(
            f"{folder}: the teacher is not whole ({reason}); remove the folder and run 3_train_teacher.sh again"
        ) from error
    check_finite(str(folder), teacher)
    return teacher.eval()


class TeacherTraining(TrainingModule):
    """The teacher and its loss: cross-entropy, for ``meta`` weighted and with the domain-corruption loss."""

    def __init__(self, teacher: Teacher, arguments: TeacherArguments):
        super().__init__()
        self.teacher = teacher
        self.arguments = arguments
        self.meta = arguments.teacher == "meta"

    def forward(self, **batch) -> dict[str, torch.Tensor]:
        classifier = self.teacher.domain_classifier
        outputs = self.teacher.outputs(batch, hidden_states=classifier is not None)
        hard = hard_label_loss(outputs.logits, batch["label"])
        weights = torch.ones_like(hard)
        if self.meta and self.arguments.use_sample_weights:
            weights = batch["weight"].clamp(min=0)  # a cosine may be negative, and would then reward a wrong answer
        corruption = torch.zeros_like(hard)
        if classifier is not None:
            corruption = self._corruption(classifier, outputs.hidden_states, batch)
        self.note(hard=hard, domain_corruption=corruption)
        loss = meta_teacher_loss(
            hard, corruption, weights, self.arguments.domain_loss_weight, self.arguments.domain_loss_form
        )
        return {"loss": loss, "logits": outputs.logits}

    def _corruption(self, classifier: nn.Linear, hidden_states, batch: dict) -> torch.Tensor:
        knowledge = torch.tanh(self.teacher.domain_knowledge(hidden_states, batch))
        if self.arguments.domain_labels == "permuted":
            target = permuted_domains(batch["domain"])
        else:
            target = false_domains(batch["domain"], len(self.teacher.domains))
        return domain_corruption_loss(classifier(knowledge), target)


def predicted_labels(logits, rows: list[Row], data: SuiteData) -> list[str]:
    """Names of the highest of the rows' logits [N, C]: labels, a choice's by its position; of a regression numbers."""
    names = []
    for row, values in zip(rows, logits):
        domain = data.suite.domain(row.domain)
        if domain.task == "regression":
            names.append(repr(float(values[0])))
        else:
            names.append(domain.labels[int(values[: len(domain.labels)].argmax())])
    return names


def score_by_domain(rows: list[Row], data: SuiteData):
    """A Trainer's ``compute_metrics``: the score of each domain, and ``score``, their mean, on which we select."""

    def compute_metrics(prediction) -> dict[str, float]:
        scores = by_domain(data.suite, rows, predicted_labels(prediction.predictions, rows, data))
        values = {f"{name}_{score.metric}": score.value for name, score in scores.items()}
        return values | {"score": sum(score.value for score in scores.values()) / len(scores)}

    return compute_metrics


def majority_scores(train: list[Row], dev: list[Row], data: SuiteData) -> dict[str, Score]:
    """The dev scores of always answering each domain's most frequent train label (of a regression the mean)."""
    labels: dict[str, list[str]] = {}
    for row in train:
        labels.setdefault(row.domain, []).append(row.label)
    answers = {name: _constant_answer(data.suite.domain(name), found) for name, found in labels.items()}
    rows = [row for row in dev if row.domain in answers]
    return by_domain(data.suite, rows, [answers[row.domain] for row in rows])


def _constant_answer(domain: Domain, labels: list[str]) -> str:
    if domain.task == "regression":
        return repr(fmean(map(float, labels)))
    return Counter(labels).most_common(1)[0][0]


def report_scores(who: str, metrics: dict[str, float], majority: dict[str, Score], split: str) -> None:
    """Print a teacher's or student's score by domain beside the majority class's, and warn where it is not better."""
    width = max([12, *(len(base.metric) + 2 for base in majority.values())])
    print(f"{'domain':<16}{'metric':<{width}}{split:>8}{'majority':>10}")
    for name, base in majority.items():
        value = metrics[f"eval_{name}_{base.metric}"]
        print(f"{name:<16}{base.metric:<{width}}{value:8.3f}{base.value:10.3f}")
        if value <= base.value:
            logger.warning(
                "the %s does not beat the majority class on %s (%.3f, majority %.3f)%s; train longer or with another learning rate",
                who, name, value, base.value, ": a student would learn nothing from it" if who == "teacher" else "",
            )  # fmt: skip
