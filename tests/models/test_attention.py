from dataclasses import replace

import pytest
import torch
from tiny import ARCHITECTURES, NO_DROPOUT, batch, classifier, enlarge
from transformers import (
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
)

from teachback.core.errors import TeachbackError
from teachback.methods.losses import masked_softmax
from teachback.models.attention import AttentionProjections, Projections, by_head, scores
from teachback.models.layers import layer_list

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 60}


def taken(reader: AttentionProjections) -> list[torch.Tensor]:
    """Attention scores of each layer that ``reader`` has read."""
    return [scores(projections) for projections in reader.take()]


def run(model, rows=None):
    rows = rows or batch()
    return model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"])


def with_dropout_in_attention(architecture):
    """A classifier with dropout 0.5 on attention probabilities and none elsewhere."""
    if architecture == "distilbert":
        return classifier(architecture, attention_dropout=0.5, dropout=0.0, seq_classif_dropout=0.0)
    return classifier(architecture, **NO_DROPOUT | {"attention_probs_dropout_prob": 0.5})


@every_architecture
def test_softmax_of_the_scores_equals_eager_attention_probabilities(architecture):
    fast = classifier(architecture)
    eager = classifier(architecture, attn_implementation="eager")
    eager.load_state_dict(fast.state_dict())
    reader, rows = AttentionProjections(fast, [0, 1]), batch((9, 4, 6))
    fast_logits = run(fast, rows).logits
    told = eager(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"], output_attentions=True)
    torch.testing.assert_close(fast_logits, told.logits)
    for found, expected in zip(taken(reader), told.attentions, strict=True):
        assert found.shape == (3, 2, 9, 9)
        assert expected.std() > 0.05  # far from uniform, as otherwise the comparison would prove little
        real = rows["attention_mask"].bool()[:, None, :, None].expand_as(found)
        torch.testing.assert_close(
            masked_softmax(found, rows["attention_mask"])[real], expected[real], atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("length", [9, 40])
def test_scores_of_mpnet_include_its_position_bias(length):
    torch.manual_seed(0)
    model = enlarge(MPNetForSequenceClassification(MPNetConfig(**SIZES, pad_token_id=0, **NO_DROPOUT))).eval()
    reader, rows = AttentionProjections(model, [1, 0]), batch((length, 4, 6))
    answered = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"], output_attentions=True)
    read = reader.take()
    for projections, expected in zip(read, answered.attentions[::-1], strict=True):
        real = rows["attention_mask"].bool()[:, None, :, None].expand_as(expected)
        found = masked_softmax(scores(projections), rows["attention_mask"])
        torch.testing.assert_close(found[real], expected[real], atol=1e-5, rtol=1e-4)
        (again,) = reader.unpack([part.half() for part in projections.parts()])  # half precision, as in cached states
        torch.testing.assert_close(scores(again), scores(projections), atol=0.05, rtol=0.01)
        without = scores(replace(projections, bias=None))
        assert (scores(projections) - without).std() > 0.05  # without an effect of the bias, the comparison would prove little
    scores(read[0]).square().mean().backward()
    assert model.mpnet.encoder.relative_attention_bias.weight.grad.abs().max() > 0


@every_architecture
def test_reading_scores_leaves_fused_attention_in_use(architecture, monkeypatch):
    model = classifier(architecture)
    before = run(model).logits
    calls, fast = [], torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fast(*a, **k)
    )
    AttentionProjections(model, [0, 1])
    torch.testing.assert_close(run(model).logits, before, rtol=0, atol=0)
    assert len(calls) == 2 and model.config._attn_implementation == "sdpa"


@every_architecture
def test_scores_are_taken_before_dropout(architecture):
    model = with_dropout_in_attention(architecture)
    reader = AttentionProjections(model, [0])
    run(model)
    calm = taken(reader)[0]
    model.train()
    first, second = run(model).logits, run(model).logits
    assert not torch.equal(first, second)  # dropout is active
    torch.testing.assert_close(taken(reader)[0], calm)


def test_only_the_given_layers_are_read_in_the_given_order():
    model = classifier(layers=3)
    every, some = AttentionProjections(model, [0, 1, 2]), AttentionProjections(model, [2, 0])
    run(model)
    all_scores, found = taken(every), taken(some)
    assert len(found) == 2
    assert torch.equal(found[0], all_scores[2]) and torch.equal(found[1], all_scores[0])


def test_each_forward_pass_has_its_own_scores_and_take_clears_them():
    model = classifier()
    reader = AttentionProjections(model, [0])
    run(model, batch(seed=1))
    first = taken(reader)[0]
    run(model, batch(seed=2))
    second = taken(reader)[0]
    assert not torch.equal(first, second)
    with pytest.raises(KeyError):
        taken(reader)


def test_gradients_reach_queries_and_keys_but_no_later_weights():
    model = classifier()
    reader = AttentionProjections(model, [1])
    run(model)
    taken(reader)[0].square().mean().backward()
    lower, upper = layer_list(model)
    for projection in (upper.attention.self.query, upper.attention.self.key, lower.attention.self.value):
        assert projection.weight.grad.abs().max() > 0
    assert upper.attention.self.value.weight.grad is None and upper.output.dense.weight.grad is None


def test_scores_and_gradients_equal_hand_computed_values():
    query = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 0.0, 1.0]]], requires_grad=True)
    key = torch.tensor([[[1.0, 0.0, 0.0, 1.0], [2.0, 1.0, 1.0, 0.0]]])
    root = 2**0.5  # two heads of width 2
    expected = torch.tensor([[[[1.0, 4.0], [0.0, 1.0]], [[4.0, 3.0], [1.0, 0.0]]]]) / root
    found = scores(Projections(by_head(query, 2), by_head(key, 2)))
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    torch.testing.assert_close(query.grad, torch.tensor([[3.0, 1.0, 1.0, 1.0]]).expand(2, 4)[None] / root)


def test_scores_are_computed_in_float32_under_autocast():
    model = classifier()
    reader = AttentionProjections(model, [0])
    run(model)
    exact = taken(reader)[0]
    with torch.autocast("cpu", torch.bfloat16):
        run(model)
        found = taken(reader)[0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, atol=0.3, rtol=0.05)


@pytest.mark.parametrize(
    ("config", "model"),
    [
        (DebertaV2Config(**SIZES), DebertaV2ForSequenceClassification),
        (
            ModernBertConfig(**SIZES, pad_token_id=0, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3),
            ModernBertForSequenceClassification,
        ),
    ],
    ids=["deberta", "modernbert"],
)
def test_architectures_whose_scores_are_not_a_plain_product_are_refused(config, model):
    with pytest.raises(TeachbackError, match="ATTENTION_WEIGHT=0") as caught:
        AttentionProjections(model(config), [0])
    assert config.model_type in str(caught.value) and "bert, " in str(caught.value)


@every_architecture
def test_scores_do_not_depend_on_other_rows_or_padding(architecture):
    model = classifier(architecture)
    reader, rows = AttentionProjections(model, [1]), batch((9, 4))
    run(model, rows)
    together = taken(reader)[0]
    run(model, {"input_ids": rows["input_ids"][1:, :4], "attention_mask": torch.ones(1, 4)})
    torch.testing.assert_close(taken(reader)[0][0], together[1, :, :4, :4], atol=1e-5, rtol=1e-4)
