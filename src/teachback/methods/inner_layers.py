"""Stage 4: distillation of the teacher's inner layers."""

import torch
from torch import nn

from teachback.core.arguments import FirstStageArguments
from teachback.core.errors import TeachbackError
from teachback.methods.attention_loss import projected_attention_loss
from teachback.methods.loss_balance import LossBalance
from teachback.methods.losses import (
    effective_share,
    expertise_weight,
    hidden_state_loss,
    known_labels,
    teacher_error,
    transferable_knowledge_loss,
)
from teachback.methods.relation_loss import relation_heads, relation_loss
from teachback.methods.teacher import Teacher
from teachback.methods.teacher_states import FrozenTeacher, TeacherOutputs, attention_reader
from teachback.models.heads import Classifier, TransferableKnowledge, per_row
from teachback.models.layers import backbone, spread_layers
from teachback.training.module import TrainingModule

ALIGNED = {"embedding": "embedding", "hidden": "hidden states", "attention": "attention"}  # token-level losses
WEIGHTS = {name: f"{name}_weight" for name in ALIGNED} | {"transferable": "tkd_weight"}  # argument field by loss term


def layer_map(name: str, student_layers: int, teacher_layers: int) -> list[int]:
    """Teacher layer (counted from 1) of each student layer.

    uniform: (i+1)*N_T/N_S, rounded down; last and first: the teacher's last or first N_S; or a list "3,6,9,12"; or a
    single layer, for the student's last (MiniLM). Negative numbers count from the teacher's last layer, -1.
    """
    if name in ("uniform", "last", "first") and student_layers > teacher_layers:
        raise TeachbackError(
            f"LAYER_MAP={name} cannot map {student_layers} student layers to {teacher_layers} teacher layers; set a list of teacher layers"
        )
    if name == "uniform":
        return [layer + 1 for layer in spread_layers(student_layers, teacher_layers)]
    if name == "last":
        return list(range(teacher_layers - student_layers + 1, teacher_layers + 1))
    if name == "first":
        return list(range(1, student_layers + 1))
    layers = [layer if layer > 0 else teacher_layers + 1 + layer for layer in number_list("LAYER_MAP", name)]
    if len(layers) not in (1, student_layers) or not all(1 <= layer <= teacher_layers for layer in layers):
        raise TeachbackError(
            f"LAYER_MAP={name}: set one teacher layer from 1 to {teacher_layers} for each of the {student_layers} student layers, or one for the last layer; -1 is the teacher's last"
        )
    return layers


def number_list(name: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise TeachbackError(f"{name}={text}: expected numbers separated by commas") from None


class InnerLayerDistillation(TrainingModule):
    """Stage 4: embedding, hidden-state, attention and transferable-knowledge losses, weighted per example by lambda.

    All but the last are token-level, so teacher and student need the same tokens; otherwise each batch holds
    ``teacher_means``. Labels only enter lambda; a hidden label is replaced by the teacher's prediction.
    """

    def __init__(
        self, student: Classifier, teacher: Teacher, arguments: FirstStageArguments, use_expertise_weights: bool,
        expertise_power: float = 1.0,
    ):  # fmt: skip
        super().__init__()
        self.student, self.arguments, self.use_expertise_weights = student, arguments, use_expertise_weights
        self.expertise_power = expertise_power
        student_config, teacher_config = student.model.config, teacher.classifier.model.config
        depths = student_config.num_hidden_layers, teacher_config.num_hidden_layers
        by_layer = arguments.hidden_weight or arguments.attention_weight
        self.layers = layer_map(arguments.layer_map, *depths) if by_layer else []
        widths = student_config.hidden_size, teacher_config.hidden_size
        self.projection = nn.Linear(*widths, bias=False) if widths[0] != widths[1] else nn.Identity()
        self.transferable = self._transferable(teacher, widths[0]) if arguments.tkd_weight else None
        self.student_layers = list(range(depths[0] - len(self.layers) + 1, depths[0] + 1))
        target = arguments.attention_target if arguments.attention_weight else ""
        self.teacher = FrozenTeacher(teacher, self.layers, target)
        if target:
            self._student_attention = attention_reader(student.model, [i - 1 for i in self.student_layers], target)
            if target == "relations" and self.teacher.reader:
                read = *self._student_attention.widths(), *self.teacher.reader.widths()
                self.relation_heads = relation_heads(arguments.relation_heads, *read)
        self.balance = LossBalance(arguments.loss_balance, self._names()) if arguments.loss_balance != "none" else None
        freeze_head(student.model)
        if not arguments.hidden_weight and not arguments.tkd_weight:
            self._freeze_behind_attention()
            self.projection.requires_grad_(bool(arguments.embedding_weight))  # DDP expects a gradient of all that is trained

    def _transferable(self, teacher: Teacher, width: int) -> TransferableKnowledge:
        if teacher.transferable is None:
            raise TeachbackError(
                f"the {teacher.kind} teacher was trained without the domain loss, so it has no transferable knowledge; "
                "set TKD_WEIGHT=0, or use TEACHER=meta with USE_DOMAIN_LOSS=1 and DOMAIN_LOSS_WEIGHT above 0"
            )
        embeds = teacher.transferable.domain_embedding is not None
        module = TransferableKnowledge(width, len(teacher.domains) if embeds else 0)
        if width == teacher.transferable.dense.in_features:
            module.load_state_dict(teacher.transferable.state_dict())
        return module

    def _freeze_behind_attention(self) -> None:
        """Freeze parameters that receive no gradient when no loss reads token states: the rest of the last layer.

        They differ by model family, so they are determined by a backward pass on a text of two tokens.
        """
        weights = [weight for weight in self.student.model.parameters() if weight.requires_grad]
        tokens = torch.ones(1, 2, dtype=torch.long, device=weights[0].device)
        training = self.student.training
        outputs = self.student.eval()({"input_ids": tokens, "attention_mask": tokens}, hidden_states=True)
        read = [outputs.hidden_states[0]] if self.arguments.embedding_weight else []
        if self.arguments.attention_weight:
            states = self._student_attention.take()
            read += [part for layer in states for part in layer.parts()]
            read += [bias for layer in states if (bias := getattr(layer, "bias", None)) is not None]
        reached = torch.autograd.grad(torch.stack([part.sum() for part in read]).sum(), weights, allow_unused=True)
        for weight, gradient in zip(weights, reached):
            weight.requires_grad_(gradient is not None)
        self.student.train(training)

    def train(self, mode: bool = True):
        """Set the mode; without ``first_dropout`` the student stays in eval mode, which differs in dropout only."""
        super().train(mode)
        if not self.arguments.first_dropout:
            self.student.eval()
        return self

    def further_state(self) -> dict:
        """Whether the initial magnitudes are fixed."""
        return {"settled": self.balance.settled} if self.balance is not None else {}

    def load_further_state(self, state: dict) -> None:
        """Restore a `further_state`."""
        if self.balance is not None:
            self.balance.settled = state.get("settled", False)

    def forward(self, **batch) -> dict[str, torch.Tensor]:
        teacher = self.teacher.answer(batch)
        seen = self.student(batch, hidden_states=True)
        projected = [self.projection(states) for states in seen.hidden_states]  # under autocast, like the model itself
        with torch.autocast(seen.logits.device.type, enabled=False):
            terms = self._terms(projected, teacher, batch)
            terms = {name: per_row(values, batch.get("sequences")) for name, values in terms.items()}
            if self.transferable is not None:
                terms["transferable"] = self._transferable_loss(self.transferable, seen.hidden_states, teacher, batch)
            weights = self._weights(teacher.logits, batch)
            self.note(**terms, expertise_weight=weights, effective_share=effective_share(weights))
            if self.balance is not None:
                terms = self.balance(terms)
            return {"loss": (weights * sum(self._scaled(terms), start=torch.zeros_like(weights))).mean()}

    def _names(self) -> list[str]:
        """Names of the terms with a nonzero weight."""
        return [name for name in (*ALIGNED, "transferable") if getattr(self.arguments, WEIGHTS[name])]

    def _scaled(self, terms: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        return [getattr(self.arguments, WEIGHTS[name]) * value for name, value in terms.items()]

    def _terms(self, student, teacher: TeacherOutputs, batch: dict) -> dict[str, torch.Tensor]:
        """Weighted terms by sequence [S] from the student's projected states; summed over layers as in TinyBERT."""
        a, mask = self.arguments, batch["attention_mask"]
        zero = torch.zeros((), device=mask.device)
        terms: dict[str, torch.Tensor] = {}
        if a.embedding_weight:
            terms["embedding"] = hidden_state_loss(student[0], teacher.hidden[0], mask)
        if a.hidden_weight:
            pairs = zip([student[layer] for layer in self.student_layers], teacher.hidden[1:])
            terms["hidden"] = sum((hidden_state_loss(s, t, mask) for s, t in pairs), start=zero)
        if a.attention_weight:
            both = zip(self._student_attention.take(), teacher.attention)
            terms["attention"] = sum((self._attention_loss(s, t, mask) for s, t in both), start=zero)
        return terms

    def _attention_loss(self, student, teacher, mask: torch.Tensor) -> torch.Tensor:
        """Attention loss of a layer by sequence [S]."""
        target = self.arguments.attention_target
        if target == "relations":
            return relation_loss(student, teacher, mask, self.relation_heads)
        return projected_attention_loss(student, teacher, mask, target)

    def _transferable_loss(self, transferable: TransferableKnowledge, student, teacher: TeacherOutputs, batch: dict) -> torch.Tensor:
        """L_TKD by row [B]."""
        learnt, known = transferable(student[-1].float(), batch), teacher.knowledge
        assert known is not None  # `_transferable` refuses teachers without it
        if self.arguments.tkd_form == "paper":
            known, learnt = known.tanh(), learnt.tanh()
        return transferable_knowledge_loss(self.projection(learnt), known)

    def _weights(self, logits: torch.Tensor, batch: dict) -> torch.Tensor:
        if not self.use_expertise_weights:
            return torch.ones(len(logits), device=logits.device)
        return expertise_weight(batch["weight"], teacher_error(logits, known_labels(batch["label"], logits)), self.expertise_power)


def require_no_common_tokens(args: FirstStageArguments, transferable: bool) -> None:
    """Refuse token-level losses for a teacher and a student with different tokenizers.

    ``transferable``: whether the teacher has the module for the transferable-knowledge loss.

    Raises:
        TeachbackError: a token-level loss has a nonzero weight.
    """
    aligned = [name for name in ALIGNED if getattr(args, f"{name}_weight")]
    if not aligned:
        return
    advice = "FIRST=none, as the losses of stage 5 need no common tokens"
    if transferable:
        switches = " ".join(f"{name.upper()}_WEIGHT=0" for name in aligned)
        advice = f"{switches} to learn from the transferable-knowledge loss alone, or {advice}"
    raise TeachbackError(
        "teacher and student have different tokenizers, so stage 4 cannot align their tokens for these losses: "
        f"{', '.join(ALIGNED[name] for name in aligned)}; set {advice}. Or set STUDENT_INIT=teacher, or a STUDENT_MODEL with "
        "the teacher's vocabulary"
    )


def freeze_head(model) -> None:
    """Freeze everything after the last layer's token states, as stage 4 has no loss for it."""
    encoder = {id(p) for name, p in backbone(model).named_parameters() if "pooler" not in name}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in encoder)
