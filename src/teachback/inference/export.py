"""Export of a student to ONNX in float32 and int8, both checked against PyTorch on dev."""

import copy
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from teachback.core.devices import torch_threads
from teachback.core.errors import TeachbackError
from teachback.core.files import write_atomically
from teachback.core.markdown import markdown_table
from teachback.core.options import option
from teachback.core.published import hash_model
from teachback.core.runs import StageRun
from teachback.core.tsv import as_tsv
from teachback.data.schema import Domain, Row, hash_rows
from teachback.data.suite_data import SuiteData, labelled
from teachback.inference.calibration import fit_temperature
from teachback.inference.metrics import as_numbers, by_domain, metric_for
from teachback.inference.onnx_model import OPSET, PACKAGES, OnnxClassifier, require_packages, write_int8, write_onnx
from teachback.inference.predictor import TIMED_ROWS, Predictor, open_checkpoint
from teachback.inference.results import format_table
from teachback.inference.scores import predicted_labels
from teachback.inference.timing import DISTURBED, ROUNDS, time_in_turn, usable_cores

SPLIT = "dev"
BATCH_SIZES = (1, 32)
TOLERANCE = 1e-3  # maximum difference of a float32 logit, relative to the largest logit
FULL, SMALL = "model.onnx", "model_int8.onnx"


@dataclass
class ExportArguments:
    """Arguments of the export: the student and the rows to check it on."""

    folder: str = option("", "The student's folder; the files are written to its subfolder onnx.")
    data_dir: str = "data"
    suite: str = ""


def timings() -> list[tuple[int, int]]:
    """Measured combinations of batch size and threads (one, and all)."""
    return [(size, threads) for threads in dict.fromkeys([1, usable_cores()]) for size in BATCH_SIZES]


def export(args: ExportArguments) -> Path:
    """Write, check and publish the ONNX files; returns their folder."""
    require_packages()
    checkpoint, domain = open_checkpoint(Path(args.folder))
    arguments = checkpoint.record["arguments"]
    data, rows = _rows(args, arguments.get("suite", ""), domain)
    length = arguments.get("max_length", 128)
    inputs = {"model": hash_model(args.folder), f"{SPLIT} rows": hash_rows(rows)}
    made_by = {name: version(name) for name in PACKAGES} | {"opset": OPSET, "outputs": "logits probabilities"}
    run = StageRun(Path(args.folder) / "onnx", "export", {"max_length": length} | made_by, inputs)
    if run.up_to_date():
        print(f"{run.folder} is up to date")
        return run.folder
    predictor = Predictor(checkpoint, data.suite, "cpu", "fp32", length, max(BATCH_SIZES))
    with run.publishing({"domain": domain.name, "suite": data.suite.name}) as folder:
        model, temperature = predictor.classifier.model, _temperature(predictor, rows, data.suite.domain(domain.name))
        write_onnx(folder / FULL, model, {"attention_mask", *predictor.tokenizer.model_input_names}, temperature)
        write_int8(folder / SMALL, folder / FULL)
        model.config.save_pretrained(folder)
        predictor.tokenizer.save_pretrained(folder)
        lines, disturbed = check(predictor, folder, rows, data)
        times = [f"ms, batch {size}, {threads} thread{'s' if threads > 1 else ''}" for size, threads in timings()]
        header = ["version", "MB", "largest logit difference", f"{metric_for(data.suite.domain(domain.name))} %", *times]
        notes = _notes(len(rows), disturbed, temperature)
        write_checks(folder, header, lines, notes)
    print(f"{format_table(header, lines)}\n\n{notes}\nwrote {run.folder}")
    return run.folder


def _rows(args: ExportArguments, suite: str, domain: Domain) -> tuple[SuiteData, list[Row]]:
    """Load the suite and its labelled dev rows of the student's domain."""
    name = args.suite or suite
    if not name:
        raise TeachbackError(f"{args.folder} does not record its suite; name it with --suite")
    data = SuiteData.read(args.data_dir, name, domain.name)
    rows = labelled(data.rows(SPLIT))
    if not rows:
        raise TeachbackError(f"{data.folder / SPLIT}.tsv has no labelled rows of {domain.name} to check the files on")
    return data, rows


def _temperature(predictor: Predictor, rows: list[Row], domain: Domain) -> float | None:
    """Temperature of the graph's probabilities, fitted on the rows; None if a single pass does not give all logits of a row."""
    if domain.task == "regression" or domain.kind == "choices":
        return None
    logits = predictor.predict(rows)[:, : len(domain.labels)]
    return fit_temperature(logits.double().numpy(), as_numbers(domain, [row.label for row in rows]))


def check(predictor: Predictor, folder: Path, rows: list[Row], data: SuiteData) -> tuple[list[list[str]], bool]:
    """Compare PyTorch and both files, in this order, on rows of one domain.

    Returns:
        The cells of each version: name, size, largest logit difference from PyTorch, score and times in the order of
        `timings`; and whether other load disturbed a time.

    Raises:
        TeachbackError: the float32 file's logits differ from PyTorch's by more than `TOLERANCE`.
    """
    encoded, domain = predictor.encode(rows), data.suite.domain(rows[0].domain)
    files, threads = {"ONNX": folder / FULL, "ONNX, int8": folder / SMALL}, {number for _, number in timings()}
    forms = {"PyTorch": dict.fromkeys(threads, predictor)}
    forms |= {name: {n: with_onnx(predictor, path, domain, n) for n in threads} for name, path in files.items()}
    logits = {name: form[1].logits(encoded) for name, form in forms.items()}
    differences = {name: (one - logits["PyTorch"]).abs().max().item() for name, one in logits.items()}
    if not differences["ONNX"] <= TOLERANCE * max(1.0, logits["PyTorch"].abs().max().item()):
        raise TeachbackError(
            f"the ONNX file's logits differ from the student's by up to {differences['ONNX']:.2g}, so nothing was written: this "
            f"architecture cannot be exported with torch {version('torch')} and transformers {version('transformers')}"
        )
    weights = 4 * sum(parameter.numel() for parameter in predictor.classifier.model.parameters())
    sizes = {"PyTorch": weights} | {name: path.stat().st_size for name, path in files.items()}
    taken = time_in_turn({
        (name, size, n): torch_threads(n)(form[n].timed_pass(encoded, size)) for name, form in forms.items() for size, n in timings()
    })  # fmt: skip
    lines = []
    for name in forms:
        (score,) = by_domain(data.suite, rows, predicted_labels(logits[name], rows, data)).values()
        times = (str(taken[name, *key]) for key in timings())
        lines.append([name, f"{sizes[name] / 1e6:.1f}", f"{differences[name]:.2g}", f"{100 * score.value:.2f}", *times])
    return lines, any(timing.disturbed for timing in taken.values())


def with_onnx(predictor: Predictor, path: Path, domain: Domain, threads: int) -> Predictor:
    """Copy of the predictor that runs ONNX Runtime in place of PyTorch."""
    other = copy.copy(predictor)
    other.answering = OnnxClassifier(path, domain, threads)
    return other


def _notes(count: int, disturbed: bool, temperature: float | None) -> str:
    warning = f" {DISTURBED}: other processes used the machine meanwhile; use the minimum, or export again when it is idle."
    scaled = f" The output named probabilities is softmax(logits / {temperature:g})." if temperature else ""
    return (
        f"On {count:,} labelled {SPLIT} rows. ms: time per example without tokenising, on {platform.machine()} with "
        f"{usable_cores()} cores: {TIMED_ROWS} rows of all lengths, or one batch if that is more; the median, and in "
        f"brackets the minimum, of at least {ROUNDS} passes, alternating between the versions.{warning * disturbed}{scaled}"
    )


def write_checks(folder: Path, header: list[str], rows: list[list[str]], notes: str) -> None:
    """Write the table as TSV and as Markdown."""
    write_atomically(folder / "checks.tsv", as_tsv(header, rows))
    write_atomically(folder / "checks.md", f"{markdown_table(header, rows)}\n\n{notes}\n")
