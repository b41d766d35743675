"""Benchmark of answering texts: rate and peak memory of `scripts/predict.py`, and of an exported student in ONNX Runtime.

    PYTHONPATH=src python benchmarks/bench_predict.py <student folder> <file of one text a line> --json out.json
    PYTHONPATH=src python benchmarks/bench_predict.py <student folder> --rows 1000000 --ways "PyTorch fp32"

Without a file the texts are made up, of a few words each. Every way runs in a process of its own. Its processor time without that of
a run on a single text is what the texts take: on a machine with other work beside, it says more than the clock. ONNX needs the
folder ``onnx`` of `scripts/export.sh`; its texts are sorted by length within windows of 64 batches, as predict.sh sorts them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
WAYS = ("PyTorch fp32", "PyTorch bf16", "ONNX fp32", "ONNX int8")
WORDS = "a good book that I would read again but the film was bad and much too long for me".split()
BATCH, WINDOW = 64, 64  # predict.sh's defaults


def made_up(rows: int, path: Path) -> Path:
    """Write texts of one to six words."""
    random = np.random.default_rng(42)
    with open(path, "w") as file:
        for start in range(0, rows, 10_000):
            for count in random.integers(1, 7, min(10_000, rows - start)):
                file.write(" ".join(random.choice(WORDS, count)) + "\n")
    return path


def measured(command: list[str]) -> dict[str, float]:
    """Run a command: seconds by the clock, seconds of processor time, and peak resident memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, stderr=subprocess.PIPE, text=True)
    said = process.stderr.read() if process.stderr else ""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{said}")
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return {"clock": time.perf_counter() - start, "processor": usage.ru_utime + usage.ru_stime, "MB": kilobytes / 1000}


def command(way: str, args: argparse.Namespace, texts: Path, output: str) -> list[str]:
    """Command that answers a file of texts in one way."""
    library, precision = way.split()
    if library == "ONNX":
        return [sys.executable, __file__, args.folder, str(texts), "--onnx", precision, "--max_length", str(args.max_length)]
    length = ["--max_length", str(args.max_length), "--precision", precision]
    return [sys.executable, str(ROOT / "scripts/predict.py"), "--folder", args.folder, "--input", str(texts), "--output", output, *length]


def answer_by_onnx(args: argparse.Namespace) -> None:
    """Answer a file of texts with an exported student."""
    from onnxruntime import InferenceSession, SessionOptions
    from transformers import AutoTokenizer

    options = SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    folder = Path(args.folder) / "onnx"
    session = InferenceSession(str(folder / {"fp32": "model.onnx", "int8": "model_int8.onnx"}[args.onnx]), options)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = Path(args.texts).read_text().splitlines()
    for start in range(0, len(texts), BATCH * WINDOW):
        window = tokenizer(texts[start : start + BATCH * WINDOW], truncation=True, max_length=args.max_length)
        order = sorted(range(len(window["input_ids"])), key=lambda row: len(window["input_ids"][row]))
        for first in range(0, len(order), BATCH):
            rows = {name: [values[row] for row in order[first : first + BATCH]] for name, values in window.items()}
            padded = tokenizer.pad(rows, return_tensors="np")
            session.run(["probabilities"], {name: values.astype(np.int64) for name, values in padded.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("texts", nargs="?")
    parser.add_argument("--rows", type=int, default=100_000, help="made-up texts, where no file is given")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--max_length", type=int, default=64)
    parser.add_argument("--json", help="file that is written")
    parser.add_argument("--onnx", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.onnx:
        return answer_by_onnx(args)
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(args.texts) if args.texts else made_up(args.rows, Path(folder) / "texts.txt")
        with open(texts) as file:
            single = Path(folder) / "one.txt"
            single.write_text(file.readline())
            rows = 1 + sum(1 for _ in file)
        found = {}
        for way in args.ways:
            start, all_of_it = (measured(command(way, args, part, f"{folder}/answers.tsv")) for part in (single, texts))
            rate = rows / (all_of_it["processor"] - start["processor"])
            found[way] = all_of_it | {"rows": rows, "start": start["processor"], "texts a second of processor time": rate}
            print(f"{way:13} {rows:,} texts, {rate:,.0f} a second of processor time, {all_of_it['clock']:.0f} s, {all_of_it['MB']:,.0f} MB", flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
