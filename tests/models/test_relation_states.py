import pytest
import torch
from families import DECODERS, ENCODERS, family_config
from tiny import batch, classifier
from transformers import AutoModelForSequenceClassification, DebertaV2Config, GPT2Config, T5Config

from teachback.core.errors import TeachbackError
from teachback.methods.relation_loss import relation_heads, relation_loss
from teachback.models.relation_states import RelationReader

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 60}
FURTHER = {
    "deberta-v3": DebertaV2Config(  # as published: positions share the projections of the texts
        **SMALL, pad_token_id=0, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8, share_att_key=True,
        position_biased_input=False, norm_rel_ebd="layer_norm", type_vocab_size=0,
    ),
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=60, n_positions=64, pad_token_id=0),
}


def model_of(family: str, seed: int = 0, **sizes):
    config = FURTHER[family] if family in FURTHER else family_config(family, **sizes)
    if config.pad_token_id is None:
        config.pad_token_id = 0
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_config(
        config, attn_implementation="sdpa" if family == "bert" else None
    ).eval()


def run(model, rows=None):
    rows = rows or batch()
    return model(input_ids=rows["input_ids"] % 60, attention_mask=rows["attention_mask"])


@pytest.mark.parametrize("family", [*ENCODERS, *DECODERS, *FURTHER])
def test_relation_states_of_every_family_are_read_in_every_layer(family):
    model = model_of(family)
    before = run(model).logits
    reader = RelationReader(model, [0, 1])
    torch.testing.assert_close(run(model).logits, before, rtol=0, atol=0)
    first, second = reader.take()
    texts, length = batch()["input_ids"].shape
    for layer in (first, second):
        assert [tuple(x.shape) for x in layer.parts()] == [(texts, length, width) for width in reader.widths()]
    assert not any(torch.equal(a, b) for a, b in zip(first.parts(), second.parts()))


@pytest.mark.parametrize("family", [*ENCODERS, *DECODERS, *FURTHER])
def test_the_relation_loss_trains_students_of_every_teacher_family(family):
    """The loss between the last layers gives the student's embeddings a gradient, for every family of the teacher."""
    teacher, student = model_of(family, seed=1), classifier("bert")
    ours, theirs = RelationReader(student, [1]), RelationReader(teacher, [1])
    with torch.no_grad():
        run(teacher)
    run(student)
    heads = relation_heads(None, *ours.widths(), *theirs.widths())
    (one,), (other,) = ours.take(), theirs.take()
    relation_loss(one, other, batch()["attention_mask"], heads).sum().backward()
    assert student.get_input_embeddings().weight.grad.any()


def test_queries_keys_and_values_are_the_outputs_of_the_projections():
    model = classifier("bert")
    reader = RelationReader(model, [1])
    states = model(
        **{name: batch()[name] for name in ("input_ids", "attention_mask")}, output_hidden_states=True
    ).hidden_states
    attention = model.bert.encoder.layer[1].attention.self
    (found,) = reader.take()
    for projection, read in zip((attention.query, attention.key, attention.value), found.parts()):
        torch.testing.assert_close(read, projection(states[1]))


def test_states_of_a_shared_layer_are_those_of_the_last_pass():
    model = model_of("albert")  # its one layer is called twice in a pass
    reader = RelationReader(model, [1])
    run(model)
    (expected,) = reader.take()
    other = batch() | {"input_ids": batch()["input_ids"].flip(0)}
    run(model, other)
    (different,) = reader.take()
    run(model, other), run(model)
    (last,) = reader.take()
    torch.testing.assert_close(last.query, expected.query, rtol=0, atol=0)
    assert not torch.equal(different.query, expected.query)


def test_a_family_without_known_projections_is_refused():
    class Strange(torch.nn.Module):
        base_model_prefix, config = "inner", T5Config()

        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(2, 2)

    with pytest.raises(TeachbackError, match="values of 't5' models cannot be read; set ATTENTION_WEIGHT=0"):
        RelationReader(Strange(), [0])
