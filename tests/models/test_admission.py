"""Admission of checkpoints: settings of their configs that are overridden, and models that are refused."""

import json
from pathlib import Path

import pytest
import torch
from families import ENCODERS, family_config, save_family, word_tokenizer
from safetensors.torch import load_file, save_file
from tiny import BOOKS
from tokenizers import processors
from transformers import AutoModel, BartConfig, BertModel, FNetConfig, GPT2Config, XLNetConfig

from teachback.core.devices import torch_threads
from teachback.core.errors import TeachbackError
from teachback.models.layers import token_fields
from teachback.models.loading import load_classifier, load_encoder, load_finished_classifier, load_tokenizer
from teachback.models.positions import most_tokens, require_positions

SIZES = {"vocab_size": 60, "n_layer": 2, "n_head": 2}


def load(folder: Path):
    torch.manual_seed(0)
    return load_classifier(str(folder), BOOKS, load_tokenizer(str(folder)))


def save(folder: Path, config, tokenizer=None) -> Path:
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    (tokenizer or word_tokenizer()).save_pretrained(folder)
    return folder


def rewrite(folder: Path, **fields) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


ASKED = {
    "hidden_dropout_prob": 0.4, "attention_probs_dropout_prob": 0.3, "classifier_dropout": 0.5, "use_cache": True,
    "problem_type": "multi_label_classification", "id2label": {"0": "x", "1": "y"}, "label2id": {"x": 0, "y": 1},
    "tie_word_embeddings": True, "is_decoder": True, "output_attentions": True, "output_hidden_states": True,
    "attn_implementation": "eager", "dtype": "bfloat16",
}  # fmt: skip


def trained(folder: Path, **fields) -> dict[str, torch.Tensor]:
    """Weights of the checkpoint in ``folder`` after one training step with dropout."""
    model = load(folder)
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    ids = torch.randint(5, 20, (4, 8))
    model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, 0].sum().backward()
    optimizer.step()
    return model.state_dict()


def test_training_settings_of_a_checkpoints_config_have_no_effect(tmp_path, caplog):
    plain = save_family(tmp_path / "plain", "bert")
    weights = {name: value.bfloat16() for name, value in load_file(plain / "model.safetensors").items()}
    save_file({name: value.float() for name, value in weights.items()}, plain / "model.safetensors", {"format": "pt"})
    other = save_family(tmp_path / "other", "bert")
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    rewrite(other, **ASKED)
    first, second = trained(plain), trained(other)
    assert first.keys() == second.keys()
    assert all(value.dtype == torch.float32 and torch.equal(value, second[name]) for name, value in first.items())
    told = caplog.text
    assert "dtype=float32 (config.json: bfloat16)" in told and "hidden_dropout_prob=0.1 (config.json: 0.4)" in told
    assert str(plain) not in told


def test_half_precision_checkpoints_are_loaded_and_saved_as_float32(tmp_path):
    half = save_family(tmp_path / "half", "bert")
    weights = {name: value.half() for name, value in load_file(half / "model.safetensors").items()}
    save_file(weights, half / "model.safetensors", {"format": "pt"})
    load(half).save_pretrained(tmp_path / "saved")
    saved = load_file(tmp_path / "saved/model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float32}
    assert json.loads((tmp_path / "saved/config.json").read_text())["dtype"] == "float32"
    encoder, _ = load_encoder(str(half))
    assert encoder.dtype == torch.float32
    save_file({name: value.half() for name, value in saved.items()}, tmp_path / "saved/model.safetensors", {"format": "pt"})
    assert load_finished_classifier(tmp_path / "saved").dtype == torch.float32


@pytest.mark.parametrize("family", [*ENCODERS, "qwen2", "llama"])
def test_the_documented_families_are_loaded_in_train_mode(family, tmp_path):
    assert load(save_family(tmp_path / family, family)).training


def test_the_admission_check_reads_few_tokens_on_one_thread(tmp_path, monkeypatch):
    """The check reads at most 60 tokens and restores the number of threads."""
    read, threads = [], set()
    forward = BertModel.forward

    def counted(self, input_ids, **more):
        read.append(input_ids.numel())
        threads.add(torch.get_num_threads())
        return forward(self, input_ids=input_ids, **more)

    monkeypatch.setattr(BertModel, "forward", counted)
    save_family(tmp_path, "bert")
    with torch_threads(2):
        load(tmp_path)
        load_encoder(str(tmp_path))
        assert torch.get_num_threads() == 2
    assert threads == {1} and 0 < sum(read) <= 60


def test_modernbert_pools_the_first_token_regardless_of_its_config(tmp_path):
    mean = save(tmp_path, family_config("modernbert", classifier_pooling="mean"))
    assert load(mean).config.classifier_pooling == "cls"


REFUSED = {
    "xlnet": (XLNetConfig(d_model=32, d_inner=64, **SIZES), "'xlnet' is not supported: its logits for a text change when"),
    "fnet": (
        FNetConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, intermediate_size=64, pad_token_id=0),
        "'fnet' is not supported: its logits for a text",
    ),
    "bart": (
        BartConfig(vocab_size=60, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                   decoder_attention_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=2, eos_token_id=3),
        r"encoder-decoder \(bart\), which is not supported",
    ),
}


@pytest.mark.parametrize("family", REFUSED)
def test_unsupported_families_are_refused_in_one_line(family, tmp_path):
    config, message = REFUSED[family]
    with pytest.raises(TeachbackError, match=message + ".*BERT, RoBERTa") as caught:
        load(save(tmp_path, config))
    assert "\n" not in str(caught.value)


def test_an_encoder_whose_states_depend_on_padding_is_refused(tmp_path):
    with pytest.raises(TeachbackError, match="its states for a text change when the text is padded"):
        load_encoder(str(save(tmp_path, REFUSED["fnet"][0])))


def test_an_encoder_without_a_leading_special_token_is_refused(tmp_path):
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B [SEP]", special_tokens=[("[SEP]", 3)]
    )
    with pytest.raises(TeachbackError, match=r"its tokenizer does not put a token like \[CLS\] there"):
        load(save_family(tmp_path, "bert", tokenizer))


def test_the_maximum_length_follows_from_the_table_of_positions(tmp_path):
    decoder = save(tmp_path / "gpt2", GPT2Config(n_positions=24, n_embd=32, **SIZES), word_tokenizer(decoder=True))
    model = load(decoder)
    assert most_tokens(model) == 24
    require_positions(model, 24)
    with pytest.raises(TeachbackError, match="a text has 25 tokens, but GPT2.* reads at most 24; set MAX_LENGTH=24"):
        require_positions(model, 25)
    encoder, _ = load_encoder(str(decoder))
    assert most_tokens(encoder) == 24
    rotary = load(save_family(tmp_path / "modernbert", "modernbert"))
    assert most_tokens(rotary) is None
    require_positions(rotary, 80)  # its config states 64 tokens, but it reads more


def test_a_model_without_positions_that_fails_beyond_its_length_is_refused(tmp_path, monkeypatch):
    model = load(save_family(tmp_path, "modernbert"))
    forward = model.base_model.forward

    def bounded(input_ids, **more):
        if input_ids.shape[1] > 64:
            raise IndexError("index out of range")
        return forward(input_ids=input_ids, **more)

    monkeypatch.setattr(model.base_model, "forward", bounded)
    with pytest.raises(TeachbackError, match="reads at most 64"):
        require_positions(model, 65)


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


SPOILT = {
    "an adapter": (adapter, r"is an adapter .*merge_and_unload"),
    "quantised": (lambda folder: rewrite(folder, quantization_config={"quant_method": "gptq", "bits": 4}), "quantised weights"),
    "code of its own": (
        lambda folder: rewrite(folder, model_type="newest", auto_map={"AutoConfig": "code.Config"}),
        "needs code that comes with the checkpoint .*never run",
    ),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_adapters_quantised_weights_and_custom_code_are_refused(kind, tmp_path):
    spoil, message = SPOILT[kind]
    spoil(save_family(tmp_path, "bert"))
    with pytest.raises(TeachbackError, match=message):
        load(tmp_path)
    with pytest.raises(TeachbackError, match=message):
        load_encoder(str(tmp_path))


def test_a_token_id_beyond_the_embeddings_is_refused(tmp_path):
    save_family(tmp_path, "bert")
    path = tmp_path / "tokenizer.json"
    described = json.loads(path.read_text())
    described["model"]["vocab"]["far"] = 900
    path.write_text(json.dumps(described))
    with pytest.raises(TeachbackError, match="embeds 60 tokens, but its tokenizer has 21, with ids up to 900"):
        load(tmp_path)


def test_stored_truncation_padding_and_sides_of_a_tokenizer_are_reset(tmp_path):
    tokenizer = word_tokenizer()
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.padding_side == loaded.truncation_side == "right"
    loaded.save_pretrained(tmp_path / "saved")
    described = json.loads((tmp_path / "saved/tokenizer.json").read_text())
    assert described["truncation"] is None and described["padding"] is None


@pytest.mark.parametrize(("family", "fields"), [("bert", 3), ("distilbert", 2), ("roberta", 3), ("modernbert", 2)])
def test_token_types_are_passed_only_to_models_that_have_them(family, fields, tmp_path):
    assert len(token_fields(load(save_family(tmp_path, family)))) == fields
