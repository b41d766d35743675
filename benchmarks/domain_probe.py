"""Linear probe for domain information in h_d of finished meta-teachers, one line for each.

A logistic regression is trained to predict the domain on balanced train rows and scored on another split: from the mean
token state h, from h_d, and from h_d with the same domain embedding for all rows, which leaves the information of the text.
Also shows L_DA with false labels and the classifier's p(true domain): log(K - 1) and 0 if h_d determines the domain, log K
and 1/K if it is independent of it.

    PYTHONPATH=src python benchmarks/domain_probe.py --data_dir data --suite amazon outputs/amazon/seed42/teacher-meta
"""

import argparse
import math
from pathlib import Path
from random import Random

import torch
from sklearn.linear_model import LogisticRegression

from teachback.core.errors import TeachbackError
from teachback.core.runs import read_stage
from teachback.data.schema import Row
from teachback.data.suite_data import SuiteData, encode_rows
from teachback.methods.losses import domain_corruption_loss
from teachback.methods.teacher import Teacher, load_teacher
from teachback.methods.teacher_outputs import features
from teachback.models.loading import load_tokenizer


def balanced(rows: list[Row], domains: list[str], count: int) -> list[Row]:
    """Sample at most ``count`` rows of each domain."""
    shuffled = Random(0).sample(rows, len(rows))
    return [row for name in domains for row in [row for row in shuffled if row.domain == name][:count]]


@torch.no_grad()
def states(teacher: Teacher, rows: list[Row], data: SuiteData, tokenizer, length: int) -> dict[str, torch.Tensor]:
    """Compute states by name [N, H], and ``domain`` [N]."""
    encoded = encode_rows(rows, data, [domain.name for domain in teacher.domains], tokenizer, length)
    means = features(teacher.classifier, encoded, tokenizer.pad_token_id, 64, torch.device("cpu"), "fp32", means=True).means
    assert means is not None and teacher.transferable is not None
    domain, mean = encoded.columns["domain"], means.mean(1)
    made = {"h_d": domain, "h_d, one embedding": torch.zeros_like(domain)}
    knowledge = {name: torch.tanh(teacher.transferable.of_means(mean, {"domain": number})) for name, number in made.items()}
    return {"h": mean, **knowledge, "domain": domain}


def probe(teacher: Teacher, train: dict[str, torch.Tensor], scored: dict[str, torch.Tensor]) -> str:
    """Probe a teacher; returns its line of the table."""
    shares = []
    for name in ("h", "h_d", "h_d, one embedding"):
        scale = train[name].std(0) + 1e-6
        fitted = LogisticRegression(max_iter=2000).fit((train[name] / scale).numpy(), train["domain"].numpy())
        shares.append(fitted.score((scored[name] / scale).numpy(), scored["domain"].numpy()))
    assert teacher.domain_classifier is not None
    with torch.no_grad():
        logits, count = teacher.domain_classifier(scored["h_d"]), len(teacher.domains)
        false = [domain_corruption_loss(logits, (scored["domain"] + shift) % count) for shift in range(1, count)]
        true = logits.softmax(-1).gather(1, scored["domain"][:, None]).mean()
    return "".join(f"{share:10.3f}" for share in shares) + f"{torch.stack(false).mean():10.3f}{true:10.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teachers", nargs="+", type=Path, help="folders of finished stage 3")
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--suite", required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--rows", type=int, default=200, help="at most, of each domain and split")
    parser.add_argument("--max_length", type=int, default=128)
    args = parser.parse_args()
    data = SuiteData.read(args.data_dir, args.suite)
    print(f"{'labels':12}{'h':>10}{'h_d':>10}{'one E_D':>10}{'L_DA':>10}{'p(true)':>10}   teacher")
    for folder in args.teachers:
        record = read_stage(folder)
        teacher, tokenizer = load_teacher(folder, record, data.suite), load_tokenizer(str(folder))
        if teacher.transferable is None:
            raise TeachbackError(f"{folder} has no transferable knowledge; train it with TEACHER=meta USE_DOMAIN_LOSS=1")
        names = [domain.name for domain in teacher.domains]
        parts = [balanced(data.rows(split, names), names, args.rows) for split in ("train", args.split)]
        tensors = [states(teacher, part, data, tokenizer, args.max_length) for part in parts]
        print(f"{record['arguments']['domain_labels']:12}{probe(teacher, *tensors)}   {folder}", flush=True)
    print(f"log(K - 1) = {math.log(len(names) - 1):.3f}, log K = {math.log(len(names)):.3f}, 1/K = {1 / len(names):.3f}")


if __name__ == "__main__":
    main()
