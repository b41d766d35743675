"""Building teachers and students: where weights come from, heads, projections and added modules."""

import copy
import logging
import re
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import BertWordPieceTokenizer
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertTokenizer,
    PreTrainedModel,
)
from transformers.utils.logging import disable_progress_bar

from teachback.errors import TeachbackError
from teachback.losses import ABSENT_CLASS
from teachback.suites.schema import Domain

SCRATCH_SIZES = {"scratch:tiny": (2, 128), "scratch:mini": (4, 256)}  # layers, width
SCRATCH_VOCABULARY = 4000
LONGEST_WORD = 100  # characters; WordPiece takes a longer one for an unknown word
LONG = re.compile(rf"\S{{{LONGEST_WORD + 1}}}")


def locate(name: str, data_dir: str | Path) -> str:
    """A model's folder under data/models where stage 1 fetched it, else the name itself (a folder or a hub name).

    Raises:
        TeachbackError: an unknown size from scratch, or a path, which no hub name can be, of a folder that is not there.
    """
    if name.startswith("scratch:"):
        if name not in SCRATCH_SIZES:
            raise TeachbackError(f"model {name!r} is unknown; sizes from scratch are: {', '.join(SCRATCH_SIZES)}")
        return name
    fetched = Path(data_dir) / "models" / name.replace("/", "--")
    if fetched.is_dir():
        return str(fetched)
    if (name.startswith(("/", ".", "~")) or name.count("/") > 1) and not Path(name).is_dir():
        raise TeachbackError(f"model {name!r}: there is no such folder (a relative path counts from {Path.cwd()})")
    return name


@contextmanager
def _explained(name: str):
    """Turn what a loader raises into a message that says what to do."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)  # new heads are announced as "missing" weights; ours are checked in _check_loaded
    disable_progress_bar()
    try:
        yield
    except (TeachbackError, MemoryError):
        raise
    except Exception as error:  # a damaged file may raise anything; the Rust libraries raise Exception itself
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TeachbackError(
            f"cannot load model {name!r}: {reason} "
            "Give a folder with config.json, model.safetensors and tokenizer files, a hub name that can be reached, "
            "or fetch it with MODELS=1 bash 1_get_data.sh on a machine with network."
        ) from error
    finally:
        logger.setLevel(level)


def load_config(folder: str | Path):
    """The config of a model's folder; one that brings code of its own is refused."""
    with _explained(str(folder)):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def load_tokenizer(name: str, data_dir: str | Path = "data", texts: list[str] | None = None):
    """The fast tokenizer of a model; ``scratch:`` learns a WordPiece vocabulary from ``texts``."""
    place = locate(name, data_dir)
    if place in SCRATCH_SIZES:
        return _learnt_tokenizer(texts or [])
    with _explained(name):
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):  # made of a config alone, it knows no word
        raise TeachbackError(f"model {name!r} comes without a vocabulary; put its tokenizer.json beside its config.json")
    if tokenizer.pad_token is None:  # of many decoders; the attention mask tells padding from the end of a text
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise TeachbackError(f"the tokenizer of {name!r} has no padding token; give it one in tokenizer_config.json")
    if not tokenizer.is_fast:
        raise TeachbackError(
            f"model {name!r} has no fast tokenizer (tokenizer.json); convert it with the tokenizers library"
        )
    for how_it_was_found in ("is_local", "local_files_only"):  # else what is saved would depend on HF_HUB_OFFLINE
        tokenizer.init_kwargs.pop(how_it_was_found, None)
    return tokenizer


def _learnt_tokenizer(texts: list[str]):
    if not texts:
        raise TeachbackError(
            "a model from scratch learns its vocabulary from the suite's train texts, and there are none"
        )
    learner = BertWordPieceTokenizer(lowercase=True)
    words = {word for text in texts for word, _ in learner.pre_tokenizer.pre_tokenize_str(learner.normalize(text))}
    # The learner numbers continuing characters in the order of a hash table and merges equally frequent pairs by
    # number. So that every run learns the same pieces, they are numbered before it starts, and none is left out.
    continuing = sorted({f"##{character}" for word in words for character in word[1:]})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    learnable = [_without_long_words(text, learner) for text in texts]  # before it starts, for then it is locked
    learner.train_from_iterator(
        learnable, vocab_size=SCRATCH_VOCABULARY, min_frequency=2, special_tokens=special + continuing,
        limit_alphabet=len({character for word in words for character in word}), show_progress=False,
    )  # fmt: skip
    pieces = sorted(set(learner.get_vocab()) - set(special))
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(special + pieces)}, model_max_length=512)


def _without_long_words(text: str, learner: BertWordPieceTokenizer) -> str:
    """A text without the words that WordPiece never divides, as a megabyte of letters would be learnt from for minutes."""
    if not LONG.search(text):
        return text
    words = [word for word, _ in learner.pre_tokenizer.pre_tokenize_str(learner.normalize(text))]
    return " ".join(word for word in words if len(word) <= LONGEST_WORD)


def load_encoder(name: str, texts: list[str] | None = None, seed: int = 0, data_dir: str | Path = "data"):
    """(encoder in eval mode, fast tokenizer) without a head, as published: not fine-tuned."""
    tokenizer = load_tokenizer(name, data_dir, texts)
    place = locate(name, data_dir)
    if place in SCRATCH_SIZES:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = AutoModel.from_config(_scratch_config(place, tokenizer))
    else:
        with _explained(name):
            model, report = AutoModel.from_pretrained(
                place, use_safetensors=True, trust_remote_code=False, ignore_mismatched_sizes=True, output_loading_info=True
            )
        _check_loaded(name, model, report)
        _check_vocabulary(name, model, tokenizer)
    return model.eval(), tokenizer


def _scratch_config(name: str, tokenizer) -> BertConfig:
    layers, width = SCRATCH_SIZES[name]
    return BertConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64,
        intermediate_size=4 * width, max_position_embeddings=512, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


def output_names(domain: Domain) -> tuple[str, ...]:
    """What a head's outputs are called, in order; of choices it has one, run on a question with each choice."""
    if domain.task == "regression":
        return ("LABEL_0",)  # Hugging Face's own name
    return ("plausible",) if domain.kind == "choices" else domain.labels


def label_options(domain: Domain) -> dict:
    """The config fields that describe a head's outputs, all that a config may hold of another head."""
    names = dict(enumerate(output_names(domain)))
    kind = "regression" if domain.task == "regression" else None
    label2id = {label: i for i, label in names.items()}
    return {"num_labels": len(names), "id2label": names, "label2id": label2id, "problem_type": kind}


def class_count(domain: Domain) -> int:
    """Logits of a row of the domain: one a class or choice, one for a regression."""
    return len(domain.labels) if domain.kind == "choices" else len(output_names(domain))


def load_classifier(name: str, domain: Domain, tokenizer, data_dir: str | Path = "data"):
    """A Hugging Face sequence classifier with ``domain``'s labels and a new head, in train mode."""
    place = locate(name, data_dir)
    if place in SCRATCH_SIZES:
        config = _scratch_config(place, tokenizer)
        config.update(label_options(domain))
        return AutoModelForSequenceClassification.from_config(config).train()
    with _explained(name):
        model, report = AutoModelForSequenceClassification.from_pretrained(
            place, use_safetensors=True, trust_remote_code=False, ignore_mismatched_sizes=True, output_loading_info=True,
            **label_options(domain),
        )  # fmt: skip
    _check_loaded(name, model, report)
    _check_vocabulary(name, model, tokenizer)
    if model.config.pad_token_id is None:  # of many decoders; without one they classify no batches
        model.config.pad_token_id = tokenizer.pad_token_id
    return model.train()


def _check_loaded(name: str, model, report: dict) -> None:
    """Only the pooler and the head may be new: an encoder weight that the checkpoint lacks would be random."""
    base = "" if model.base_model is model else f"{model.base_model_prefix}."
    lost = {*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])}
    encoder = sorted(key for key in lost if key.startswith(base) and "pooler" not in key)
    if encoder:
        raise TeachbackError(
            f"model {name!r} lacks {len(encoder)} weights of its encoder, first {encoder[0]!r}; use a complete checkpoint"
        )
    check_finite(f"model {name!r}", model)


def check_finite(where: str, model: nn.Module, advice: str = "use another checkpoint") -> None:
    """Refuse weights that are no numbers: whatever is computed with them would be none either."""
    for key, value in model.state_dict().items():
        if not value.isfinite().all():
            raise TeachbackError(f"{where}: the weight {key!r} holds NaN or infinity; {advice}")


def _check_vocabulary(name: str, model, tokenizer) -> None:
    if len(tokenizer) > model.config.vocab_size:
        raise TeachbackError(
            f"model {name!r} embeds {model.config.vocab_size} tokens and its tokenizer has {len(tokenizer)}; "
            "use the tokenizer the model was trained with"
        )


def load_finished_classifier(folder: str | Path):
    """The classifier of a finished stage, in eval mode; a weight that is missing or left over is an error."""
    with _explained(str(folder)):
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    wrong = sorted(
        {*report["missing_keys"], *report["unexpected_keys"], *(key[0] for key in report["mismatched_keys"])}
    )
    if wrong:
        raise TeachbackError(
            f"{folder}: the checkpoint and the model disagree on {wrong[0]!r}; remove the folder and run its stage again"
        )
    check_finite(str(folder), model)
    return model.eval()


def use_training_attention(module: nn.Module, device: torch.device) -> None:
    """Let the Hugging Face models in ``module`` compute attention in the way that learns fastest on the device.

    On a CPU that is the plain one: the fused kernel's backward pass takes nearly as long as all matrix products there, and
    with dropout there is no such kernel. Models that only answer keep it.
    """
    if device.type == "cpu":
        for part in module.modules():
            if isinstance(part, PreTrainedModel):
                part.set_attn_implementation("eager")


def final_layer(model) -> nn.Linear:
    """The linear layer that makes the logits: the last one with as many outputs as labels."""
    found = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == model.config.num_labels]
    if not found:
        raise TeachbackError(f"{type(model).__name__} has no final linear layer with {model.config.num_labels} outputs")
    return found[-1]


def backbone(model):
    """The encoder inside a sequence classifier."""
    return getattr(model, model.base_model_prefix)


def layer_list(model) -> nn.ModuleList:
    """The transformer layers of an encoder, whatever the architecture calls them."""
    depth = model.config.num_hidden_layers
    for module in backbone(model).modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise TeachbackError(
        f"{type(model).__name__} has no list of its {depth} layers (do they share weights?), so it cannot be cut, nor its attention "
        "be read: set ATTENTION_WEIGHT=0 to distil without the attention loss, and STUDENT_INIT=pretrained without STUDENT_LAYERS"
    )


def cut_layers(model, keep: list[int], domain: Domain, head: nn.Linear | None = None):
    """A copy of a classifier with only some layers (counted from 0), ``domain``'s labels, and ``head`` as final layer.

    Without ``head`` the final layer is new.
    """
    layers = layer_list(model)
    if not keep or max(keep) >= len(layers) or min(keep) < 0:
        raise TeachbackError(
            f"STUDENT_LAYERS: layers {[i + 1 for i in keep]} cannot be kept, as the model has {len(layers)}"
        )
    config = copy.deepcopy(model.config)  # building a model changes the config it is given
    config.num_hidden_layers = len(keep)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in keep]
    config.update(label_options(domain))
    student = type(model)(config)
    _copy_all_but(model, student, (_name_of(layer_list, model), _name_of(final_layer, model)))
    for target, source in zip(layer_list(student), keep):
        target.load_state_dict(layers[source].state_dict())
    if head is not None:
        final_layer(student).load_state_dict(head.state_dict())
    return student.train()


def _name_of(find, model) -> str:
    found = find(model)
    return next(name for name, module in model.named_modules() if module is found) + "."


def _copy_all_but(source, target, prefixes: tuple[str, ...]) -> None:
    weights = {name: value for name, value in source.state_dict().items() if not name.startswith(prefixes)}
    missing, unexpected = target.load_state_dict(weights, strict=False)
    assert not unexpected and all(name.startswith(prefixes) for name in missing)


def spread_layers(count: int, depth: int) -> list[int]:
    """``count`` of ``depth`` layers, evenly spread and ending with the last (counted from 0)."""
    return [(i + 1) * depth // count - 1 for i in range(count)]


@dataclass
class Outputs:
    """What a classifier says of a batch: logits [B, C], pooled [S, H], hidden states [S, L, H] (embeddings first).

    S = B sequences, but where rows are questions with several choices. ``places`` [S]: which token a decoder classifies
    from; None: the first, [CLS].
    """

    logits: torch.Tensor
    pooled: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] = ()
    places: torch.Tensor | None = None

    def cls(self, layers: Sequence[int]) -> torch.Tensor:
        """States after the given layers of the token that stands for its sequence, [CLS] or a decoder's last: [S, K, H]."""
        if self.places is None:
            return torch.stack([self.hidden_states[layer][:, 0] for layer in layers], 1)
        sequences = torch.arange(len(self.places), device=self.places.device)
        return torch.stack([self.hidden_states[layer][sequences, self.places] for layer in layers], 1)


def fold(values: torch.Tensor, sequences: torch.Tensor, width: int, fill: float = 0.0) -> torch.Tensor:
    """Values of each row's sequences side by side: [S, ...], [B] -> [B, width, ...], ``fill`` where there are fewer."""
    count = torch.arange(len(values), device=values.device)
    row = per_sequence(count[: len(sequences)], sequences, len(values))
    place = count - per_sequence(sequences.cumsum(0) - sequences, sequences, len(values))
    return values.new_full((len(sequences), width, *values.shape[1:]), fill).index_put((row, place), values)


def per_row(values: torch.Tensor, sequences: torch.Tensor | None) -> torch.Tensor:
    """Mean over each row's sequences: [S, ...], [B] -> [B, ...]; without ``sequences`` every row is one."""
    if sequences is None:
        return values
    # No row has more sequences than this; the largest number itself is on the device, and asking for it would wait.
    widest = len(values) - len(sequences) + 1
    count = sequences.view(-1, *(1 for _ in values.shape[1:]))
    return fold(values, sequences, widest).sum(1) / count


def per_sequence(values: torch.Tensor, sequences: torch.Tensor | None, total: int | None = None) -> torch.Tensor:
    """A row's value for each of its sequences: [B, ...], [B] -> [S, ...]. ``total`` = S saves waiting for a GPU."""
    return values if sequences is None else values.repeat_interleave(sequences, 0, output_size=total)


def most_tokens(model: nn.Module) -> int | None:
    """Length of the longest sequence that a model has positions for; None where it has no table of them."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None


def require_positions(model: nn.Module, length: int, most: int | None = None) -> None:
    """Refuse sequences of ``length`` tokens where the model has no positions for them. ``most``: how many it has."""
    most = most_tokens(model) if most is None else most
    if most is not None and length > most:
        raise TeachbackError(
            f"a text of {length} tokens, and {type(model).__name__} reads at most {most}; set MAX_LENGTH={most} in all stages"
        )


class Classifier(nn.Module):
    """A Hugging Face classifier, its *pooled* representation, and further heads on it.

    ``heads`` names the heads in order; the model's own final layer serves the first of them. Logits of a row come
    from the head that ``head`` [B] names; classes that this head lacks get ``ABSENT_CLASS``. A head for choices has one
    output, and a row's logits are those of its sequences side by side.
    """

    def __init__(self, model, heads: dict[str, Domain]):
        super().__init__()
        self.model = model
        self.heads = dict(heads)
        sizes = [len(output_names(domain)) for domain in heads.values()]
        width = final_layer(model).in_features
        others = [nn.Linear(width, size) for size in sizes[1:]]
        for layer in others:
            nn.init.normal_(layer.weight, std=getattr(model.config, "initializer_range", 0.02))
            nn.init.zeros_(layer.bias)
        self.other_heads = nn.ModuleList(others)
        self.classes = max(map(class_count, heads.values()))
        self._choices = [domain.kind == "choices" for domain in heads.values()]
        self._pooled: torch.Tensor | None = None
        self._most_tokens = most_tokens(model)
        final_layer(model).register_forward_pre_hook(self._remember_pooled)

    def _remember_pooled(self, module, inputs) -> None:
        self._pooled = inputs[0]

    def forward(self, batch: dict, head: torch.Tensor | None = None, hidden_states: bool = False) -> Outputs:
        """Run the model on a padded batch. ``head`` [B] is needed only where there is more than one."""
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
        if self._most_tokens is not None:
            require_positions(self.model, inputs["input_ids"].shape[1], self._most_tokens)
        result = self.model(**inputs, output_hidden_states=hidden_states, return_dict=True)
        pooled, self._pooled = self._pooled, None
        assert pooled is not None  # the final layer's hook has just kept it
        places = None
        if pooled.ndim == 3:  # of a decoder, whose final layer reads every token
            places = last_places(batch["input_ids"], self.model.config.pad_token_id)
            pooled = pooled[torch.arange(len(places), device=places.device), places]
        logits = self._by_row(result.logits, pooled, head, batch.get("sequences"))
        return Outputs(logits, pooled, result.hidden_states or (), places)

    def head_logits(
        self, pooled: torch.Tensor, head: torch.Tensor | None = None, sequences: torch.Tensor | None = None
    ):
        """What `forward` says, from pooled states alone: [S, H], [B], [B] -> logits [B, C]."""
        layer = final_layer(self.model)
        first = nn.functional.linear(pooled, layer.weight, layer.bias)  # not called, as its hook would keep the states
        return self._by_row(first, pooled, head, sequences)

    def _by_row(self, first: torch.Tensor, pooled: torch.Tensor, head, sequences) -> torch.Tensor:
        """Logits of each row's own head [B, C], from the first head's by sequence and pooled states for the others."""
        if not self.other_heads:
            plain = sequences is None and not self._choices[0]
            return first if plain else self._padded(first, self._choices[0], sequences)
        every = [first, *(layer(pooled) for layer in self.other_heads)]
        padded = [self._padded(logits, choices, sequences) for logits, choices in zip(every, self._choices)]
        return torch.stack(padded, 1)[torch.arange(len(head), device=head.device), head]

    def _padded(self, logits: torch.Tensor, choices: bool, sequences: torch.Tensor | None) -> torch.Tensor:
        """One head's logits by row, with absent classes: [S, c] -> [B, C]. Those of other heads' rows mean nothing."""
        logits = logits.float()
        if sequences is not None and choices:
            return fold(logits[:, 0], sequences, self.classes, ABSENT_CLASS)
        if sequences is not None:
            logits = logits[sequences.cumsum(0) - sequences]
        return nn.functional.pad(logits, (0, self.classes - logits.shape[1]), value=ABSENT_CLASS)


def last_places(input_ids: torch.Tensor, pad_token_id: int) -> torch.Tensor:
    """Place of each sequence's last token that is no padding, which Hugging Face's decoders classify: [S, L] -> [S]."""
    places = torch.arange(input_ids.shape[1], device=input_ids.device)
    return (places * (input_ids != pad_token_id)).argmax(-1)


def mean_over_tokens(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of token states over real tokens: [B, L, H], [B, L] -> [B, H]."""
    mask = mask.unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1)


class TransferableKnowledge(nn.Module):
    """h_d before its tanh: W(E_D[k] + h) + b with E_D a learned domain embedding (Meta-KD, section 3)."""

    def __init__(self, width: int, domains: int):
        super().__init__()
        self.domain_embedding = nn.Embedding(domains, width)
        self.dense = nn.Linear(width, width)
        nn.init.normal_(self.domain_embedding.weight, std=0.02)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def add_mean_domain(self) -> None:
        """One more domain, whose embedding is the mean of the others."""
        known = self.domain_embedding.weight.detach()
        self.domain_embedding = nn.Embedding.from_pretrained(
            torch.cat([known, known.mean(0, keepdim=True)]), freeze=False
        )

    def forward(self, last_hidden: torch.Tensor, mask: torch.Tensor, domain: torch.Tensor) -> torch.Tensor:
        """[B, L, H], [B, L], [B] -> [B, H], before the tanh."""
        return self.of_mean(mean_over_tokens(last_hidden, mask), domain)

    def of_mean(self, mean: torch.Tensor, domain: torch.Tensor) -> torch.Tensor:
        """From token states that are averaged already: [B, H], [B] -> [B, H], before the tanh."""
        return self.dense(self.domain_embedding(domain) + mean)
