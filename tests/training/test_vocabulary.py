"""Training without the embeddings of unused tokens, which must give the same weights as with the whole table."""

import copy

import pytest
import torch
from tiny import BOOKS, VOCABULARY, classifier, text_rows, tokenizer
from torch.nn.functional import cross_entropy

from teachback.core.arguments import SecondStageArguments
from teachback.core.training_arguments import OptimizerArguments
from teachback.data.encoding import Collator, encode
from teachback.methods.predictions import PredictionDistillation
from teachback.models.heads import Classifier
from teachback.training import vocabulary
from teachback.training.trainer import train
from teachback.training.vocabulary import UsedEmbedding, decay_others, restore, use_only, whole_vocabulary

LABELS = torch.tensor([0, 1, 0, 1])


@pytest.fixture
def encoded():
    rows = encode(text_rows(4), tokenizer(), 16)
    rows.columns["label"] = LABELS
    return rows


def learn(model, encoded, steps=4):
    """Gradient norms of a few AdamW steps with a large learning rate and weight decay."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.5)
    batch = Collator(0)([encoded[i] for i in range(len(encoded))])
    norms = []
    for _ in range(steps):
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        cross_entropy(model(**inputs).logits, LABELS).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        optimizer.step()
        decay_others(model, optimizer)
        optimizer.zero_grad()
    return norms


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "electra"])
def test_reduced_table_gives_the_same_weights_as_the_whole_table(encoded, architecture):
    whole = classifier(architecture)
    start = whole.get_input_embeddings().weight.detach().clone()
    used = copy.deepcopy(whole)
    use_only(used, [encoded], 0)
    assert used.get_input_embeddings().weight.shape[0] < VOCABULARY / 2
    assert learn(used, encoded) == pytest.approx(learn(whole, encoded), rel=1e-5)
    restore(used)
    assert type(used.get_input_embeddings()) is torch.nn.Embedding
    for (name, one), other in zip(whole.named_parameters(), used.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6, msg=name)
    unused = used.get_input_embeddings().weight[-1]
    torch.testing.assert_close(unused, start[-1] * (1 - 0.01 * 0.5) ** 4)


def trained(encoded, folder, **options):
    """Student after two epochs with the Trainer, and the types of its embedding table during training."""
    module = PredictionDistillation(Classifier(classifier(seed=1), {"sentiment": BOOKS}), SecondStageArguments(), False)
    seen = []
    module.student.model.register_forward_hook(lambda model, *_: seen.append(type(model.get_input_embeddings())))
    args = OptimizerArguments(num_train_epochs=2, learning_rate=0.01, weight_decay=0.5, per_device_train_batch_size=2,
                              seed=3).training_arguments("cpu", "fp32", disable_tqdm=True, **options)  # fmt: skip
    train(module, encoded, encoded, args, folder, None, 0)
    return module.student.model, set(seen)


def test_trainer_gives_the_same_student_with_the_reduced_table(encoded, tmp_path, monkeypatch):
    used, tables = trained(encoded, tmp_path / "used")
    assert tables == {UsedEmbedding}
    monkeypatch.setattr(vocabulary, "WORTHWHILE", 0.0)
    whole, tables = trained(encoded, tmp_path / "whole")
    assert tables == {torch.nn.Embedding}
    assert used.state_dict().keys() == whole.state_dict().keys()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(used.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_optimizers_that_need_the_whole_matrix_get_the_whole_table(encoded, tmp_path):
    _, tables = trained(encoded, tmp_path, optim="adafactor")
    assert tables == {torch.nn.Embedding}


def test_token_outside_the_reduced_table_is_an_error(encoded):
    model = classifier()
    use_only(model, [encoded], 0)
    with pytest.raises(IndexError):
        model(input_ids=torch.tensor([[2, VOCABULARY - 1, 3]]))


def test_padding_token_is_always_in_the_reduced_table():
    model = classifier()
    use_only(model, [], 0)
    assert model.get_input_embeddings()(torch.tensor([0])).shape == (1, 32)


def test_whole_vocabulary_gives_a_state_dict_with_the_whole_table(encoded):
    model = classifier()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    use_only(model, [encoded], 0)
    with whole_vocabulary(model):
        inside = {name: value.clone() for name, value in model.state_dict().items()}
    assert inside.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in inside.items())
    assert isinstance(model.get_input_embeddings(), UsedEmbedding)


@pytest.mark.parametrize("why", ["frozen", "shared", "all used"])
def test_frozen_shared_and_fully_used_tables_are_not_reduced(encoded, why, monkeypatch):
    model = classifier()
    table = model.get_input_embeddings()
    if why == "frozen":
        table.weight.requires_grad_(False)
    elif why == "shared":
        model.tied = torch.nn.Linear(32, VOCABULARY, bias=False)
        model.tied.weight = table.weight
    else:
        monkeypatch.setattr(vocabulary, "WORTHWHILE", 0.1)
    use_only(model, [encoded], 0)
    assert model.get_input_embeddings() is table
