"""Test of the curriculum on a synthetic case with a known best policy, for several seeds and settings.

Four domains of generated reviews share a head: ``target`` (few train rows, so that the student can still improve),
``helpful`` (more reviews of the same kind), ``useless`` (neutral sentences with random labels) and ``harmful`` (reviews
with flipped labels). A good policy chooses ``helpful`` and avoids ``harmful``; its student beats ``uniform``'s.

    PYTHONPATH=src python benchmarks/curriculum_case.py --folder <a folder> --seeds 1 2 3 4 5
"""

import argparse
import json
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from random import Random

from teachback.core.arguments import CURRICULUM_STAGE, STUDENT_STAGES, TEACHER_STAGE
from teachback.core.parsing import parse
from teachback.core.published import read_stage
from teachback.data.schema import TRAIN_COLUMNS, Domain, Row, Suite, with_row_counts, write_rows, write_suite
from teachback.data.suites import sample
from teachback.stages.distillation import distil
from teachback.stages.stage3_teacher import train_teachers
from teachback.stages.stage6_curriculum import run_curriculum
from teachback.stages.stage7_arguments import EvaluationArguments
from teachback.stages.stage7_evaluate import evaluate

LABELS = ("negative", "positive")
TARGET = {"train": 320, "quiz": 64, "dev": 200, "test": 400}  # rows by split
OTHERS = {"train": 16, "quiz": 400}
PUBLISHED = "--advantage level --reward_rows all --state pooler --gamma 0.99 --policy_lr 1e-3 --entropy_weight 0 --first_action ignored --reward"
IMPROVED = "--advantage improvement --reward real --policy_lr 0.05"
SETTINGS = {
    "published, real reward": f"{PUBLISHED} real",
    "published, one student step an episode": f"{PUBLISHED} real --student_update episode",
    "improvement, held-out rows, gamma 0": f"{IMPROVED} --gamma 0",
    "bandit": f"{IMPROVED} --policy bandit",
    "ucb": f"{IMPROVED} --policy ucb",
    "uniform": "--policy uniform",
    "target_only": "--policy target_only",
    "published, binary reward": f"{PUBLISHED} binary",
    "published, policy lr 0.05": f"{PUBLISHED} real --policy_lr 0.05",
    "improvement, held-out rows, gamma 0.5": f"{IMPROVED} --gamma 0.5",
    "improvement, held-out rows, gamma 0.99": f"{IMPROVED} --gamma 0.99",
    "improvement, all rows, gamma 0": f"{IMPROVED} --gamma 0 --reward_rows all",
    "improvement, gamma 0, pooler state": f"{IMPROVED} --gamma 0 --state pooler",
    "improvement, gamma 0, binary reward": f"{IMPROVED} --gamma 0 --reward binary",
    "improvement, gamma 0, first action ignored": f"{IMPROVED} --gamma 0 --first_action ignored",
    "improvement, gamma 0, no entropy": f"{IMPROVED} --gamma 0 --entropy_weight 0",
    "improvement, gamma 0, policy lr 1e-3": f"{IMPROVED} --gamma 0 --policy_lr 1e-3",
}  # fmt: skip


def reviews(random: Random, count: int, domain: str, kind: str) -> list[Row]:
    """Generate rows of a domain; ``kind`` determines texts and labels."""
    rows = []
    for number in range(count):
        label = LABELS[number % 2]
        text = " ".join(random.sample(sample.FILLERS, 3)).replace("{topic}", "it")
        if kind != "useless":
            text = sample._review(random, "books", label).text
        assigned = {"useless": random.choice(LABELS), "harmful": LABELS[1 - number % 2]}.get(kind, label)
        rows.append(Row(f"{domain}-{number}", text, "", assigned, domain))
    return rows


def write_case(data_dir: Path, seed: int) -> None:
    """Write the suite ``case``."""
    random = Random(seed)
    domains = {name: Domain(name, "sentiment", LABELS) for name in ("target", "helpful", "useless", "harmful")}
    rows: dict[str, list[Row]] = {split: [] for split in TARGET}
    for name in domains:
        for split, count in (TARGET if name == "target" else OTHERS).items():
            rows[split] += [replace(row, guid=f"{split}-{row.guid}") for row in reviews(random, count, name, name)]
    for split, part in rows.items():
        write_rows(data_dir / "case" / f"{split}.tsv", part, TRAIN_COLUMNS if split == "train" else TRAIN_COLUMNS[:-1])
    write_suite(data_dir / "case", with_row_counts(Suite("case", domains), rows))


def prepare(folder: Path, seed: int) -> None:
    """Run stages 3 to 5 on the target: a teacher and a student undertrained on its few rows."""
    write_case(folder / f"data{seed}", seed)
    places = ["--suite", "case", "--domain", "target", "--data_dir", str(folder / f"data{seed}"), "--max_length", "48"]
    shared = [
        *places,
        "--output_root",
        str(folder / "start"),
        "--seed",
        str(seed),
        "--device",
        "cpu",
        "--precision",
        "fp32",
    ]
    train = [*shared, "--per_device_train_batch_size", "16", "--learning_rate", "1e-3"]
    teacher = ["--teacher", "single", "--teacher_model", "scratch:tiny", "--num_train_epochs", "20"]
    train_teachers(*parse(*TEACHER_STAGE, argv=[*train, *teacher]))
    student = ["--teacher", "single", "--student_model", "scratch:tiny", "--first", "none", "--method", "mpdistil"]
    student += ["--beta_pkd", "0", "--meta_teacher_every_epoch", "0", "--num_train_epochs", "8"]
    for stage in ("first", "second"):
        distil(*parse(*STUDENT_STAGES, argv=[*train, *student, "--stage", stage]))


def run(folder: Path, seed: int, name: str, settings: str, further: list[str]) -> dict:
    """Run stages 6 and 7 in a folder of the setting; returns the last episodes' probabilities and the scores."""
    outputs = folder / name.replace(" ", "_").replace(",", "")
    root = outputs / "case" / f"seed{seed}"
    root.mkdir(parents=True, exist_ok=True)
    for part in ("teacher-single-target", "target"):
        if not (root / part).exists():
            shutil.copytree(folder / "start" / "case" / f"seed{seed}" / part, root / part)
    places = ["--suite", "case", "--domain", "target", "--data_dir", str(folder / f"data{seed}"), "--max_length", "48"]
    places += ["--output_root", str(outputs), "--seed", str(seed), "--device", "cpu", "--precision", "fp32"]
    argv = [*places, "--teacher", "single", "--curriculum_lr", "2e-4", *settings.split(), *further]
    (student,) = run_curriculum(*parse(*CURRICULUM_STAGE, argv=argv))
    tested = evaluate(*parse(EvaluationArguments, argv=[*places, "--teacher", "single"]))
    scores = {checkpoint.stage: checkpoint.scores["target"].value for checkpoint in tested if "target" in checkpoint.scores}
    return {"seed": seed, "setting": name, "test": scores, **probabilities(student)}


def probabilities(student: Path, episodes: int = 20) -> dict[str, dict[str, float]]:
    """Share of each domain in the last episodes, without the first step of each, which is uniform."""
    lines = [line.split("\t") for line in (student / "trajectory.tsv").read_text().splitlines()[1:]]
    last = int(lines[-1][0])
    chosen = [line[2] for line in lines if int(line[0]) > last - episodes and line[1] != "0"]
    return {"share": {name: chosen.count(name) / len(chosen) for name in read_stage(student)["domains"]}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--json", type=Path)
    arguments, further = parser.parse_known_args()
    results = []
    for seed in arguments.seeds:
        prepare(arguments.folder, seed)
        results += [run(arguments.folder, seed, name, SETTINGS[name], further) for name in arguments.settings]
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    print(
        f"\n{'setting':42}{'helpful':>9}{'harmful':>9}{'useless':>9}{'target':>9}   before   after (test accuracy, mean ± sd)"
    )
    for name in arguments.settings:
        print(line(name, [result for result in results if result["setting"] == name]))


def line(name: str, runs: list[dict]) -> str:
    shares = [
        statistics.mean(result["share"][domain] for result in runs) for domain in ("helpful", "harmful", "useless", "target")
    ]
    before, after = ([result["test"][f"target/{stage}"] for result in runs] for stage in ("student_second", "curriculum"))
    spread = statistics.stdev(after) if len(after) > 1 else 0.0
    return (
        f"{name:42}"
        + "".join(f"{share:9.3f}" for share in shares)
        + f"   {statistics.mean(before):.4f}   {statistics.mean(after):.4f} ± {spread:.4f}"
    )


if __name__ == "__main__":
    main()
