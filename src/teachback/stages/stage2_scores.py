"""Embeddings and prototype scores of stage 2's train rows."""

from dataclasses import replace
from pathlib import Path

from teachback.core.devices import resolve_device
from teachback.core.precision import resolve_precision
from teachback.data.schema import TRAIN_COLUMNS, Row, Suite, write_rows
from teachback.methods.prototypes import (
    StoredEmbeddings,
    class_of,
    describe_scores,
    embed,
    plot_scores,
    prototype_scores,
    write_embeddings,
)
from teachback.models.loading import load_encoder
from teachback.stages.stage2_arguments import ProcessArguments


def write_scored_train(folder: Path, train: list[Row], suite: Suite, arguments: ProcessArguments) -> None:
    """Write embeddings.npy, the figure of the scores, and train.tsv with each row's prototype score as its weight."""
    domains = [row.domain for row in train]
    _write_embeddings(folder / "embeddings.npy", train, arguments)
    classes = [class_of(row, suite) for row in train]
    embeddings = StoredEmbeddings(folder / "embeddings.npy")
    scores = prototype_scores(embeddings, classes, domains, arguments.prototype, arguments.alpha)
    print(describe_scores(domains, scores))
    plot_scores(domains, scores, folder / "prototype_scores.png")
    weighted = (replace(row, weight=float(score)) for row, score in zip(train, scores))
    write_rows(folder / "train.tsv", weighted, TRAIN_COLUMNS)


def _write_embeddings(path: Path, train: list[Row], arguments: ProcessArguments) -> None:
    """Write the embeddings of the train rows, chunk by chunk."""
    device = resolve_device(arguments.device)
    precision = resolve_precision(arguments.precision, device)
    texts = [text for row in train for text in (row.text_a, row.text_b) if text]
    model, tokenizer = load_encoder(arguments.embedding_model, texts, arguments.seed, arguments.data_dir)
    chunks = embed(train, model, tokenizer, arguments.max_length, arguments.eval_batch_size, precision, device)
    write_embeddings(path, chunks, (len(train), model.config.hidden_size))
