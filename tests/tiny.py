"""Models, rows and batches small enough for unit tests, with weights large enough to matter."""

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from teachback.data.schema import Domain, Row, Suite, label_options
from teachback.methods.teacher import Teacher
from teachback.models.layers import backbone

LABELS = ("negative", "positive")
BOOKS, DVD, KITCHEN = (Domain(name, "sentiment", LABELS) for name in ("books", "dvd", "kitchen"))
GENRE = Domain("genre", "topic", ("fact", "fiction", "verse"))  # has a head of its own, with more classes
CAUSE = Domain("cause", "cause", ("first", "second"), kind="choices")
SCORE = Domain("score", "score", (), task="regression")
SUITE = Suite("tiny", {domain.name: domain for domain in (BOOKS, DVD, KITCHEN, GENRE)})
WORDS = "good bad plot paper screen quite never loud thin read watch bought again once twice".split()
VOCABULARY = 60
POSITIONS = 160  # room for padding to 128
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

ARCHITECTURES = {
    "bert": (BertConfig, BertForSequenceClassification, {}),
    "roberta": (RobertaConfig, RobertaForSequenceClassification, {}),
    "distilbert": (DistilBertConfig, DistilBertForSequenceClassification, {}),
    "electra": (ElectraConfig, ElectraForSequenceClassification, {"embedding_size": 16}),
}


def classifier(architecture="bert", layers=2, width=32, heads=2, seed=0, domain=BOOKS, **options):
    """A classifier in eval mode for ``domain``'s labels; weights are larger than usual, so that texts differ."""
    config_class, model_class, extra = ARCHITECTURES[architecture]
    options = {**label_options(domain), "pad_token_id": 0, **extra, **options}
    if architecture == "distilbert":
        sizes = {"n_layers": layers, "dim": width, "n_heads": heads, "hidden_dim": 2 * width}
    else:
        sizes = {
            "num_hidden_layers": layers,
            "hidden_size": width,
            "num_attention_heads": heads,
            "intermediate_size": 2 * width,
        }
    config = config_class(vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, **sizes, **options)
    torch.manual_seed(seed)
    return enlarge(model_class(config)).eval()


def enlarge(model: nn.Module, factor: float = 8.0) -> nn.Module:
    """Multiply all matrices and randomise biases, so that no term is negligible."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(factor)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    return model


def tiny_teacher(kind="meta", domains=(BOOKS, DVD, KITCHEN), transferable=True, seed=7, embeds_domains=True, **options) -> Teacher:
    """A teacher in eval mode over ``domains``; ``options`` are the model's."""
    model = classifier(seed=seed, domain=domains[0], **options)
    teacher = Teacher(model, kind, list(domains), transferable, embeds_domains)
    for part in (teacher.transferable, teacher.domain_classifier, *teacher.classifier.other_heads):
        if part is not None:
            enlarge(part)
    return teacher.eval()


def tokenizer() -> BertTokenizer:
    """BERT tokenizer whose vocabulary is five special tokens and ``WORDS``."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, model_max_length=POSITIONS)


def batch(lengths=(9, 4, 6), width=None, seed=3) -> dict[str, torch.Tensor]:
    """A padded batch with every column that losses read: label, domain, weight."""
    generator = torch.Generator().manual_seed(seed)
    width = width or max(lengths)
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(5, VOCABULARY, (length,), generator=generator)
    count = torch.arange(len(lengths))
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(width) < torch.tensor(lengths)[:, None]).long(),
        "label": count % 2,
        "domain": count % 3,
        "weight": 0.2 + 0.3 * count.float(),
    }


CHOICES = (1, 2, 1, 2)  # number of sequences of each row of `mixed_batch`


def mixed_batch(domains=(0, 1, 2, 1), width=None) -> dict[str, torch.Tensor]:
    """Batch of a text, a question with two choices, a text and another question, with the given domain ids."""
    sequences = batch((9, 4, 6, 5, 7, 3), width)
    rows = {
        "label": torch.tensor([1.0, 1.0, -0.7, 0.0]),
        "domain": torch.tensor(domains),
        "weight": torch.tensor([0.2, 0.5, 0.8, 1.1]),
    }
    inputs = {name: sequences[name] for name in ("input_ids", "attention_mask")}
    return rows | inputs | {"sequences": torch.tensor(CHOICES)}


def mixed_chosen(rows: dict[str, torch.Tensor], order: list[int]) -> dict[str, torch.Tensor]:
    """Some rows of a `mixed_batch` with all their sequences; an ordinary batch if no question is among them."""
    starts = [sum(CHOICES[:row]) for row in range(len(CHOICES))]
    places = [starts[row] + i for row in order for i in range(CHOICES[row])]
    picked = {
        name: values[places if name in ("input_ids", "attention_mask") else order] for name, values in rows.items()
    }
    if len(places) == len(order):
        del picked["sequences"]
    return picked


def padded(rows: dict[str, torch.Tensor], width: int) -> dict[str, torch.Tensor]:
    """The same batch, padded to ``width`` tokens."""
    wider = dict(rows)
    for name in ("input_ids", "attention_mask"):
        wider[name] = nn.functional.pad(rows[name], (0, width - rows[name].shape[1]))
    return wider


def chosen(rows: dict[str, torch.Tensor], order: list[int]) -> dict[str, torch.Tensor]:
    """Some rows of a batch, in the given order."""
    return {name: values[order] for name, values in rows.items()}


def embedding_gradients(model, loss_of) -> torch.Tensor:
    """Gradient of the loss that ``loss_of()`` computes with respect to the model's word embeddings: [B, L, H]."""
    seen = []

    def keep(module, inputs, output):
        output.retain_grad()
        seen.append(output)

    handle = backbone(model).embeddings.word_embeddings.register_forward_hook(keep)
    try:
        loss_of().backward()
    finally:
        handle.remove()
    return seen[0].grad


def text_rows(count=6, domain="books") -> list[Row]:
    return [Row(f"g{i}", " ".join(WORDS[i : i + 2 + i]), "", LABELS[i % 2], domain) for i in range(count)]
