"""Stage 3: Meta-KD's meta-teacher and the paper's baselines (single, mix, mtl)."""

import logging
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from teachback.core.arguments import TeacherArguments
from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain
from teachback.methods.class_weights import weighted_label_loss
from teachback.methods.losses import (
    domain_confusion_loss,
    domain_corruption_loss,
    false_domains,
    meta_teacher_loss,
    permuted_domains,
    recognised_domains,
    reversed_gradient,
)
from teachback.models.heads import Classifier, TransferableKnowledge
from teachback.models.layers import final_layer
from teachback.models.loading import TRAINING_ONLY, check_finite, load_finished_classifier, save_checkpoint
from teachback.training.module import TrainingModule

logger = logging.getLogger(__name__)


def embeds_domains(domain_labels: str) -> bool:
    """Whether h_d uses the domain embedding: not if training is to remove domain information from h_d."""
    return domain_labels not in ("reversal", "uniform")


def head_names(kind: str, domains: list[Domain]) -> dict[str, Domain]:
    """Heads of a teacher in order: one per label set, or one per domain for ``mtl``."""
    heads: dict[str, Domain] = {}
    for domain in domains:
        heads.setdefault(head_name(kind, domain), domain)
    return heads


def head_name(kind: str, domain: Domain) -> str:
    """Name of a domain's head; a domain without training data uses its label set's head, even with ``mtl``."""
    return domain.name if kind == "mtl" and domain.trainable else domain.head


class Teacher(nn.Module):
    """Classifier over several domains, with the meta-teacher's transferable-knowledge module and domain classifier.

    Batches need ``domain`` [B], indices into ``domains``. A teacher of a run also has its ``folder`` and the ``hash`` of its model.
    """

    head_of_domain: torch.Tensor
    folder: Path
    hash: str

    def __init__(self, model, kind: str, domains: list[Domain], transferable: bool, embeds_domains: bool = True):
        super().__init__()
        heads = head_names(kind, domains)
        self.kind, self.domains = kind, domains
        self.classifier = Classifier(model, heads)
        head_of = [list(heads).index(head_name(kind, domain)) for domain in domains]
        self.register_buffer("head_of_domain", torch.tensor(head_of), persistent=False)
        width = model.config.hidden_size
        self.transferable = TransferableKnowledge(width, len(domains) if embeds_domains else 0) if transferable else None
        self.domain_classifier = nn.Linear(width, len(domains)) if transferable else None

    def outputs(self, batch: dict, hidden_states: bool = False):
        """Logits of each row's head, pooled and hidden states."""
        return self.classifier(batch, self.head_of_domain[batch["domain"]], hidden_states=hidden_states)

    def logits_of(self, pooled: torch.Tensor, batch: dict) -> torch.Tensor:
        """Logits of each row's head from pooled states: [S, H] -> [B, C]."""
        return self.classifier.head_logits(pooled, self.head_of_domain[batch["domain"]], batch.get("sequences"))

    def head_for(self, domain: Domain) -> nn.Linear:
        """Final layer for ``domain``."""
        index = int(self.head_of_domain[[d.name for d in self.domains].index(domain.name)])
        return cast(nn.Linear, self.classifier.other_heads[index - 1]) if index else final_layer(self.classifier.model)

    def add_unseen(self, domain: Domain) -> None:
        """Add a domain that the teacher was not trained on.

        It uses the head of its label set; its domain embedding is the mean of the trained ones.

        Raises:
            TeachbackError: the teacher has no head for the domain's labels.
        """
        heads, head = list(self.classifier.heads), head_name(self.kind, domain)
        if head not in heads:
            why = "only heads for its own domains" if self.kind == "mtl" else "no head for its labels"
            raise TeachbackError(f"the {self.kind} teacher was not trained on {domain.name} and has {why}; use another TEACHER")
        self.domains = [*self.domains, domain]
        self.head_of_domain = torch.cat([self.head_of_domain, self.head_of_domain.new_tensor([heads.index(head)])])
        if self.transferable is not None:
            self.transferable.add_mean_domain()

    def save(self, folder: Path, tokenizer) -> None:
        """Write the plain checkpoint, the tokenizer, and all other weights beside it."""
        rest = {name: value for name, value in self.state_dict().items() if not name.startswith("classifier.model.")}
        save_checkpoint(folder, self.classifier.model, tokenizer, rest)


def load_teacher(folder: Path, record: dict, suite) -> Teacher:
    """Load the teacher of a finished stage 3 in eval mode.

    Raises:
        TeachbackError: weights cannot be read, are missing, unexpected or not finite.
    """
    arguments = record["arguments"]
    domains = [suite.domain(name) for name in arguments["trained_domains"]]
    embeds = embeds_domains(arguments.get("domain_labels", "false"))
    teacher = Teacher(load_finished_classifier(folder), arguments["teacher"], domains, record["transferable"], embeds)
    model = {f"classifier.model.{name}": value for name, value in teacher.classifier.model.state_dict().items()}
    try:
        teacher.load_state_dict(load_file(Path(folder) / TRAINING_ONLY) | model)
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise TeachbackError(
            f"{folder}: the teacher is incomplete or damaged ({reason}); remove the folder and run 3_train_teacher.sh again"
        ) from error
    check_finite(str(folder), teacher)
    return teacher.eval()


class TeacherTraining(TrainingModule):
    """Teacher with its loss: cross-entropy, for ``meta`` weighted and with the domain-corruption loss."""

    def __init__(self, teacher: Teacher, arguments: TeacherArguments):
        super().__init__()
        self.teacher = teacher
        self.arguments = arguments
        self.meta = arguments.teacher == "meta"

    def forward(self, **batch) -> dict[str, torch.Tensor]:
        classifier = self.teacher.domain_classifier
        outputs = self.teacher.outputs(batch, hidden_states=classifier is not None)
        hard = weighted_label_loss(outputs.logits, batch["label"], batch, self.arguments)
        weights = torch.ones_like(hard)
        if self.meta and self.arguments.use_sample_weights:
            weights = batch["weight"].clamp(min=0)  # a negative cosine would reward wrong predictions
        corruption = torch.zeros_like(hard)
        if classifier is not None and self.teacher.transferable is not None:
            knowledge = self.teacher.transferable(outputs.hidden_states[-1], batch).tanh()
            corruption = self._corruption(classifier, knowledge, batch["domain"])
        self.note(hard=hard, domain_corruption=corruption)
        loss = meta_teacher_loss(
            hard, corruption, weights, self.arguments.domain_loss_weight, self.arguments.domain_loss_form
        )
        return {"loss": loss, "logits": outputs.logits}

    def _corruption(self, classifier: nn.Linear, knowledge: torch.Tensor, domains: torch.Tensor) -> torch.Tensor:
        """Domain loss by row from h_d [B, H] and the rows' domains [B]."""
        labels = self.arguments.domain_labels
        if labels == "reversal":
            # Unbounded, the encoder would drive the classifier's loss ever higher and learn little else.
            recognised = recognised_domains(classifier(knowledge), domains)
            return domain_corruption_loss(classifier(reversed_gradient(knowledge, recognised)), domains)
        if labels == "uniform":  # the classifier learns the domain, the encoder to confuse it
            fixed = nn.functional.linear(knowledge, classifier.weight.detach(), classifier.bias.detach())
            return domain_corruption_loss(classifier(knowledge.detach()), domains) + domain_confusion_loss(fixed)
        if labels == "permuted":
            target = permuted_domains(domains)
        else:
            target = false_domains(domains, len(self.teacher.domains))
        return domain_corruption_loss(classifier(knowledge), target)
