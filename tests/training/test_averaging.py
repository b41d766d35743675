"""Layer-wise learning-rate decay, averaged weights of the last epochs, and the choice of the initial weights."""

import pytest
import torch
from families import DECODERS, family_config
from safetensors.torch import save_file
from tiny import BOOKS, classifier, text_rows, tokenizer
from torch import nn
from transformers import AutoModelForSequenceClassification

from teachback.core.arguments import SecondStageArguments
from teachback.core.errors import TeachbackError
from teachback.core.training_arguments import OptimizerArguments
from teachback.data.encoding import encode
from teachback.methods.predictions import PredictionDistillation
from teachback.models.heads import Classifier
from teachback.models.layers import backbone
from teachback.training.averaging import mean_weights
from teachback.training.layer_rates import decay_by_layer
from teachback.training.trainer import train


def learning_rates(module, decay=0.5):
    """Learning rate of each parameter after layer-wise decay from a base rate of 1."""
    decays = [p for p in module.parameters() if p.ndim > 1], [p for p in module.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": part, "weight_decay": i} for i, part in enumerate(decays)], lr=1.0)
    decay_by_layer(optimizer, module, decay)
    assert [group["weight_decay"] for group in optimizer.param_groups for p in group["params"] if p.ndim > 1] == [0] * len(decays[0])
    found = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(found) == len(list(module.parameters())) and optimizer.param_groups[0]["lr"] == max(found.values())
    return found


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "deberta-v2", "modernbert", *DECODERS])
def test_learning_rates_decay_from_the_heads_to_the_embeddings(family):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(family_config(family, pad_token_id=0)).eval()
    module = nn.ModuleDict({"student": Classifier(model, {"a": BOOKS, "b": BOOKS}), "projection": nn.Linear(2, 2)})
    found = learning_rates(module)
    encoder = {id(p) for p in backbone(model).parameters()}
    assert {found[p] for p in module.parameters() if id(p) not in encoder} == {1.0}
    assert found[model.get_input_embeddings().weight] == 0.125
    layers = next(part for part in backbone(model).modules() if isinstance(part, nn.ModuleList) and len(part) == 2)
    assert [{found[p] for p in layer.parameters()} for layer in layers] == [{0.25}, {0.5}]


def test_layer_decay_is_rejected_for_layers_that_share_weights():
    model = AutoModelForSequenceClassification.from_config(family_config("albert")).eval()
    with pytest.raises(TeachbackError, match="set LAYER_DECAY=1"):
        learning_rates(Classifier(model, {"a": BOOKS}))


def trained(folder, rate=1e-2, **options):
    """Module and trainer of a student fine-tuned on six rows."""
    rows = encode(text_rows(6), tokenizer(), 16)
    rows.columns["label"] = torch.arange(6) % 2
    folder.mkdir(exist_ok=True)
    module = PredictionDistillation(Classifier(classifier(seed=1), {"sentiment": BOOKS}), SecondStageArguments(method="finetune"), False)
    settings = OptimizerArguments(per_device_train_batch_size=4, learning_rate=rate, save_total_limit=9, **options)
    args = settings.training_arguments("cpu", "fp32")
    return module, train(module, rows, rows, args, folder, None, 0, settings=settings)


def test_layer_decay_near_zero_trains_only_pooler_and_head(tmp_path):
    start = classifier(seed=1).state_dict()
    module, _ = trained(tmp_path / "checkpoints", layer_decay=1e-9, num_train_epochs=1, weight_decay=0.0)
    moved = [name for name, value in module.student.model.state_dict().items() if not torch.allclose(value, start[name], atol=1e-7)]
    assert set(moved) == {f"{part}.{kind}" for part in ("bert.pooler.dense", "classifier") for kind in ("weight", "bias")}


def test_mean_weights_by_hand(tmp_path):
    states = [{"a": torch.tensor([1.0, float(i)]), "n": torch.tensor(i)} for i in range(3)]
    for i, state in enumerate(states):
        save_file(state, tmp_path / f"{i}.safetensors")
    mean = mean_weights(sorted(tmp_path.iterdir()))
    assert mean["a"].tolist() == [1.0, 1.0] and mean["n"].item() == 2


@pytest.mark.parametrize("better", [True, False])
def test_mean_of_the_last_epochs_is_kept_unless_an_epoch_is_better(tmp_path, monkeypatch, capsys, better):
    monkeypatch.setattr("teachback.training.alternatives.is_no_worse", lambda *values: better)
    folder = tmp_path / "checkpoints"
    options = {"num_train_epochs": 4, "weight_decay": 0.5}
    module, trainer = trained(folder, average_checkpoints=2, **options)
    files = sorted((folder / "epochs").iterdir())
    assert [path.name for path in files] == ["000000006.safetensors", "000000008.safetensors"] and trainer.averaged is better
    said = capsys.readouterr().out
    assert "mean weights of the last 2 epochs: loss" in said and ("; not kept\n" not in said) is better
    single, _ = trained(tmp_path / "single", **options)
    weights = {n: v for n, v in module.state_dict().items() if "word_embeddings" not in n}
    if better:
        expected = mean_weights(files)
        assert any(not torch.equal(value, single.state_dict()[name]) for name, value in weights.items())
    else:
        expected = single.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in weights.items())
    # A token in no text, which only weight decay changes, and which is not in the files: trained with the whole table for comparison.
    monkeypatch.setattr("teachback.training.trainer.use_only", lambda *more: None)
    whole, _ = trained(tmp_path / "whole", average_checkpoints=2, **options)
    unused, decayed = (part.student.model.get_input_embeddings().weight[-1] for part in (module, whole))
    torch.testing.assert_close(unused, decayed, rtol=1e-5, atol=0)
    assert not torch.allclose(unused, classifier(seed=1).get_input_embeddings().weight[-1], rtol=1e-3)


def test_unfinished_files_of_a_killed_process_are_not_averaged(tmp_path):
    left = tmp_path / "checkpoints/epochs/.000000002.safetensors.another-machine.abc.unfinished"
    left.mkdir(parents=True)
    (left / "000000002.safetensors").write_bytes(b"half of")
    module, _ = trained(tmp_path / "checkpoints", average_checkpoints=2, num_train_epochs=3)
    undisturbed, _ = trained(tmp_path / "other", average_checkpoints=2, num_train_epochs=3)
    assert all(torch.equal(value, undisturbed.state_dict()[name]) for name, value in module.state_dict().items())


def test_without_averaging_no_weights_of_epochs_are_saved(tmp_path):
    _, trainer = trained(tmp_path / "checkpoints", num_train_epochs=1)
    assert not (tmp_path / "checkpoints/epochs").exists() and trainer.averaged is False


@pytest.mark.parametrize("better", [True, False])
@pytest.mark.parametrize("averaged", [0, 2])
def test_initial_weights_are_restored_exactly_if_no_epoch_is_better(tmp_path, monkeypatch, capsys, better, averaged):
    """Includes the embeddings of tokens that occur in no text, which training decays."""
    monkeypatch.setattr("teachback.training.alternatives.is_no_worse", lambda *values: better)
    options = {"average_checkpoints": averaged, "num_train_epochs": 2, "weight_decay": 0.1}
    module, trainer = trained(tmp_path / "checkpoints", keep_start=True, **options)
    said = capsys.readouterr().out
    without, _ = trained(tmp_path / "without", **options)
    expected = classifier(seed=1) if better else without.student.model
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in module.student.model.state_dict().items())
    assert trainer.start_kept is better and not (better and trainer.averaged) and ("weights before training: loss" in said and "; not kept\n" in said.rpartition("before")[2]) is not better


@pytest.mark.parametrize(("rate", "kept"), [(1e-2, False), (30.0, True), (1e-12, True)])
def test_initial_weights_compete_by_the_selection_metric(tmp_path, rate, kept):
    """They are kept if training makes the student worse, and if it makes no difference."""
    _, trainer = trained(tmp_path / "checkpoints", keep_start=True, num_train_epochs=2, rate=rate)
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert trainer.start_kept is kept
    assert (trainer.evaluate()["eval_loss"] in losses) is (rate < 1)


@pytest.mark.parametrize("options", [{"keep_start": True, "trainer": ["load_best_model_at_end=false"]}, {"average_checkpoints": 1}, {"average_checkpoints": 2, "trainer": ["load_best_model_at_end=false"]}, {"average_checkpoints": -1}, {"layer_decay": 0.0}, {"layer_decay": 1.5}])
def test_invalid_optimizer_arguments_are_rejected(options):
    with pytest.raises(TeachbackError, match=next(iter(options)).upper()):
        OptimizerArguments(**options)


def test_default_values_are_left_out_of_the_fingerprint():
    plain, decayed = OptimizerArguments(), OptimizerArguments(layer_decay=0.9)
    args = plain.training_arguments("cpu", "fp32")
    assert not {"layer_decay", "average_checkpoints", "keep_start"} & plain.fingerprint(args).keys()
    assert decayed.fingerprint(args)["layer_decay"] == 0.9
