"""Benchmark of stage 2's handling of embeddings against decimal text: alternating runs on the same numbers, medians.

    PYTHONPATH=src python benchmarks/bench_process.py --rows 100000 --json out.json

Two parts, without the encoder: writing the embeddings to a file, and computing prototype scores from it. Decimal text is
the released implementation's format: one line of numbers per example, parsed one by one, with centroids and cosines row
by row. The encoder, which both need, is timed separately on as many synthetic texts. Peak memory is that of a separate
process, which never holds all embeddings.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from teachback.core.arguments import PROTOTYPE_FORMS
from teachback.core.devices import peak_memory_bytes, resolve_device
from teachback.core.precision import resolve_precision
from teachback.data.schema import Row
from teachback.methods.prototypes import CHUNK, StoredEmbeddings, embed, prototype_scores, write_embeddings
from teachback.models.loading import load_encoder

DOMAINS = ("books", "electronics", "kitchen")
LABELS = ("negative", "positive")
ALPHA = 0.5
WORDS = 15  # of the longest text
MEGABYTE = 1e6
FILES = {"vectorised": "e.npy", "decimal": "e.txt"}
Times = dict[str, float]


def names(rows: int) -> tuple[list[str], list[str]]:
    """Labels and domains of the rows."""
    return [LABELS[i % 2] for i in range(rows)], [DOMAINS[i % 3] for i in range(rows)]


def random_chunks(rows: int, width: int) -> Iterator[np.ndarray]:
    """Random embeddings float32 [n, width] whose first components depend slightly on the domain."""
    random = np.random.default_rng(42)
    for start in range(0, rows, CHUNK):
        chunk = random.standard_normal((min(CHUNK, rows - start), width), dtype=np.float32)
        chunk[:, 0] += np.arange(start, start + len(chunk)) % 3
        yield chunk


def vectorised(chunks: Iterator[np.ndarray], shape: tuple[int, int], form: str, path: Path) -> tuple[Times, np.ndarray]:
    """Write embeddings and compute scores as stage 2 does."""
    start = time.perf_counter()
    write_embeddings(path, chunks, shape)
    written = time.perf_counter()
    scores = prototype_scores(StoredEmbeddings(path), *names(shape[0]), form, ALPHA)
    return {"write": written - start, "score": time.perf_counter() - written}, scores


def decimal(embeddings: np.ndarray, form: str, path: Path) -> tuple[Times, np.ndarray]:
    """Write embeddings as text and compute scores row by row."""
    start = time.perf_counter()
    with open(path, "w") as file:
        file.writelines(
            "\t".join([*key, " ".join([str(number) for number in row.tolist()])]) + "\n"
            for row, *key in zip(embeddings, *names(len(embeddings)))
        )
    written = time.perf_counter()
    scores = looped_scores(path, form)
    return {"write": written - start, "score": time.perf_counter() - written}, np.array(scores)


def looped_scores(path: Path, form: str) -> list[float]:
    """Prototype scores from a text file: centroids by class and domain, or by domain alone in the code's form."""
    rows = []
    with open(path) as file:
        for line in file:
            label, domain, numbers = line.rstrip("\n").split("\t")
            rows.append((label if form == "paper" else "", domain, np.array([float(text) for text in numbers.split()])))
    sums: dict[tuple[str, str], Any] = defaultdict(float)  # become arrays with the first addition
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for label, domain, embedding in rows:
        sums[label, domain] = sums[label, domain] + embedding
        counts[label, domain] += 1
    own = {key: total / counts[key] for key, total in sums.items()}
    others = {key: [own[k] for k in own if k[0] == key[0] and k != key] for key in own}
    if form == "code":
        others = {key: [np.mean(centroids, axis=0)] for key, centroids in others.items()}
    scores = []
    for label, domain, embedding in rows:
        rest = [cosine(centroid, embedding) for centroid in others[label, domain]]
        scores.append(ALPHA * cosine(own[label, domain], embedding) + (1 - ALPHA) * sum(rest) / len(rest))
    return scores


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def peak_memory(rows: int, width: int, form: str, folder: str) -> dict[str, int]:
    """Peak resident bytes of this process before and after the vectorised version."""
    before = peak_memory_bytes()["resident"]
    vectorised(random_chunks(rows, width), (rows, width), form, Path(folder) / "peak.npy")
    return {"before": before, "after": peak_memory_bytes()["resident"]}


def encoder_seconds(model_name: str, rows: int) -> float:
    """Seconds for embedding as many short texts."""
    random = np.random.default_rng(42)
    words = np.array(["".join(random.choice(list("abcdeilmnorst"), size=5)) for _ in range(2000)])
    texts = [" ".join(random.choice(words, size=random.integers(WORDS // 3, WORDS + 1))) for _ in range(rows)]
    made = [Row(str(i), text, "", "", "") for i, text in enumerate(texts)]
    device = resolve_device("auto")
    model, tokenizer = load_encoder(model_name, texts)
    start = time.perf_counter()
    for _ in embed(made, model, tokenizer, 128, 64, resolve_precision("auto", device), device):
        pass
    return time.perf_counter() - start


def chunked(embeddings: np.ndarray) -> Iterator[np.ndarray]:
    return (embeddings[start : start + CHUNK] for start in range(0, len(embeddings), CHUNK))


def compare(arguments: argparse.Namespace, folder: Path) -> dict:
    """Run both versions alternately; medians of both parts and the total, and the ratios of totals."""
    embeddings = np.concatenate(list(random_chunks(arguments.rows, arguments.width)))
    ways: dict[str, Callable] = {
        "vectorised": lambda path: vectorised(chunked(embeddings), embeddings.shape, arguments.form, path),
        "decimal": lambda path: decimal(embeddings, arguments.form, path),
    }
    rounds: dict[str, list[Times]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        scores = []
        for name, way in ways.items():
            start = time.process_time()
            times, values = way(folder / FILES[name])
            rounds[name].append(times | {"both": sum(times.values()), "processor": time.process_time() - start})
            scores.append(values)
        first, second = scores
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-9)
    medians = {
        name: {part: statistics.median(times[part] for times in all_times) for part in all_times[0]}
        for name, all_times in rounds.items()
    }
    bytes_a_row = {name: (folder / file).stat().st_size / arguments.rows for name, file in FILES.items()}
    ratios = {kind: medians["decimal"][kind] / medians["vectorised"][kind] for kind in ("both", "processor")}
    return {"medians": medians, "ratios": ratios, "bytes a row": bytes_a_row, "rounds": rounds}


def describe(report: dict) -> str:
    seconds, medians, memory = report["encoder seconds"], report["medians"], report["peak memory"]
    lines = ["{rows} rows of {width} numbers, form {form}, {threads} threads".format(**report)]
    for name, times in medians.items():
        parts = "   ".join(f"{part} {time:8.2f} s" for part, time in times.items())
        lines.append(f"{name:10s}  {parts}   {report['bytes a row'][name]:8.0f} bytes a row")
    lines.append("ratio {both:.1f}, of processor time {processor:.1f}".format(**report["ratios"]))
    peak, libraries = (memory[when] / MEGABYTE for when in ("after", "before"))
    lines.append(f"peak memory of the vectorised way {peak:.0f} MB, of which {libraries:.0f} MB are libraries")
    if seconds is not None:
        whole = (seconds + medians["decimal"]["both"]) / (seconds + medians["vectorised"]["both"])
        lines.append(f"encoder {report['encoder']}, in both ways {seconds:.2f} s; ratio with it {whole:.1f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=384, help="numbers an embedding")
    parser.add_argument("--form", choices=PROTOTYPE_FORMS, default="code", help="of the prototype score; the authors' is code")
    parser.add_argument("--encoder", default="scratch:tiny", help="what is timed apart; empty: nothing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where to work; default: a temporary folder")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        # Before anything else: a spawned process inherits the peak memory of its parent.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
            memory = other.submit(peak_memory, arguments.rows, arguments.width, arguments.form, folder).result()
        comparison = compare(arguments, Path(folder))
    report = {
        "rows": arguments.rows, "width": arguments.width, "form": arguments.form, "threads": torch.get_num_threads(),
        **comparison, "peak memory": memory, "encoder": arguments.encoder,
        "encoder seconds": encoder_seconds(arguments.encoder, arguments.rows) if arguments.encoder else None,
    }  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))
    print(describe(report))


if __name__ == "__main__":
    main()
