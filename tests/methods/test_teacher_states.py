"""Cached teacher states: losses and gradients equal those of the live teacher, and cache entries are not shared by teachers."""

import pytest
import torch
from tiny import BOOKS, NO_DROPOUT, classifier, tiny_teacher, tokenizer

from teachback.core.arguments import FirstStageArguments
from teachback.core.disk_cache import DiskCache
from teachback.core.errors import TeachbackError
from teachback.data.encoding import Collator, EncodedRows, encode
from teachback.data.schema import Domain, Row
from teachback.data.slices import Slices
from teachback.methods.inner_layers import InnerLayerDistillation
from teachback.methods.teacher_states import FrozenTeacher, attach_states, name_of, refusal
from teachback.models.heads import Classifier

SETTINGS = {"pad_token_id": 0, "batch_size": 2, "device": torch.device("cpu"), "precision": "fp32"}
TEXTS = ["good plot", "bad", "thin paper never read again", "loud screen quite good", "once twice"]


def rows(texts=TEXTS) -> EncodedRows:
    encoded = encode([Row(str(i), text, "", "", "books") for i, text in enumerate(texts)], tokenizer(), 16)
    count = torch.arange(len(texts))
    encoded.columns = {"label": count % 2, "domain": count % 3, "weight": 0.1 + 0.2 * count.float()}
    return encoded


def stage(student=None, **arguments) -> InnerLayerDistillation:
    torch.manual_seed(2)
    model = classifier(layers=2, seed=1, **(student or {}))
    teacher = tiny_teacher(layers=4)
    return InnerLayerDistillation(Classifier(model, {"sentiment": BOOKS}), teacher, FirstStageArguments(**arguments), True).eval()


def batch(encoded: EncodedRows, order=(0, 1, 2, 3, 4)) -> dict:
    found = Collator(0)([encoded[i] for i in order])
    found.pop("index")
    return found


def attached(module: InnerLayerDistillation, folder, encoded=None, teacher_hash="one") -> EncodedRows:
    encoded = encoded or rows()
    attach_states(encoded, module.teacher, DiskCache(folder, None), SETTINGS, teacher_hash)
    return encoded


@pytest.mark.parametrize("student", [{}, {"width": 16}, {"heads": 4}], ids=["alike", "another width", "other heads"])
@pytest.mark.parametrize(
    "arguments",
    [
        {}, {"attention_weight": 0}, {"layer_map": "2,3", "attention_target": "probs"},
        {"attention_target": "relations"}, {"attention_target": "relations", "layer_map": "4", "hidden_weight": 0},
    ],
    ids=str,
)  # fmt: skip
def test_cached_states_give_the_losses_and_gradients_of_the_live_teacher(student, arguments, tmp_path):
    module = stage(student, **arguments)
    live, written = batch(rows()), batch(attached(module, tmp_path))
    assert "teacher_states" in written and "teacher_states" not in live
    values = []
    for one in (live, written):
        module.zero_grad()
        loss = module(**one)["loss"]
        loss.backward()
        values.append((loss.detach(), [p.grad.clone() for p in module.parameters() if p.grad is not None]))
    (loss, gradients), (again, others) = values
    torch.testing.assert_close(loss, again, rtol=2e-3, atol=1e-5)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-3 * float(one.abs().max()) + 1e-6)


def test_teacher_is_not_run_if_its_states_are_cached(tmp_path, monkeypatch):
    module = stage()
    values = batch(attached(module, tmp_path))
    monkeypatch.setattr(module.teacher.teacher.classifier.model, "forward", None)
    assert module(**values)["loss"].isfinite()
    with pytest.raises(TypeError):
        module(**batch(rows()))


def test_cached_bfloat16_states_give_the_loss_of_the_live_teacher(tmp_path):
    module, encoded = stage(), rows()
    attach_states(encoded, module.teacher, DiskCache(tmp_path, None), SETTINGS | {"precision": "bf16"}, "one")
    with torch.autocast("cpu", torch.bfloat16):
        written, live = (module(**batch(part))["loss"] for part in (encoded, rows()))
    torch.testing.assert_close(written, live, rtol=2e-2, atol=1e-3)


def test_states_too_large_for_half_precision_are_rejected(tmp_path):
    """States of some decoders exceed the range of half precision; with the live teacher they can be used."""
    module = stage()
    with torch.no_grad():
        module.teacher.teacher.classifier.model.bert.embeddings.LayerNorm.weight.mul_(1e6)
    assert module(**batch(rows()))["loss"].isfinite()
    with pytest.raises(TeachbackError, match="states beyond 65504, .* set TEACHER_CACHE_GB=0"):
        attached(module, tmp_path)
    assert not [path for path in tmp_path.glob("*") if not path.name.startswith(".")]


def test_cached_states_follow_their_examples_in_any_batch(tmp_path):
    module, encoded = stage(), rows()
    attached(module, tmp_path, encoded)
    alone = [module(**batch(encoded, [i]))["loss"] for i in range(5)]
    together = module(**batch(encoded, [3, 0, 4, 1, 2]))["loss"]
    torch.testing.assert_close(together, sum(alone) / 5, rtol=1e-4, atol=1e-5)


def test_cached_logits_knowledge_and_states_equal_those_of_the_live_teacher(tmp_path):
    module = stage()
    written = module.teacher.answer(batch(attached(module, tmp_path)))
    live = module.teacher.answer(batch(rows()))
    torch.testing.assert_close(written.logits, live.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(written.knowledge, live.knowledge, rtol=1e-4, atol=1e-4)
    mask = batch(rows())["attention_mask"].unsqueeze(-1)
    for one, other in zip(written.hidden, live.hidden, strict=True):
        torch.testing.assert_close(one.float() * mask, other * mask, rtol=2e-3, atol=2e-3)


def test_cache_key_depends_on_teacher_precision_layers_texts_and_length(tmp_path):
    module = stage()
    keys = {
        name_of("one", "fp32", [2, 4], "scores", rows()),
        name_of("two", "fp32", [2, 4], "scores", rows()),
        name_of("one", "bf16", [2, 4], "scores", rows()),
        name_of("one", "fp32", [1, 4], "scores", rows()),
        name_of("one", "fp32", [2, 4], "", rows()),
        name_of("one", "fp32", [2, 4], "scores", rows(TEXTS[::-1])),
        name_of("one", "fp32", [2, 4], "scores", encode([Row("0", "good plot", "", "", "books")], tokenizer(), 3)),
    }
    assert len(keys) == 7 and name_of("one", "fp32", [2, 4], "scores", rows()) in keys
    attached(module, tmp_path)
    attached(module, tmp_path, teacher_hash="two")
    assert len(list(tmp_path.iterdir())) == 2


def test_states_are_computed_once_and_then_read_from_disk(tmp_path, monkeypatch):
    module = stage()
    first = batch(attached(module, tmp_path))
    monkeypatch.setattr(FrozenTeacher, "states", None)
    second = batch(attached(module, tmp_path))
    assert torch.equal(first["teacher_states"], second["teacher_states"])
    assert torch.equal(first["teacher_means"], second["teacher_means"])


def test_interrupted_caching_leaves_no_partial_states(tmp_path, monkeypatch):
    module, states = stage(), FrozenTeacher.states
    calls = []

    def fail(self, batch):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return states(self, batch)

    monkeypatch.setattr(FrozenTeacher, "states", fail)
    with pytest.raises(KeyboardInterrupt):
        attached(module, tmp_path)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    monkeypatch.setattr(FrozenTeacher, "states", states)
    written = batch(attached(module, tmp_path))
    torch.testing.assert_close(module(**written)["loss"], module(**batch(rows()))["loss"], rtol=2e-3, atol=1e-5)


def test_caching_is_refused_beyond_the_disk_limit_and_for_mixed_questions(tmp_path):
    live = stage().teacher
    assert refusal([rows(), rows()], live, DiskCache(tmp_path, None)) == ""
    assert "TEACHER_CACHE_GB is 0.0 GB" in refusal([rows()], live, DiskCache(tmp_path, 0.0))
    one = 2 * sum(rows().lengths) * 32 * (1 + 2 * 3)  # bytes in fp16 at width 32: embeddings; states, queries and keys of two layers
    limit = DiskCache(tmp_path, 1.5 * one / 1e9)
    assert refusal([rows()], live, limit) == "" and refusal([rows(), rows()], live, limit)
    mixed = EncodedRows({"input_ids": Slices.of_lists([[2, 3]] * 3)}, sequences=[1, 2])
    assert "choices" in refusal([mixed], live, DiskCache(tmp_path, None))


def test_cached_states_of_multiple_choice_questions_give_the_live_loss(tmp_path):
    quest = Domain("quest", "quest", ("choice1", "choice2"), kind="choices")
    teacher = tiny_teacher(kind="mix", domains=(quest,), transferable=False, layers=2)
    student = Classifier(classifier(domain=quest, **NO_DROPOUT), {"quest": quest})
    module = InnerLayerDistillation(student, teacher, FirstStageArguments(tkd_weight=0), True).eval()
    texts = [Row(str(i), text, "good ||| bad", "", "quest") for i, text in enumerate(TEXTS)]

    def make():
        encoded = encode(texts, tokenizer(), 16, {"quest": quest})
        count = torch.arange(len(texts))
        encoded.columns = {"label": count % 2, "domain": 0 * count, "weight": torch.ones(len(texts))}
        return encoded

    written = batch(attached(module, tmp_path, make()), [2, 0, 1])
    assert written["teacher_states"].shape[0] == 6
    torch.testing.assert_close(
        module(**written)["loss"], module(**batch(make(), [2, 0, 1]))["loss"], rtol=2e-3, atol=1e-5
    )
