"""A processed suite of short generated reviews, written without PyTorch."""

import random
from pathlib import Path

import numpy as np

from teachback.data.schema import TRAIN_COLUMNS, Domain, Row, Suite, write_rows, write_suite

DOMAINS = ("books", "dvd")


def review(number: int, domain: str) -> Row:
    generator = random.Random(f"{number} {domain}")
    label = ("negative", "positive")[number % 2]
    word = {"negative": "bad", "positive": "good"}[label]
    text = " ".join(
        [domain, *generator.choices("the a plot disc was is very quite".split(), k=generator.randint(1, 6)), word]
    )
    return Row(f"{domain}-{number}", text, "", label, domain, weight=0.25 + 0.5 * generator.random())


def write_tiny_suite(data_dir: Path, names: tuple[str, ...] = DOMAINS) -> None:
    domains = {name: Domain(name, "sentiment", ("negative", "positive")) for name in names}
    folder = data_dir / "tiny"
    for split, first, last in (("train", 0, 24), ("dev", 24, 32), ("test", 32, 40)):
        rows = [review(number, domain) for domain in names for number in range(first, last)]
        write_rows(folder / f"{split}.tsv", rows, TRAIN_COLUMNS if split == "train" else TRAIN_COLUMNS[:-1])
    numbers = [number for domain in names for number in range(24)]
    np.save(folder / "embeddings.npy", np.stack([np.cos(numbers), np.sin(numbers)], 1).astype(np.float32))
    write_suite(folder, Suite("tiny", domains))
