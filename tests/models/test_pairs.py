"""One step of the losses of stages 4 to 6 for every pair of a teacher and a student family.

Teacher and student differ in width, depth, number of heads and tokenizer. `test_encoders` runs some of the pairs through
whole stages.
"""

import pytest
import torch
from families import DECODERS, ENCODERS, READABLE, family_config
from tiny import BOOKS, DVD, KITCHEN, batch
from transformers import AutoModelForSequenceClassification

from teachback.core.arguments import FirstStageArguments, SecondStageArguments
from teachback.core.errors import TeachbackError
from teachback.data.schema import label_options
from teachback.methods.inner_layers import InnerLayerDistillation
from teachback.methods.meta_teacher import MetaTeacher, meta_heads
from teachback.methods.predictions import PredictionDistillation, pkd_layer_map
from teachback.methods.teacher import Teacher
from teachback.methods.teacher_outputs import states
from teachback.models.heads import Classifier

PAIRS = [(teacher, student) for teacher in (*ENCODERS, *DECODERS) for student in ENCODERS]
ALIGNED = ("embedding_weight", "hidden_weight", "attention_weight")


def model_of(family: str, **sizes):
    """A classifier with random weights that is large enough for texts to differ."""
    torch.manual_seed(0)
    config = family_config(family, **sizes, **label_options(BOOKS))
    config.pad_token_id = 0
    model = AutoModelForSequenceClassification.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(4)
    return model


def teacher_of(family: str) -> Teacher:
    teacher = Teacher(model_of(family, layers=3, width=48, heads=4), "meta", [BOOKS, DVD, KITCHEN], transferable=True)
    return teacher.eval().requires_grad_(False)


def student_of(family: str) -> Classifier:
    return Classifier(model_of(family, layers=2, width=32, heads=2), {"sentiment": BOOKS})


def assert_trains(module, rows: dict) -> None:
    """Assert that one backward pass gives finite gradients and one other than 0 to the student's word embeddings."""
    value = module(**rows)["loss"]
    value.backward()
    gradients = [p.grad for p in module.student.parameters() if p.grad is not None]
    assert value.isfinite() and value > 0 and all(gradient.isfinite().all() for gradient in gradients)
    words = module.student.model.get_input_embeddings().weight.grad
    assert words is not None and words.abs().max() > 0


def outputs_of(teacher: Teacher, layers: tuple[int, ...] = ()) -> dict:
    """Outputs of a teacher with another tokenizer, in which the same three rows have more tokens."""
    found = states(teacher.classifier, batch((11, 7, 9), seed=5), 3, "fp32", layers, means=True)
    return {"teacher_means": torch.cat([found.pooled, found.means], -1), "teacher_cls": found.cls}


@pytest.mark.parametrize(("teacher", "student"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_every_loss_trains_the_embeddings_of_the_student(teacher, student):
    readable = {teacher, student} <= set(READABLE)
    taught = teacher_of(teacher)
    if not readable:
        with pytest.raises(TeachbackError, match="set ATTENTION_TARGET=relations, which supports every family, or ATTENTION_WEIGHT=0"):
            InnerLayerDistillation(student_of(student), taught, FirstStageArguments(), True)
    target = FirstStageArguments(attention_target="scores" if readable else "relations")
    assert_trains(InnerLayerDistillation(student_of(student), taught, target, True), batch())

    alone = FirstStageArguments(**dict.fromkeys(ALIGNED, 0.0))
    layers = tuple(pkd_layer_map("last", 2, 3))
    answer = outputs_of(taught, layers)
    assert_trains(InnerLayerDistillation(student_of(student), taught, alone, True), batch() | {"teacher_means": answer["teacher_means"]})

    args = SecondStageArguments(method="mpdistil", meta_teacher_every_epoch=False)
    second = PredictionDistillation(student_of(student), args, True, teacher_width=48)
    logits = taught.logits_of(answer["teacher_means"][:, 0, :48], {"domain": torch.zeros(3, dtype=torch.long)})
    assert_trains(second, batch() | {"teacher_logits": logits, "teacher_cls": answer["teacher_cls"]})

    meta = MetaTeacher(meta_heads(taught, [BOOKS]), 32)
    pooled = student_of(student).eval()(batch()).pooled
    read = meta.of_student(pooled[:, None], "sentiment")
    torch.testing.assert_close(meta.student_head("sentiment")(pooled), read, rtol=1e-4, atol=1e-5)


def test_given_token_means_give_the_loss_of_the_live_teacher():
    taught, rows = teacher_of("roberta"), batch()
    module = InnerLayerDistillation(student_of("bert"), taught, FirstStageArguments(**dict.fromkeys(ALIGNED, 0.0)), True).eval()
    found = states(taught.classifier, rows, 3, "fp32", means=True)
    brought = rows | {"teacher_means": torch.cat([found.pooled, found.means], -1)}
    torch.testing.assert_close(module(**brought)["loss"], module(**rows)["loss"])


def test_stage_4_without_any_loss_is_refused():
    with pytest.raises(TeachbackError, match="TKD_WEIGHT are all 0, so stage 4 would learn nothing.*FIRST=none"):
        FirstStageArguments(**dict.fromkeys(ALIGNED, 0.0), tkd_weight=0.0)
    assert FirstStageArguments(first="none", **dict.fromkeys(ALIGNED, 0.0), tkd_weight=0.0).first == "none"
