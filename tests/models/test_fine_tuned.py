"""External fine-tuned classifiers: their labels, their heads, and checkpoints that are refused."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import BOOKS, CAUSE, GENRE, SCORE, batch, classifier, tokenizer

from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain
from teachback.models.fine_tuned import label_order, load_fine_tuned
from teachback.models.loading import load_encoder
from teachback.models.location import locate


def write(folder, domain=BOOKS, architecture="bert", names=(), **config):
    """Save a checkpoint whose config has the label names ``names`` and the given other fields; return its folder."""
    classifier(architecture, domain=domain).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    path = folder / "config.json"
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}} if names else {}
    path.write_text(json.dumps(json.loads(path.read_text()) | labels | config))
    return str(folder)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "electra"])
def test_outputs_are_reordered_to_the_labels_of_the_domain(tmp_path, architecture):
    genre = replace(GENRE, labels=("verse", "fact", "fiction"))
    folder = write(tmp_path, GENRE, architecture)
    order = label_order(folder, genre)
    model, _ = load_fine_tuned(folder, genre, order)
    assert order == [2, 0, 1] and not model.training and model.config.id2label == {0: "verse", 1: "fact", 2: "fiction"}
    inputs = {name: value for name, value in batch().items() if name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        theirs = classifier(architecture, domain=GENRE)(**inputs).logits
        assert torch.equal(model(**inputs).logits, theirs[:, order])


@pytest.mark.parametrize(
    ("names", "labels", "order"),
    [
        (("NEGATIVE", "Positive"), "", [0, 1]),
        (("positive", "negative"), "", [1, 0]),
        (("LABEL_0", "LABEL_1"), "LABEL_0=positive, LABEL_1=negative", [1, 0]),
        (("negative", "good"), "good=positive", [0, 1]),
        (("positive", "negative"), "positive=negative,negative=positive", [0, 1]),
    ],
)
def test_labels_are_matched_by_name_or_by_the_map(tmp_path, names, labels, order):
    assert label_order(write(tmp_path, names=names), BOOKS, labels) == order


def test_labels_that_differ_only_in_case_are_distinguished(tmp_path):
    domain = Domain("books", "sentiment", ("No", "no"))
    assert label_order(write(tmp_path, domain, names=("no", "No")), domain) == [1, 0]


@pytest.mark.parametrize(
    ("names", "labels", "message"),
    [
        (("LABEL_0", "LABEL_1"), "", "TEACHER_LABELS=LABEL_0=negative,LABEL_1=positive .if that is their order"),
        (("LABEL_0", "LABEL_1"), "LABEL_0=positive", "map each of them once"),
        (("LABEL_0", "LABEL_1"), "LABEL_0=positive,LABEL_1=positive", "map each of them once"),
        (("LABEL_0", "LABEL_1"), "LABEL_2=positive", "'LABEL_2=positive' is not a pair .* labels of the checkpoint: LABEL_0, LABEL_1; of books: negative, positive"),
        (("LABEL_0", "LABEL_1"), "LABEL_0=good", "'LABEL_0=good' is not a pair"),
        (("LABEL_0", "LABEL_1"), "positive", "'positive' is not a pair"),
        (("a", "b", "c"), "", r"has 3 classes \(a, b, c\), but books has 2"),
    ],
)  # fmt: skip
def test_labels_that_do_not_match_the_domain_are_refused(tmp_path, names, labels, message):
    with pytest.raises(TeachbackError, match=message):
        label_order(write(tmp_path, names=names), BOOKS, labels)


def test_regression_and_multiple_choice_need_one_output(tmp_path):
    assert label_order(write(tmp_path / "number", SCORE), SCORE) == label_order(str(tmp_path / "number"), CAUSE) == [0]
    with pytest.raises(TeachbackError, match="has 2 classes, but score needs a number"):
        label_order(write(tmp_path / "classes"), SCORE)
    with pytest.raises(TeachbackError, match="and no labels"):
        label_order(str(tmp_path / "number"), CAUSE, "a=b")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["BertForTokenClassification"]}, "BertForTokenClassification, which labels single tokens.*TEACHER_MODEL"),
        ({"architectures": ["LlamaForCausalLM"]}, "generates text, but .*SOFT_LABELS"),
        ({"architectures": ["BertForMaskedLM"]}, "fills in masked tokens"),
        ({"architectures": ["BertModel"]}, "BertModel, which has no head"),
        ({"problem_type": "multi_label_classification"}, "is a multi-label classifier"),
        ({"classifier_pooling": "mean"}, "classifies the mean of its tokens"),
        ({"quantization_config": {"bits": 4}}, "quantised weights"),
    ],
)  # fmt: skip
def test_checkpoints_that_are_not_text_classifiers_are_refused(tmp_path, config, message):
    with pytest.raises(TeachbackError, match=message):
        label_order(write(tmp_path, **config), BOOKS)


def test_adapters_pickles_setfit_and_random_weights_are_refused(tmp_path):
    folder = write(tmp_path)
    with pytest.raises(TeachbackError, match="has random weights"):
        label_order("scratch:tiny", BOOKS)
    (tmp_path / "model_head.pkl").write_bytes(b"")
    with pytest.raises(TeachbackError, match=r"is a SetFit model, .*model_head.pkl.*TEACHER_MODEL, or .* SOFT_LABELS"):
        label_order(folder, BOOKS)
    (tmp_path / "model_head.pkl").unlink()
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(TeachbackError, match=r"only pickled weights .*MODELS=1 TEACHER_MODEL=.* bash 1_get_data.sh"):
        label_order(folder, BOOKS)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(TeachbackError, match="is an adapter .*merge_and_unload"):
        label_order(folder, BOOKS)


def test_a_checkpoint_without_weights_of_its_head_is_refused(tmp_path):
    folder = write(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({n: v for n, v in weights.items() if "classifier" not in n}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(TeachbackError, match=r"lacks 2 weights of its head, such as 'classifier.bias'.*TEACHER_MODEL"):
        load_fine_tuned(folder, BOOKS, [0, 1])


def test_the_encoder_in_a_sentence_transformers_folder_is_found(tmp_path):
    inner = tmp_path / "0_Transformer"
    classifier().bert.save_pretrained(inner)
    tokenizer().save_pretrained(inner)
    (tmp_path / "modules.json").write_text(json.dumps([{"path": "0_Transformer"}, {"path": "1_Pooling"}]))
    assert locate(str(tmp_path), "data") == str(inner)
    model, _ = load_encoder(str(tmp_path))
    assert type(model).__name__ == "BertModel"
    with pytest.raises(TeachbackError, match="BertModel, which has no head"):
        label_order(str(tmp_path), BOOKS)
