import copy
import json
import math
import os
import subprocess
import sys

import pytest
import torch
from families import family_config
from safetensors.torch import load_file, save_file
from tiny import (
    ARCHITECTURES,
    BOOKS,
    CAUSE,
    DVD,
    GENRE,
    LABELS,
    SCORE,
    WORDS,
    batch,
    classifier,
    enlarge,
    mixed_batch,
    mixed_chosen,
    tokenizer,
)
from transformers import AutoModelForSequenceClassification

from teachback.core.errors import TeachbackError
from teachback.data.encoding import Collator, encode
from teachback.data.schema import Row, label_options
from teachback.methods.losses import hard_label_loss, is_regression, soft_loss
from teachback.methods.student import kept_layers, layers_choice
from teachback.models.heads import (
    ABSENT_CLASS,
    Classifier,
    TransferableKnowledge,
    mean_over_tokens,
    per_row,
    per_sequence,
)
from teachback.models.layers import (
    backbone,
    cut_layers,
    final_layer,
    layer_list,
    spread_layers,
    use_training_attention,
)
from teachback.models.loading import (
    load_classifier,
    load_encoder,
    load_finished_classifier,
    load_tokenizer,
)
from teachback.models.location import locate

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


@pytest.fixture
def folder(tmp_path):
    """A checkpoint of a two-layer classifier, as another project would publish it."""
    classifier().save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


# Where models come from


def test_a_model_that_stage_1_fetched_is_found_by_its_hub_name(tmp_path):
    fetched = tmp_path / "models" / "huawei-noah--TinyBERT"
    fetched.mkdir(parents=True)
    assert locate("huawei-noah/TinyBERT", tmp_path) == str(fetched)
    assert locate("bert-base-uncased", tmp_path) == "bert-base-uncased"
    assert locate("scratch:tiny", tmp_path) == "scratch:tiny"


def test_an_unknown_scratch_size_is_refused_naming_the_known_ones():
    with pytest.raises(TeachbackError, match="scratch:tiny, scratch:mini"):
        locate("scratch:huge", "data")


def test_a_missing_model_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(TeachbackError, match="no-such/model.*MODELS=1"):
        load_tokenizer("no-such/model", tmp_path)
    with pytest.raises(TeachbackError, match="no-such/model.*MODELS=1"):
        load_classifier("no-such/model", BOOKS, tokenizer(), tmp_path)


@pytest.mark.parametrize(("name", "layers", "width"), [("scratch:tiny", 2, 128), ("scratch:mini", 4, 256)])
def test_scratch_models_have_the_named_size_and_weights_of_the_seed(name, layers, width):
    texts = [" ".join(WORDS)] * 2
    (first, its_tokenizer), (second, _), (other, _) = (load_encoder(name, texts, seed) for seed in (3, 3, 4))
    assert first.config.num_hidden_layers == layers and first.config.hidden_size == width
    assert first.config.vocab_size == len(its_tokenizer) and not first.training
    assert_same(first.state_dict(), second.state_dict())
    assert not torch.equal(first.encoder.layer[0].output.dense.weight, other.encoder.layer[0].output.dense.weight)


def test_loading_an_encoder_keeps_the_callers_random_state():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load_encoder("scratch:tiny", [" ".join(WORDS)] * 2, seed=5)
    assert torch.equal(torch.rand(3), expected)


def test_classifiers_from_scratch_follow_the_global_seed():
    def build(seed):
        torch.manual_seed(seed)
        return load_classifier("scratch:tiny", BOOKS, tokenizer()).state_dict()

    assert_same(build(3), build(3))
    assert not torch.equal(build(3)["classifier.weight"], build(4)["classifier.weight"])


LEARN = """
import random
from teachback.models.loading import load_tokenizer
random.seed(0)
words = ["".join(random.choices("abcdefghij", k=random.randint(5, 10))) for _ in range(40)]  # every merge is a tie
learnt = str(sorted(load_tokenizer("scratch:tiny", texts=[" ".join(words)] * 3).get_vocab().items()))
"""


def test_a_learnt_vocabulary_is_the_same_in_another_process():
    here = {}
    exec(LEARN, here)
    again = {}
    exec(LEARN, again)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    elsewhere = subprocess.run(
        [sys.executable, "-c", LEARN + "print(learnt)"], env=environment, capture_output=True, text=True, check=True
    )
    assert here["learnt"] == again["learnt"] == elsewhere.stdout.strip() and "##" in here["learnt"]


def test_a_learnt_vocabulary_holds_words_letters_and_special_tokens():
    learnt = load_tokenizer("scratch:tiny", texts=["Good bücher, good", "plot"])
    assert learnt.tokenize("GOOD") == ["good"] and learnt.tokenize("bucher") != ["[UNK]"]
    assert learnt.unk_token_id not in learnt("plot good")["input_ids"]
    assert learnt.tokenize("glot")[0] == "g"  # an unknown word is split into known letters
    assert learnt.pad_token_id == 0 and learnt.is_fast
    assert sorted(learnt.get_vocab().values()) == list(range(len(learnt)))


def test_overlong_words_do_not_change_the_learnt_vocabulary():
    letters = "".join(chr(ord("a") + (i * i + i // 7) % 26) for i in range(300_000))
    texts = ["a good day, well-spent", "a good plot", "abcdefghijklmnopqrstuvwxyz"]
    learnt = load_tokenizer("scratch:tiny", texts=[*texts, letters]).get_vocab()
    assert learnt == load_tokenizer("scratch:tiny", texts=texts).get_vocab()


def test_learning_a_vocabulary_without_texts_is_refused():
    with pytest.raises(TeachbackError, match="train texts"):
        load_tokenizer("scratch:tiny", texts=[])


def test_an_encoder_is_loaded_in_eval_mode_with_the_checkpoints_weights(folder):
    encoder, its_tokenizer = load_encoder(str(folder))
    assert not encoder.training and its_tokenizer.get_vocab() == tokenizer().get_vocab()
    saved = load_file(folder / "model.safetensors")
    assert all(
        torch.equal(value, saved[f"bert.{name}"])
        for name, value in encoder.state_dict().items()
        if "pooler" not in name
    )


# Loading classifiers


def test_a_classifier_is_loaded_in_train_mode_with_the_domains_labels(folder):
    model = load_classifier(str(folder), GENRE, tokenizer())
    assert model.training
    assert model.config.id2label == dict(enumerate(GENRE.labels)) and model.config.label2id["verse"] == 2
    assert final_layer(model).out_features == 3
    assert torch.equal(
        model.bert.embeddings.word_embeddings.weight,
        load_file(folder / "model.safetensors")["bert.embeddings.word_embeddings.weight"],
    )


def test_a_checkpoint_without_pooler_and_head_gets_new_ones(folder):
    change_weights(folder, lambda w: [w.pop(name) for name in list(w) if "pooler" in name or "classifier" in name])
    weights, saved = load_classifier(str(folder), BOOKS, tokenizer()).state_dict(), load_file(folder / "model.safetensors")
    new = weights.keys() - saved.keys()
    assert new == {f"{part}.{kind}" for part in ("bert.pooler.dense", "classifier") for kind in ("weight", "bias")}
    assert all(weights[name].isfinite().all() for name in new) and weights["classifier.weight"].std() > 0
    assert all(torch.equal(weights[name], value) for name, value in saved.items())


def test_a_checkpoint_that_lacks_encoder_weights_is_refused(folder):
    change_weights(folder, lambda w: w.pop("bert.encoder.layer.1.output.dense.weight"))
    with pytest.raises(TeachbackError, match=r"lacks 1 weights of its encoder.*layer\.1\.output\.dense\.weight"):
        load_classifier(str(folder), BOOKS, tokenizer())


def test_a_checkpoint_with_encoder_weights_of_another_shape_is_refused(folder):
    name = "bert.encoder.layer.0.output.dense.weight"
    change_weights(folder, lambda w: w.update({name: w[name][:, :5].contiguous()}))
    with pytest.raises(TeachbackError, match="layer.0.output.dense.weight"):
        load_classifier(str(folder), BOOKS, tokenizer())


def test_pickles_are_never_read(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    for load in (
        lambda: load_classifier(str(folder), BOOKS, tokenizer()),
        lambda: load_encoder(str(folder)),
        lambda: load_finished_classifier(folder),
    ):
        with pytest.raises(TeachbackError, match="only pickled weights .*MODELS=1 TEACHER_MODEL=.*bash 1_get_data.sh"):
            load()


def test_a_tokenizer_with_more_tokens_than_the_model_embeds_is_refused(folder):
    larger = tokenizer()
    larger.add_tokens([f"new{i}" for i in range(100)])
    with pytest.raises(TeachbackError, match="embeds 60 tokens, but its tokenizer has"):
        load_classifier(str(folder), BOOKS, larger)


def test_a_finished_classifier_is_loaded_bit_for_bit_in_eval_mode(folder):
    model = load_finished_classifier(folder)
    assert not model.training
    assert_same(model.state_dict(), classifier().state_dict())


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda w: w.pop("classifier.weight"), "classifier.weight"),
        (lambda w: w.pop("bert.encoder.layer.0.attention.self.query.bias"), "query.bias"),
        (lambda w: w.update({"left.over": torch.zeros(1)}), "left.over"),
    ],
)
def test_a_finished_classifier_with_missing_or_unexpected_weights_is_refused(folder, change, name):
    change_weights(folder, change)
    with pytest.raises(TeachbackError, match=name):
        load_finished_classifier(folder)


def test_label_options_name_the_labels_and_regression_has_one_output():
    assert label_options(BOOKS) == {
        "num_labels": 2,
        "id2label": {0: "negative", 1: "positive"},
        "label2id": {"negative": 0, "positive": 1},
        "problem_type": None,
    }
    assert label_options(SCORE)["num_labels"] == 1 and label_options(SCORE)["problem_type"] == "regression"
    assert label_options(CAUSE)["id2label"] == {0: "plausible"} and label_options(CAUSE)["problem_type"] is None


@pytest.mark.parametrize("before", [SCORE, CAUSE, GENRE])
@pytest.mark.parametrize("after", [SCORE, CAUSE, GENRE])
def test_the_config_of_a_model_with_a_new_head_describes_only_that_head(tmp_path, before, after):
    source = classifier(domain=before)
    source.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    for model in (cut_layers(source, [0], after), load_classifier(str(tmp_path), after, tokenizer())):
        described = model.config.to_dict()
        for name in ("id2label", "label2id"):
            assert described[name] == label_options(after)[name]
        assert described["problem_type"] == label_options(after)["problem_type"]


# Parts of a classifier


@every_architecture
def test_pooled_states_are_the_input_of_the_final_layer(architecture):
    model, rows = classifier(architecture, domain=GENRE), batch()
    outputs = Classifier(model, {"topic": GENRE})(rows, hidden_states=True)
    assert outputs.pooled.shape == (3, 32) and outputs.logits.shape == (3, 3)
    torch.testing.assert_close(final_layer(model)(outputs.pooled), outputs.logits)
    direct = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"], output_hidden_states=True)
    assert torch.equal(direct.logits, outputs.logits)
    assert len(outputs.hidden_states) == 3
    assert all(torch.equal(a, b) for a, b in zip(outputs.hidden_states, direct.hidden_states))


@every_architecture
def test_the_layers_of_every_architecture_are_found(architecture):
    model = classifier(architecture, layers=3)
    assert len(layer_list(model)) == 3
    assert final_layer(model).out_features == 2 and not any(
        final_layer(model) is module for module in backbone(model).modules()
    )


def test_hidden_states_are_kept_only_on_demand():
    assert Classifier(classifier(), {"sentiment": BOOKS})(batch()).hidden_states == ()


def test_rows_get_logits_of_their_head_and_absent_classes_probability_0():
    model = classifier()
    both = Classifier(model, {"sentiment": BOOKS, "topic": GENRE}).eval()
    head = torch.tensor([0, 1, 0])
    outputs = both(batch(), head)
    assert both.classes == 3 and outputs.logits.shape == (3, 3)
    torch.testing.assert_close(outputs.logits[[0, 2], :2], final_layer(model)(outputs.pooled)[[0, 2]])
    torch.testing.assert_close(outputs.logits[1], both.other_heads[0](outputs.pooled)[1])
    assert (outputs.logits[[0, 2], 2] == ABSENT_CLASS).all()
    assert (outputs.logits.softmax(-1)[[0, 2], 2] == 0).all()


def test_losses_with_absent_classes_are_finite_and_train_only_their_head():
    model = classifier()
    both = Classifier(model, {"sentiment": BOOKS, "topic": GENRE})
    logits = both(batch((5, 4)), torch.tensor([0, 0])).logits
    (
        hard_label_loss(logits, torch.tensor([1, 0])) + soft_loss(logits, logits.detach().roll(1, 0), 0.5, "kl")
    ).sum().backward()
    assert all(p.grad.isfinite().all() for p in both.parameters() if p.grad is not None)
    assert final_layer(model).weight.grad.abs().max() > 0
    assert (both.other_heads[0].weight.grad == 0).all()


# Multiple-choice questions, one sequence per choice

HEADS = {"sentiment": BOOKS, "cause": CAUSE, "score": SCORE, "topic": GENRE}


def mixed_classifier(**options):
    model = Classifier(classifier(**options), HEADS).eval()
    torch.manual_seed(5)
    enlarge(model.other_heads)
    return model


def test_the_logits_of_a_question_are_the_outputs_for_its_choices():
    model, rows = classifier(domain=CAUSE), mixed_batch()
    alone = Classifier(model, {"cause": CAUSE})
    assert alone.classes == 2 and final_layer(model).out_features == 1
    rows = mixed_chosen(rows, [1])
    outputs = alone(rows)
    expected = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).logits
    assert torch.equal(outputs.logits, expected.view(1, 2)) and outputs.pooled.shape == (2, 32)


def test_swapped_choices_have_swapped_logits():
    model = Classifier(classifier(domain=CAUSE), {"cause": CAUSE})
    encoded = encode(
        [Row("1", "good", "bad plot ||| quite", "", "cause"), Row("2", "good", "quite ||| bad plot", "", "cause")],
        tokenizer(), 16, {"cause": CAUSE},
    )  # fmt: skip
    logits = model(Collator(0)([encoded[0], encoded[1]])).logits
    torch.testing.assert_close(logits[0], logits[1].flip(0))
    assert (logits[0, 0] - logits[0, 1]).abs() > 1e-3


def test_heads_of_every_kind_can_be_mixed_in_a_batch():
    model, rows, head = mixed_classifier(), mixed_batch(), torch.tensor([3, 1, 2, 1])
    outputs = model(rows, head, hidden_states=True)
    assert outputs.logits.shape == (4, 3) and outputs.pooled.shape == (6, 32)
    assert outputs.hidden_states[-1].shape == (6, 9, 32)
    cause, score, topic = model.other_heads
    pooled = outputs.pooled
    expected = torch.full((4, 3), ABSENT_CLASS)
    expected[0] = topic(pooled)[0]
    expected[1, :2], expected[3, :2] = cause(pooled)[1:3, 0], cause(pooled)[4:6, 0]
    expected[2, 0] = score(pooled)[3, 0]
    torch.testing.assert_close(outputs.logits, expected)
    assert is_regression(outputs.logits).tolist() == [False, False, True, False]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_in_a_mixed_batch_do_not_depend_on_other_rows_or_padding(architecture):
    model, rows, head = mixed_classifier(architecture=architecture), mixed_batch(), torch.tensor([3, 1, 2, 1])
    logits = model(rows, head).logits
    torch.testing.assert_close(model(mixed_batch(width=40), head).logits, logits, rtol=1e-4, atol=1e-4)
    for index in range(4):
        alone = model(mixed_chosen(rows, [index]), head[[index]]).logits
        torch.testing.assert_close(alone[0], logits[index], rtol=1e-4, atol=1e-4)


def test_head_logits_are_computed_from_pooled_states_alone():
    for model, rows, head in (
        (mixed_classifier(), mixed_batch(), torch.tensor([0, 1, 2, 1])),
        (Classifier(classifier(domain=CAUSE), {"cause": CAUSE}), mixed_chosen(mixed_batch(), [1]), None),
        (Classifier(classifier(), {"sentiment": BOOKS}), batch(), None),
    ):
        outputs = model(rows, head)
        found = model.head_logits(outputs.pooled, head, rows.get("sequences"))
        torch.testing.assert_close(found, outputs.logits)
        assert model._pooled is None


def test_gradients_of_a_mixed_batch_equal_those_of_its_single_rows():
    model, rows = mixed_classifier(), mixed_batch()
    head, labels = torch.tensor([3, 1, 2, 1]), rows["label"]

    def gradients(picked):
        model.zero_grad()
        for logits, label in picked:
            hard_label_loss(logits, label).sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    together = gradients([(model(rows, head).logits, labels)])
    alone = gradients([(model(mixed_chosen(rows, [i]), head[[i]]).logits, labels[[i]]) for i in range(4)])
    largest = max(one.abs().max().item() for one in alone)
    for one, other in zip(together, alone):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * largest)
    assert (final_layer(model.model).weight.grad == 0).all()  # no row belongs to the first head
    assert all(layer.weight.grad.abs().max() > 0 for layer in model.other_heads)


def test_sequence_values_are_averaged_per_row_and_row_values_repeated():
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 8.0], [0.0, 1.0], [6.0, 0.0], [9.0, 2.0]], requires_grad=True)
    sequences = torch.tensor([1, 2, 3])
    mean = per_row(values, sequences)
    torch.testing.assert_close(mean, torch.tensor([[1.0, 2.0], [4.0, 6.0], [5.0, 1.0]]))
    (mean * torch.tensor([[1.0], [0.0], [3.0]])).sum().backward()
    assert values.grad[:, 0].tolist() == [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    torch.testing.assert_close(per_row(values[:, 0].detach(), sequences), mean[:, 0].detach())
    assert per_sequence(torch.tensor([7, 8, 9]), sequences).tolist() == [7, 8, 8, 9, 9, 9]
    assert per_sequence(torch.tensor([7, 8, 9]), sequences, 6).tolist() == [7, 8, 8, 9, 9, 9]
    assert per_row(values, None) is values and per_sequence(values, None) is values


def test_nan_stays_in_its_row_when_sequences_are_averaged():
    values = torch.tensor([math.nan, 1.0, 3.0, 5.0])
    assert per_row(values, torch.tensor([1, 2, 1])).tolist()[1:] == [2.0, 5.0]


def test_a_cut_multiple_choice_student_gives_equal_logits_when_reloaded(tmp_path):
    teacher = mixed_classifier(layers=4)
    student = cut_layers(teacher.model, [1, 3], CAUSE, teacher.other_heads[0])
    assert torch.equal(final_layer(student).weight, teacher.other_heads[0].weight)
    student.save_pretrained(tmp_path)
    rows = mixed_chosen(mixed_batch(), [1])
    before = Classifier(student.eval(), {"cause": CAUSE})(rows).logits
    loaded = load_finished_classifier(tmp_path)
    assert_same(loaded.state_dict(), student.state_dict())
    torch.testing.assert_close(Classifier(loaded, {"cause": CAUSE})(rows).logits, before)
    assert loaded.config.id2label == {0: "plausible"}


def test_mean_over_tokens_ignores_padding():
    states = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [90.0, 90.0]], [[5.0, 7.0], [90.0, 90.0], [90.0, 90.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    expected = torch.tensor([[2.0, 4.0], [5.0, 7.0]])
    torch.testing.assert_close(mean_over_tokens(states, mask), expected)
    wider = torch.nn.functional.pad(states, (0, 0, 0, 13), value=50.0)
    torch.testing.assert_close(mean_over_tokens(wider, torch.nn.functional.pad(mask, (0, 13))), expected)


def test_transferable_knowledge_equals_hand_computed_values():
    module = TransferableKnowledge(2, domains=2)
    module.load_state_dict(
        {
            "domain_embedding.weight": torch.tensor([[0.0, 0.0], [1.0, -1.0]]),
            "dense.weight": torch.tensor([[1.0, 2.0], [0.0, 1.0]]),
            "dense.bias": torch.tensor([0.5, 0.0]),
        }
    )
    states, mask = torch.tensor([[[1.0, 2.0], [3.0, 6.0]]] * 2), torch.ones(2, 2)  # mean (2, 4)
    found = module(states, {"attention_mask": mask, "domain": torch.tensor([0, 1])})
    torch.testing.assert_close(found, torch.tensor([[2 + 8 + 0.5, 4.0], [3 + 6 + 0.5, 3.0]]))


# Cutting layers


@every_architecture
def test_a_cut_copies_the_chosen_layers_and_all_weights_outside_layers(architecture):
    model = classifier(architecture, layers=4)
    student = cut_layers(model, [0, 2, 3], BOOKS, final_layer(model))
    assert student.training and student.config.num_hidden_layers == 3
    for target, source in zip(layer_list(student), (0, 2, 3), strict=True):
        assert_same(target.state_dict(), layer_list(model)[source].state_dict())
    assert_same(backbone(student).embeddings.state_dict(), backbone(model).embeddings.state_dict())
    assert_same(final_layer(student).state_dict(), final_layer(model).state_dict())
    in_layers = {id(p) for layer in layer_list(student) for p in layer.parameters()}
    source = model.state_dict()
    for name, value in student.named_parameters():
        assert id(value) in in_layers or torch.equal(value, source[name]), name


@pytest.mark.parametrize("keep", [[2, 3], [1, 0]])
def test_layers_of_modernbert_compute_the_same_at_another_depth(keep):
    """Only ModernBERT's first layer has no norm before attention, as it reads the normalised embeddings."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(family_config("modernbert", layers=4, pad_token_id=0)).eval()
    for weight in (weight for name, weight in model.named_parameters() if "norm" in name):
        torch.nn.init.uniform_(weight, 0.5, 2.0)
    student = cut_layers(model, keep, BOOKS).eval()
    states = torch.nn.functional.layer_norm(torch.randn(2, 5, 32), (32,))
    for target, source in zip(layer_list(student), keep, strict=True):
        ours, theirs = (layer.attn.Wqkv(layer.attn_norm(states)) for layer in (target, layer_list(model)[source]))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        assert_same(target.mlp.state_dict(), layer_list(model)[source].mlp.state_dict())


def test_a_cut_shares_no_memory_and_leaves_the_sources_config_unchanged():
    model = classifier(layers=4)
    before, config = copy.deepcopy(model.state_dict()), model.config.to_dict()
    student = cut_layers(model, [0, 1], GENRE)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    assert_same(model.state_dict(), before)
    assert model.config.to_dict() == config
    assert student.config is not model.config


def test_a_cut_of_all_layers_gives_the_logits_of_its_source():
    model = classifier(layers=3)
    whole = cut_layers(model, [0, 1, 2], BOOKS, final_layer(model)).eval()
    rows = batch()
    inputs = {name: rows[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(whole(**inputs).logits, model(**inputs).logits)
    assert whole.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "electra"])
def test_eager_attention_on_the_cpu_gives_equal_logits_and_gradients(architecture):
    model, rows = classifier(architecture), batch()
    found = []
    for device in (None, torch.device("cuda"), torch.device("cpu")):
        if device:
            use_training_attention(torch.nn.ModuleList([model]), device)
        model.zero_grad()
        logits = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).logits
        logits.square().sum().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append((model.config._attn_implementation, logits.detach(), gradients))
    assert [name for name, *_ in found] == ["sdpa", "sdpa", "eager"]
    torch.testing.assert_close(found[0][1], found[2][1], rtol=1e-4, atol=1e-5)
    for one, other in zip(found[0][2], found[2][2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(one.abs().max()) + 1e-6)


def test_a_cut_without_a_given_head_gets_a_new_one_for_the_domain():
    model = classifier(layers=4)
    student = cut_layers(model, [3], GENRE)
    assert final_layer(student).out_features == 3 and student.config.id2label[1] == "fiction"
    again = cut_layers(model, [3], BOOKS)
    assert not torch.equal(final_layer(again).weight, final_layer(model).weight)


def test_a_cut_student_is_a_plain_checkpoint(tmp_path):
    student = cut_layers(classifier(layers=4), [1, 3], DVD)
    student.save_pretrained(tmp_path)
    assert_same(AutoModelForSequenceClassification.from_pretrained(tmp_path).state_dict(), student.state_dict())
    described = json.loads((tmp_path / "config.json").read_text())
    assert described["num_hidden_layers"] == 2 and list(described["label2id"]) == list(LABELS)


@pytest.mark.parametrize(
    ("choice", "depth", "kept"),
    [
        ("3", 6, [0, 1, 2]),
        ("spread:3", 6, [1, 3, 5]),
        ("spread:4", 12, [2, 5, 8, 11]),
        ("spread:2", 5, [1, 4]),
        ("1,3,6", 6, [0, 2, 5]),
        ("", 3, [0, 1, 2]),
        (-1, 3, [0, 1, 2]),
        (2, 3, [0, 1]),
        (layers_choice([1, 3, 6]), 6, [0, 2, 5]),
        (layers_choice((3,)), 6, [2]),
        (layers_choice(-1), 3, [0, 1, 2]),
        (layers_choice("spread:2"), 4, [1, 3]),
        (layers_choice(None), 3, [0, 1, 2]),
    ],
)
def test_layers_are_chosen_by_count_evenly_or_by_list(choice, depth, kept):
    assert kept_layers(choice, depth) == kept


@pytest.mark.parametrize("choice", ["three", "spread:", "1,,2", "first:3"])
def test_malformed_choices_of_layers_are_refused(choice):
    with pytest.raises(TeachbackError, match="STUDENT_LAYERS"):
        kept_layers(choice, 6)


@pytest.mark.parametrize("choice", ["0", "7", "spread:0", "spread:7", "0,1", "2,7", "-1"])
def test_choices_of_layers_that_the_model_lacks_are_refused(choice):
    with pytest.raises(TeachbackError, match="STUDENT_LAYERS.*the model has 6"):
        kept_layers(choice, 6)


def test_spread_layers_are_distinct_ascending_and_end_with_the_last():
    for depth in range(1, 13):
        for count in range(1, depth + 1):
            spread = spread_layers(count, depth)
            assert spread[-1] == depth - 1 and len(set(spread)) == count and spread == sorted(spread) and spread[0] >= 0
