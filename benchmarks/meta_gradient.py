"""Effect of the gradient through p_T'(y|h_S) in stage 6 with few labels: META_GRADIENT=detach against flow.

Besides the best student on dev, which may be the one before the curriculum, the student after the last episode is scored:
nothing chooses it. Uses Amazon reviews (``kitchen``, the target, and ``books``, on the same head) and CoLA (with its own head), few rows for
training and many for testing. Each seed samples rows and trains a teacher, a student and, from that student, both
curricula. Requires amazon, and CoLA of glue, fetched by stage 1 into --data_dir:

    PYTHONPATH=src python benchmarks/meta_gradient.py --data_dir data --folder <a folder> --model <folder of an encoder>
"""

import argparse
import json
import statistics
from pathlib import Path
from random import Random

from transformers import pipeline

from teachback.core.arguments import CURRICULUM_STAGE, STUDENT_STAGES, TEACHER_STAGE
from teachback.core.parsing import parse
from teachback.core.published import read_stage
from teachback.data.bad_rows import Problems
from teachback.data.raw_lines import tsv_lines
from teachback.data.schema import (
    TRAIN_COLUMNS,
    Domain,
    Row,
    Suite,
    clean_text,
    read_rows,
    with_row_counts,
    write_rows,
    write_suite,
)
from teachback.data.suites import amazon
from teachback.models.loading import load_finished_classifier, load_tokenizer
from teachback.stages.distillation import distil
from teachback.stages.stage3_teacher import train_teachers
from teachback.stages.stage6_curriculum import run_curriculum
from teachback.stages.stage7_arguments import EvaluationArguments
from teachback.stages.stage7_evaluate import evaluate

SIZES = {"train": 64, "quiz": 32, "dev": 64, "test": 600}  # rows of the target by split
FURTHER = {"train": 8, "quiz": 32}  # rows of the other domains
DOMAINS = {
    "kitchen": Domain("kitchen", "sentiment", ("negative", "positive")),
    "books": Domain("books", "sentiment", ("negative", "positive")),
    "cola": Domain("cola", "acceptability", ("unacceptable", "acceptable")),
}
TARGET = "kitchen"
VARIANTS = ("detach", "flow")


def all_rows(data_dir: Path) -> dict[str, list[Row]]:
    """All labelled rows of each domain."""
    content = data_dir / "raw" / "amazon" / "content"
    known = {name: Domain(name, "sentiment", amazon.POLARITIES) for name in amazon.FOLDERS}
    rows = {
        name: [row for polarity in amazon.POLARITIES for row in amazon._rows(content, name, polarity, known, Problems())]
        for name in ("kitchen", "books")
    }
    files = sorted((data_dir / "raw" / "glue" / "content" / "CoLA").rglob("train.tsv"))
    lines = tsv_lines(files[0], ("source", "label", "star", "sentence"))
    labels = DOMAINS["cola"].labels
    rows["cola"] = [
        Row(f"cola-{number}", clean_text(values["sentence"]), "", labels[int(values["label"])], "cola")
        for number, values, _ in lines
        if values
    ]
    return rows


def balanced(random: Random, rows: list[Row], sizes: dict[str, int]) -> dict[str, list[Row]]:
    """Sample disjoint splits with balanced labels."""
    by_label: dict[str, list[Row]] = {}
    for row in random.sample(rows, len(rows)):
        by_label.setdefault(row.label, []).append(row)
    return {
        split: [part.pop() for part in by_label.values() for _ in range(size // len(by_label))]
        for split, size in sizes.items()
    }


def write_few(folder: Path, every: dict[str, list[Row]], seed: int, train_rows: int) -> None:
    """Write the suite ``few`` of a seed, with ``train_rows`` train rows of the target."""
    sizes = SIZES | {"train": train_rows}
    random = Random(seed)
    rows: dict[str, list[Row]] = {split: [] for split in SIZES}
    for name in DOMAINS:
        for split, part in balanced(random, every[name], sizes if name == TARGET else FURTHER).items():
            rows[split] += part
    for split, part in rows.items():
        write_rows(folder / "few" / f"{split}.tsv", part, TRAIN_COLUMNS if split == "train" else TRAIN_COLUMNS[:-1])
    write_suite(folder / "few", with_row_counts(Suite("few", DOMAINS), rows))


def accuracy(folder: Path, rows: list[Row]) -> float:
    """Accuracy of a plain checkpoint on rows of the target."""
    model, tokenizer = load_finished_classifier(folder), load_tokenizer(str(folder))
    classifier = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    answers = classifier([row.text_a for row in rows], truncation=True, max_length=64, batch_size=64)
    return statistics.mean(answer["label"] == row.label for answer, row in zip(answers, rows, strict=True))


def run_seed(folder: Path, every: dict[str, list[Row]], seed: int, model: str, train_rows: int, epochs: int,
             further: list[str]) -> dict:  # fmt: skip
    """Run stages 3 to 7; returns the student's test accuracy before the curriculum and after each variant."""
    write_few(folder / f"data{seed}", every, seed, train_rows)
    places = ["--suite", "few", "--domain", TARGET, "--data_dir", str(folder / f"data{seed}"), "--max_length", "64",
              "--seed", str(seed), "--device", "cpu", "--precision", "fp32", "--teacher", "single"]  # fmt: skip
    start = ["--output_root", str(folder / "start")]
    train = [*places, *start, "--per_device_train_batch_size", "8", "--learning_rate", "5e-5"]
    train_teachers(*parse(*TEACHER_STAGE, argv=[*train, "--teacher_model", model, "--num_train_epochs", "8"]))
    student = ["--student_init", "teacher", "--student_layers", "3", "--first", "none", "--method", "mpdistil"]
    for stage in ("first", "second"):
        distil(*parse(*STUDENT_STAGES, argv=[*train, *student, "--num_train_epochs", str(epochs), "--stage", stage]))
    found: dict = {"seed": seed}
    test = list(read_rows(folder / f"data{seed}" / "few" / "test.tsv"))
    for variant in VARIANTS:
        outputs = ["--output_root", str(folder / variant)]
        shared = ["--teacher_root", str(folder / "start"), "--student_root", str(folder / "start")]
        argv = [*places, *outputs, *shared, "--meta_gradient", variant, *further]
        (path,) = run_curriculum(*parse(*CURRICULUM_STAGE, argv=argv))
        scored = evaluate(*parse(EvaluationArguments, argv=[*places, *outputs, *shared[:2], "--report", "0"]))
        scores = {one.stage: one.scores[TARGET].value for one in scored if TARGET in one.scores}
        found[variant] = {
            "dev": read_stage(path)["dev"]["score"], "test": scores[f"{TARGET}/curriculum"], "last": accuracy(path / "last", test)
        }  # fmt: skip
    scored = evaluate(*parse(EvaluationArguments, argv=[*places, *start, "--report", "0"]))
    found["before"] = {one.stage: one.scores[TARGET].value for one in scored if TARGET in one.scores}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--train_rows", type=int, default=SIZES["train"], help="of the target")
    parser.add_argument("--epochs", type=int, default=6, help="of the student before the curriculum")
    parser.add_argument("--json", type=Path)
    arguments, further = parser.parse_known_args()
    every, found = all_rows(arguments.data_dir), []
    for seed in arguments.seeds:
        found.append(run_seed(arguments.folder, every, seed, arguments.model, arguments.train_rows, arguments.epochs, further))
        print(json.dumps(found[-1]), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1))
    for variant in VARIANTS:
        for which in ("test", "last"):
            values = [one[variant][which] for one in found]
            print(f"{variant:8}{which:6}{statistics.mean(values):.4f}  by seed {values}")


if __name__ == "__main__":
    main()
