"""Invalid and unusual data, models and settings, passed to the stages' commands: errors, warnings, and accepted input.

Each case is a command on input that a user could have, and the message expected of it. Only the last tests train.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from commands import Finished, command
from safetensors.torch import load_file, save_file
from tiny_suite import write_tiny_suite
from tokenizers import Tokenizer

from teachback.core import runs
from teachback.core.errors import TeachbackError
from teachback.data.schema import read_rows, read_suite
from teachback.methods import class_weights, teacher
from teachback.stages import stage2_scores as scores
from teachback.training.loss_watch import LossWatch, Step
from teachback.training.trainer import DistillationTrainer

HEADER = b"text_a\tlabel\tdomain\n"
STAND_IN = "scratch:tiny"  # an embedding model that the fixture `workspace` replaces by random vectors
MANY = 12  # rows per domain and label


def rows(pairs: str = "a:x a:y b:x b:y", count: int = MANY, word: str = "text") -> bytes:
    """TSV lines: ``count`` rows for each "domain:label" of ``pairs``."""
    named = [pair.split(":") for pair in pairs.split()]
    return b"".join(f"{word} {i} {d} {label}\t{label}\t{d}\n".encode() for d, label in named for i in range(count))


GOOD = HEADER + rows()
TEST = HEADER + rows(count=2, word="other")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Folder with a processed suite ``tiny``, a model, and a finished two-layer teacher and student; `workspace` copies it."""
    root = tmp_path_factory.mktemp("home")
    write_tiny_suite(root / "data")
    tiny.classifier().save_pretrained(root / "model")
    tiny.tokenizer().save_pretrained(root / "model")
    run = root / "outputs/tiny/seed42"
    finished = tiny.tiny_teacher(domains=(tiny.BOOKS, tiny.DVD))
    finished.save(run / "teacher-meta", tiny.tokenizer())
    _write_stage_json(run / "teacher-meta", {"teacher": "meta", "trained_domains": ["books", "dvd"]}, transferable=True)
    shutil.copytree(root / "model", run / "books/student_first")
    _write_stage_json(run / "books/student_first", {"teacher": "meta"})
    return root


def _write_stage_json(folder: Path, arguments: dict, **record) -> None:
    (folder / "stage.json").write_text(json.dumps({"arguments": arguments, "inputs": {}, "fingerprint": "", **record}))


def published(root: Path) -> list[Path]:
    """Output folders that a command has finished below ``root``; those of `home` have no fingerprint."""
    finished = [path.parent for path in root.rglob("stage.json") if re.search(r'"fingerprint": "\w', path.read_text())]
    return [*finished, *root.rglob("results.tsv")]


@pytest.fixture
def workspace(home, tmp_path, monkeypatch) -> SimpleNamespace:
    """Copy of `home` that a test may damage; stage 2 runs without its encoder and figure, which bad rows never reach."""
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)

    really = scores._write_embeddings

    def embeddings(path, train, arguments):
        if arguments.embedding_model != STAND_IN:
            really(path, train, arguments)
        np.save(path, np.random.default_rng(0).normal(size=(len(train), 4)).astype(np.float32))

    monkeypatch.setattr(scores, "_write_embeddings", embeddings)
    monkeypatch.setattr(scores, "plot_scores", lambda *arguments: None)
    monkeypatch.setattr(runs, "sync", lambda folder: None)
    return SimpleNamespace(root=tmp_path, data=tmp_path / "data")


def process(data: Path, *flags: str, suite: str = "custom") -> Finished:
    common_flags = ("--embedding_model", STAND_IN, "--device", "cpu", "--precision", "fp32")
    return command("process_data.py", "--suite", suite, "--data_dir", data, *common_flags, *flags)


def custom(*flags: str, **files: bytes) -> Callable[..., Finished]:
    """Command of stage 2 on a user's TSV files, given as name=content; a single file ``mine`` is divided into splits."""

    def run(workspace) -> Finished:
        folder = workspace.data / "raw/custom"
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / f"{name}.tsv").write_bytes(content)
        return process(workspace.data, *flags)

    return run


def mine(line: bytes | str, *flags: str) -> Callable[..., Finished]:
    """Command of stage 2 on valid rows followed by ``line``, which is line 50 of mine.tsv."""
    return custom(*flags, mine=GOOD + (line.encode() if isinstance(line, str) else line) + b"\n")


def raw(suite: str, domain: str, files: dict[str, bytes], *flags: str) -> Callable[..., Finished]:
    """Command of stage 2 on ``files``, written as the unpacked archives of a suite."""

    def run(workspace) -> Finished:
        for name, content in files.items():
            path = workspace.data / "raw" / suite / "content" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return process(workspace.data, "--domains", domain, *flags, suite=suite)

    return run


def sts(score: str) -> Callable[..., Finished]:
    head = b"index\tsentence1\tsentence2\tscore\n"
    lines = b"".join(f"{i}\ta {i}\tb\t{i / 8}\n".encode() for i in range(40))
    return raw(
        "glue",
        "STS-B",
        {"STS-B/STS-B/train.tsv": head + lines + f"40\ta\tb\t{score}\n".encode(), "STS-B/STS-B/dev.tsv": head + lines},
    )


def wic(line: bytes) -> Callable[..., Finished]:
    offsets = b'"start1": 2, "end1": 5, "start2": 3, "end2": 6'
    good = b'{"sentence1": "a bad day", "sentence2": "so bad", ' + offsets + b', "label": true, "idx": 0}\n'
    return raw("superglue", "WiC", {"WiC/WiC/train.jsonl": good + line + b"\n", "WiC/WiC/val.jsonl": good})


def reviews(*texts: bytes) -> Callable[..., Finished]:
    folder = "domain_sentiment_data/sorted_data_acl/"
    content = b"".join(b"<review>\n<review_text>\n" + text + b"\n</review>\n" for text in texts)
    names = ("books", "dvd", "electronics", "kitchen_&_housewares")
    return raw(
        "amazon", "", {f"{folder}{name}/{part}.review": content for name in names for part in ("positive", "negative")}
    )


def common_flags(workspace) -> list:
    return [
        "--suite",
        "tiny",
        "--data_dir",
        workspace.data,
        "--output_root",
        workspace.root / "outputs",
        "--device",
        "cpu",
        "--precision",
        "fp32",
    ]


def teach(*flags: str, spoil: Callable | None = None, model: str = "") -> Callable[..., Finished]:
    """Command of stage 3, run after ``spoil(data folder, model folder)``."""

    def run(workspace) -> Finished:
        if spoil:
            spoil(workspace.data / "tiny", workspace.root / "model")
        shutil.rmtree(workspace.root / "outputs")
        return command("train_teacher.py", *common_flags(workspace), "--teacher_model", model or workspace.root / "model", *flags)

    return run


def distil(stage: str, *flags: str, spoil: Callable | None = None) -> Callable[..., Finished]:
    """Command of stage 4 or 5 with the finished teacher, run after ``spoil(run folder, model folder)``."""

    def run(workspace) -> Finished:
        if spoil:
            spoil(workspace.root / "outputs/tiny/seed42", workspace.root / "model")
        return command(
            "distill_student.py", "--stage", stage, *common_flags(workspace), "--student_model", workspace.root / "model", *flags
        )

    return run


def edited(name: str, before: str | bytes, after: str | bytes) -> Callable[..., None]:
    """Replace the first occurrence of ``before`` in a file of the data or run folder."""

    def spoil(folder: Path, model: Path) -> None:
        before_, after_ = (part.encode() if isinstance(part, str) else part for part in (before, after))
        content = (folder / name).read_bytes()
        assert before_ in content
        (folder / name).write_bytes(content.replace(before_, after_, 1))

    return spoil


def edited_suite_json(change: Callable[[dict], object]) -> Callable[..., None]:
    """Apply ``change`` to the content of suite.json."""

    def spoil(folder: Path, model: Path) -> None:
        content = json.loads((folder / "suite.json").read_text())
        changed = change(content)
        (folder / "suite.json").write_text(json.dumps(content if changed is None else changed))

    return spoil


def weights(change: Callable[[dict], object]) -> Callable[..., None]:
    """Apply ``change`` to the weights in the model folder."""

    def spoil(folder: Path, model: Path) -> None:
        values = load_file(model / "model.safetensors")
        change(values)
        save_file(values, model / "model.safetensors", {"format": "pt"})

    return spoil


def cut_off(name: str) -> Callable[..., None]:
    """Truncate a file to half its size, in the data or run folder if it is there, else in the model folder."""

    def spoil(folder: Path, model: Path) -> None:
        path = next(path for path in (folder / name, model / name) if path.is_file())
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return spoil


def without(*names: str) -> Callable[..., None]:
    def spoil(folder: Path, model: Path) -> None:
        for name in names:
            next(path for path in (folder / name, model / name) if path.is_file()).unlink()

    return spoil


def pickled(folder: Path, model: Path) -> None:
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()


def reversed_vocabulary(folder: Path, model: Path) -> None:
    """Reverse the token ids; the size of the vocabulary stays the same."""
    content = json.loads((model / "tokenizer.json").read_text())
    words = content["model"]["vocab"]
    content["model"]["vocab"] = dict(zip(words, reversed(words.values())))
    Tokenizer.from_str(json.dumps(content)).save(str(model / "tokenizer.json"))


def enlarged_vocabulary(folder: Path, model: Path) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens([f"more{i}" for i in range(tiny.VOCABULARY)])
    tokenizer.save_pretrained(model)


def long_text(folder: Path, model: Path) -> None:
    edited("train.tsv", "books-0\t", "books-0\t" + "good bad " * 100)(folder, model)


def without_teacher(folder: Path, model: Path) -> None:
    shutil.rmtree(folder / "teacher-meta")


def teacher_with_nan(folder: Path, model: Path) -> None:
    weights(lambda values: values["bert.pooler.dense.bias"].fill_(torch.nan))(folder, folder / "teacher-meta")


def empty_quiz(folder: Path, model: Path) -> None:
    (folder.parents[2] / "data/tiny/quiz.tsv").write_text("guid\ttext_a\ttext_b\tlabel\tdomain\n")


def encoder_without_a_weight(workspace) -> Finished:
    tiny.classifier().bert.save_pretrained(workspace.root / "model")
    weights(lambda values: values.pop("encoder.layer.0.output.dense.weight"))(workspace.root, workspace.root / "model")
    return mine("text\tx\ta", "--embedding_model", str(workspace.root / "model"))(workspace)


def books(change: dict) -> Callable[..., None]:
    return edited_suite_json(lambda content: content["domains"]["books"].update(change))


BAD_ROW = "mine.tsv line 50: "
# id: (command, regular expression of its error message)
REFUSED = {
    # Users' own files
    "comma for a delimiter": (
        custom(mine=GOOD.replace(b"\t", b",")),
        "line 1: .*separated by commas; rename the file to .csv, or separate them by tabs",
    ),
    "semicolon for a delimiter": (custom(mine=GOOD.replace(b"\t", b";")), "line 1: .*separated by semicolons"),
    "quoted header": (custom(mine=b'"text_a","label","domain"\n"a","x","d"\n'), "line 1: .*by commas.*without quotes"),
    "missing column": (custom(mine=b"text_a\tdomain\na\td\n"), "line 1: .*missing: 'label'"),
    "unknown column": (
        custom(mine=b"text_a\tlabel\tdomain\tlable\n"),
        "line 1: .*optional: domain, guid, text_b, split; unknown: 'lable'",
    ),
    "duplicate column": (custom(mine=b"text_a\tlabel\tdomain\tlabel\n"), "line 1: .*name each of these columns once"),
    "column of weights": (custom(mine=b"text_a\tlabel\tdomain\tweight\nq\tx\ta\tnan\n"), "line 1: .*'weight'"),
    "tab inside a field": (mine("one\ttwo\tx\ta"), BAD_ROW + "4 columns, expected 3"),
    "too few fields": (mine("text\tx"), BAD_ROW + "2 columns, expected 3"),
    "line break inside a field": (mine('"one\ntwo"\tx\ta'), BAD_ROW + "1 columns, expected 3"),
    "empty line": (mine(""), BAD_ROW + "empty line"),
    "carriage returns alone": (
        custom(mine=GOOD.replace(b"\n", b"\r")),
        "line 1: .*carriage returns only; save it with line feeds",
    ),
    "NUL byte": (mine(b"a\x00b\tx\ta"), BAD_ROW + "control bytes"),
    "control byte": (mine(b"a\x1b[31mb\tx\ta"), BAD_ROW + "control bytes"),
    "Latin-1": (mine("caf\xe9\tx\ta".encode("latin-1")), BAD_ROW + "not UTF-8"),
    "UTF-16": (custom(mine=GOOD.decode().encode("utf-16")), "line 1: the header is not UTF-8; save the file as UTF-8"),
    "half a surrogate pair": (mine(b"a \xed\xa0\x80\tx\ta"), BAD_ROW + "not UTF-8"),
    "empty file": (custom(mine=b""), "mine.tsv line 1: there is no header"),
    "header only": (custom(mine=HEADER), "mine.tsv: there is a header but no rows"),
    "test with a header only": (
        custom(train=GOOD, test=HEADER), "test.tsv: there is a header but no rows; add rows, or remove the file, so that test is cut from train"
    ),
    "no file": (custom(), "has no train file .train.tsv, train.csv, .*no files to split"),
    "a dev file and no train": (custom(dev=GOOD), "has no train file"),
    "empty text": (mine(" \tx\ta"), BAD_ROW + "empty text"),
    "text that cannot be seen": (mine("\u200b\u200d\ufeff\tx\ta"), BAD_ROW + "empty text"),
    "empty label": (mine("text\t\ta"), BAD_ROW + "empty label"),
    "label of a text's length": (
        mine(f"text\t{'x' * 5000}\ta"),
        BAD_ROW + "the label has 5000 characters; are the columns swapped",
    ),
    "dev label unknown to train": (
        custom(train=GOOD, dev=HEADER + b"q\tz\ta\n", test=TEST),
        "dev.tsv line 2: unknown label 'z'; known: x, y",
    ),
    "test domain unknown to train": (
        custom(train=GOOD, test=HEADER + b"q\tx\tnew\n"),
        "test.tsv line 2: unknown domain 'new'; known: a, b",
    ),
    "one class in all": (custom(mine=HEADER + rows("a:x")), "a has only the label x, so there is nothing to classify"),
    "duplicate guids": (
        custom(mine=b"guid\t" + HEADER + b"1\tq\tx\ta\n1\tr\ty\ta\n"),
        "mine.tsv line 3: duplicate guid '1'",
    ),
    "unknown split": (custom(mine=b"split\t" + HEADER + b"later\tq\tx\ta\n"), "mine.tsv line 2: unknown split 'later'"),
    "domain without a name": (mine("text\tx\t"), BAD_ROW + "empty domain"),
    "domain with a blank": (mine("text\tx\ta b"), BAD_ROW + "domain 'a b' contains a blank"),
    "domain with a comma": (mine("text\tx\ta,b"), BAD_ROW + "domain 'a,b' contains a blank, a comma"),
    "domain called all": (mine("text\tx\tall"), BAD_ROW + "domain 'all' would be read"),
    "domain like a flag": (mine("text\tx\t--seed"), BAD_ROW + "domain '--seed' would be read as a flag"),
    "domain of 400 characters": (mine(f"text\tx\t{'d' * 400}"), BAD_ROW + "domain 'd+'... has 400 characters"),
    "many bad rows": (custom(mine=GOOD + b"one\n" * 30), "30 bad rows:.*and 10 more"),
    "every row bad, and skipped": (
        custom("--skip_bad_rows", "1", mine=HEADER + b"one\n"),
        "no train rows for: any domain",
    ),
    # Downloaded suites
    "score that is no number": (sts("high"), "train.tsv line 42: label 'high' is not a finite number"),
    "score NaN": (sts("nan"), "train.tsv line 42: label 'nan' is not a finite number"),
    "score infinite": (sts("-inf"), "train.tsv line 42: label '-inf' is not a finite number"),
    "score out of range": (sts("7.5"), "train.tsv line 42: score '7.5' is not between 0 and 5"),
    "not JSON": (wic(b'{"sentence1": '), "train.jsonl line 2: not JSON"),
    "no JSON object": (wic(b"[1, 2]"), "train.jsonl line 2: not a JSON object"),
    "JSON nested too deep": (wic(b"[" * 100_000), "train.jsonl line 2: not JSON"),
    "half a pair in JSON": (wic(b'{"sentence1": "a \\ud800"}'), "train.jsonl line 2: half a surrogate pair"),
    "field of another type": (wic(b'{"sentence1": 3}'), "train.jsonl line 2: sentence1 is missing or not a text"),
    "word beyond the text": (
        wic(b'{"sentence1": "a", "sentence2": "b", "start1": 7, "end1": 9, "start2": 0, "end2": 1, "idx": 1}'),
        "train.jsonl line 2: ",
    ),
    "review that is not closed": (reviews(b"good"), "positive.review line 1: review without a closed <review_text>"),
    "too few reviews to divide": (
        reviews(b"good\n</review_text>"),
        "there are only 4 rows of positive and 4 rows of negative",
    ),
    # Processed files that were changed by hand
    "weight NaN": (
        teach(spoil=edited("train.tsv", "weight\n", "weight\nx\tgood\t\tpositive\tbooks\tnan\n")),
        "train.tsv line 2: weight 'nan' is not a number from -1 to 1",
    ),
    "weight infinite": (
        teach(spoil=edited("train.tsv", "weight\n", "weight\nx\tgood\t\tpositive\tbooks\tinf\n")),
        "line 2: weight 'inf'",
    ),
    "weight out of range": (
        teach(spoil=edited("train.tsv", "weight\n", "weight\nx\tgood\t\tpositive\tbooks\t7\n")),
        "line 2: weight '7'",
    ),
    "processed label unknown": (
        teach(spoil=edited("dev.tsv", "\tnegative\t", "\tNegative\t")),
        "dev.tsv line 2: unknown label 'Negative'; known: negative, positive",
    ),
    "processed domain unknown": (
        teach(spoil=edited("train.tsv", "\tdvd\t", "\tvideo\t")),
        "train.tsv line 26: unknown domain 'video'",
    ),
    "processed file in Latin-1": (
        teach(spoil=edited("train.tsv", b"books-0\t", b"books-0\xe9\t")),
        "train.tsv line 2: not UTF-8",
    ),
    "processed file without a column": (
        teach(spoil=edited("train.tsv", "\tweight", "")),
        "train.tsv line 2: 6 columns, expected 5",
    ),
    "processed file cut off": (teach(spoil=cut_off("dev.tsv")), "dev.tsv line 9: . columns, expected 5"),
    "processed file gone": (teach(spoil=without("dev.tsv")), "dev.tsv does not exist; run 2_process_data.sh"),
    "no rows to select on": (
        teach(spoil=lambda data, model: (data / "dev.tsv").write_text("guid\ttext_a\ttext_b\tlabel\tdomain\n")),
        "dev.tsv has no labelled rows of books, dvd, on which checkpoints are selected; run stage 2 with more rows",
    ),
    "suite.json gone": (teach(spoil=without("suite.json")), "suite.json does not exist; run 2_process_data.sh"),
    "suite.json cut off": (teach(spoil=cut_off("suite.json")), "suite.json is not a suite description"),
    "suite.json a list": (teach(spoil=edited_suite_json(lambda content: [content])), "suite.json is not a suite description"),
    "suite.json without heads": (teach(spoil=books({"head": None})), "'books': head is None"),
    "suite.json of one label": (teach(spoil=books({"labels": ["positive"]})), "'books': labels is ..positive"),
    "suite.json with other labels of a head": (
        teach(spoil=books({"labels": ["x", "y"]})),
        "'books' and 'dvd' share a head, but not labels",
    ),
    # Models
    "model folder without tokenizer": (
        teach(spoil=without("tokenizer.json", "tokenizer_config.json")),
        "model '.*model' has no vocabulary; put its tokenizer.json",
    ),
    "tokenizer cut off": (teach(spoil=cut_off("tokenizer.json")), "cannot load model '.*model'"),
    "another vocabulary size": (teach(spoil=enlarged_vocabulary), "embeds 60 tokens, but its tokenizer has 80"),
    "missing keys": (
        teach(spoil=weights(lambda w: w.pop("bert.encoder.layer.1.output.dense.weight"))),
        "lacks 1 weights of its encoder, such as 'bert.encoder.layer.1.output.dense.weight'",
    ),
    "safetensors cut off": (teach(spoil=cut_off("model.safetensors")), "cannot load model '.*model'"),
    "safetensors with NaN": (
        teach(spoil=weights(lambda w: w["bert.pooler.dense.bias"].fill_(torch.nan))),
        "model '.*': the weight 'bert.pooler.dense.bias' contains NaN",
    ),
    "pickle in place of safetensors": (teach(spoil=pickled), "model '.*model' has only pickled weights.*MODELS=1"),
    "config cut off": (teach(spoil=cut_off("config.json")), "cannot load model '.*model'"),
    "hub unreachable": (
        teach(model="nobody/no-such-model"),
        "cannot load model 'nobody/no-such-model': .*MODELS=1 bash 1_get_data.sh",
    ),
    "model folder that is not there": (
        teach(model="./no/such/model"),
        "model './no/such/model': there is no such folder .relative paths start from /",
    ),
    "unknown size from scratch": (teach(model="scratch:huge"), "models from scratch are: scratch:tiny, scratch:mini"),
    "encoder of the scores without a weight": (
        encoder_without_a_weight,
        "lacks 1 weights of its encoder, such as 'encoder.layer.0.output.dense.weight'",
    ),
    "teacher that is not there": (
        distil("first", spoil=without_teacher),
        "no finished stage at .*teacher-meta; first run: TEACHER=meta bash 3_train_teacher.sh",
    ),
    "teacher whose own weights are cut off": (
        distil("first", spoil=cut_off("teacher-meta/training_only.safetensors")),
        "teacher-meta: the teacher is incomplete or damaged",
    ),
    "teacher with weights of NaN": (
        distil("first", spoil=teacher_with_nan),
        "teacher-meta'?: the weight '.*bias' contains NaN",
    ),
    "stage.json cut off": (
        distil("first", spoil=cut_off("teacher-meta/stage.json")),
        "stage.json is not a valid description of a stage",
    ),
    "other tokens than the teacher's": (
        distil("first", spoil=reversed_vocabulary),
        "teacher and student have different tokenizers",
    ),
    # Settings
    "more layers than there are": (distil("first", "--student_layers", "9"), "STUDENT_LAYERS.*the model has 2"),
    "layers that are no numbers": (
        distil("first", "--student_layers", "many"),
        "STUDENT_LAYERS=many: expected numbers",
    ),
    "more layers in the map": (
        distil("first", "--layer_map", "1,2,3"),
        "LAYER_MAP=1,2,3: set one teacher layer from 1 to 2 for each of the 2",
    ),
    "cut of the teacher without a count": (
        distil("first", "--student_init", "teacher"),
        "STUDENT_INIT=teacher needs STUDENT_LAYERS",
    ),
    "several teachers and inner states": (
        distil("second", "--teacher", "multi", "--beta_pkd", "1"),
        "TEACHER=multi and TEACHER_SEEDS give averaged predictions",
    ),
    "quiz of a suite that has none": (
        distil("second", "--method", "mpdistil", spoil=empty_quiz),
        "quiz.tsv has no rows of books",
    ),
    "texts longer than the model reads": (
        teach("--max_length", "400", spoil=long_text),
        "a text has 2.. tokens, but BertForSequenceClassification reads at most 160; set MAX_LENGTH=160",
    ),
    "MAX_LENGTH of 2": (teach("--max_length", "2"), "MAX_LENGTH=2: must be a number of at least 4"),
    "batches of no rows": (teach("--per_device_train_batch_size", "0"), "PER_DEVICE_TRAIN_BATCH_SIZE=0"),
    "learning rate NaN": (teach("--learning_rate", "nan"), "LEARNING_RATE=nan: must be a number above 0"),
    "no epochs": (teach("--num_train_epochs", "0"), "NUM_TRAIN_EPOCHS=0.0: must be a number above 0"),
    "seed below 0": (teach("--seed", "-1"), "SEED=-1: must be from 0 to 4294967295"),
    "scheduler that is none": (
        teach("--lr_scheduler_type", "wobbly"),
        "LR_SCHEDULER_TYPE=wobbly is unknown; use one of: linear, ",
    ),
    "seed that is no number": (teach("--seed", "many"), "argument --seed: invalid int value: 'many' "),
    "unknown flag": (teach("--lerning_rate", "1"), "unknown arguments: --lerning_rate 1"),
    "domain that is not there": (
        teach("--teacher", "single", "--domain", "toys"),
        "DOMAIN=toys is not among the domains of this run: books, dvd",
    ),
    "domains that are not there": (teach("--domains", "books toys"), "suite 'tiny' has no domain 'toys'"),
    "one domain and the domain loss": (teach("--domains", "books"), "the domain loss needs at least two domains"),
    "temperature 0": (distil("second", "--temperature", "0"), "TEMPERATURE=0.0: must be a number above 0"),
    "alpha NaN": (mine("text\tx\ta", "--alpha", "nan"), "ALPHA=nan: must be between 0 and 1"),
    "quiz of more than all": (
        mine("text\tx\ta", "--quiz_fraction", "1.5"),
        "QUIZ_FRACTION=1.5: must be at least 0 and below 1",
    ),
    "suite that is none": (
        lambda workspace: process(workspace.data, suite="amazom"),
        "sample, amazon, mnli, superglue, glue, custom",
    ),
    "metric that is none": (
        lambda workspace: command("evaluate.py", *common_flags(workspace), "--metric", "sharpness"),
        "unknown metric 'sharpness'",
    ),
    "split that is none": (
        lambda workspace: command("evaluate.py", *common_flags(workspace), "--split", "exam"),
        "SPLIT=exam is unknown; use one of: train, quiz, dev, test",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_input_is_refused_with_reason_and_location(case, workspace):
    call, message = REFUSED[case]
    done = call(workspace)
    assert done.status == 1 and done.error.startswith("error: "), done
    assert re.search(message, done.error, re.DOTALL), done.error
    assert "Traceback" not in done.error and not published(workspace.root)


# id: (command, regular expression of its warning; "" for no warning)
ACCEPTED = {
    "labels that differ in case": (mine("text\tX\ta"), "the labels 'X', 'x' differ only in case or blanks"),
    "labels that differ in blanks": (
        custom(mine=HEADER + rows("a:x_y a:z") + b"text\tx y\ta\n"),
        "the labels 'x y', 'x_y' differ only in case or blanks",
    ),
    "labels that differ in Unicode form": (
        mine("text\tcaf\u00e9\ta\ntext\tcafe\u0301\ta"),
        r"the labels 'cafe\\u0301', 'caf\\xe9' differ only in the Unicode form of a character",
    ),
    "domains that differ in case": (mine("text\tx\tA"), "the domains 'a', 'A' differ only in case or blanks"),
    "labels that are measurements": (
        custom(mine=HEADER + b"".join(f"text {i}\t{i * 1.5}\ta\n".encode() for i in range(20))),
        "the labels of a are fractional numbers",
    ),
    "one-class domain": (mine("text\tx\tc\nother\tx\tc"), "all train rows of c have the same label"),
    "one-row domain": (mine("text\tx\tc"), "no dev rows of c;"),
    "domain absent from dev": (
        custom(train=GOOD, dev=HEADER + rows("a:x a:y", 2, "some"), test=TEST),
        "no dev rows of b; no checkpoint is selected on such a domain",
    ),
    "quiz too small to stratify": (custom(mine=HEADER + rows(count=3)), "no quiz rows of a, b; stage 6 leaves"),
    "same text in train and test": (
        custom(train=GOOD, dev=TEST, test=HEADER + rows("a:x", 3)),
        "3 train rows have the same texts as test rows; DEDUPLICATE=1",
    ),
    "same text in train and test, left out": (
        custom("--deduplicate", "1", "--quiz_fraction", "0", train=GOOD, dev=TEST, test=HEADER + rows("a:x", 3)),
        "3 train rows left out, as their texts are in test",
    ),
    "bad rows, skipped": (mine("one", "--skip_bad_rows", "1"), "SKIP_BAD_ROWS=1 drops 1 bad row:.*line 50"),
    "byte order mark": (custom(mine=b"\xef\xbb\xbf" + GOOD), ""),
    "carriage returns and line feeds": (custom(mine=GOOD.replace(b"\n", b"\r\n")), ""),
    "unbalanced quotes": (mine('"never closed\tx\ta'), ""),
    "blanks around a label": (mine("text\t x \ta"), ""),
    "right-to-left text and emoji": (mine("\u05e9\u05dc\u05d5\u05dd \u202e\U0001f468\u200d\U0001f4bb\tx\ta"), ""),
    "text of a megabyte": (mine(f"{'word ' * 200_000}\tx\ta"), ""),
    "word of a megabyte": (mine(f"{'w' * 1_000_000}\tx\ta"), ""),
    "no line break at the end": (custom(mine=GOOD.removesuffix(b"\n")), ""),
    "1,000 domains": (
        custom(mine=HEADER + b"".join(f"text {d} {label}\t{label}\td{d}\n".encode() for d in range(1000) for label in "xy")),
        "no dev rows of d0, d1, .* and 990 more",
    ),
    "200 labels": (custom(mine=HEADER + rows(" ".join(f"a:l{i}" for i in range(200)))), ""),
    "every character in a domain's name": (
        mine("text\tx\t../\u00fc$(x)`'\"\\&<b>%\nother\ty\t../\u00fc$(x)`'\"\\&<b>%"),
        "",
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_unusual_input_is_accepted_with_the_expected_warning_or_none(case, workspace, caplog):
    call, warning = ACCEPTED[case]
    done = call(workspace)
    assert done.status == 0, done.error
    assert re.search(warning, done.output + caplog.text, re.DOTALL), done.output + caplog.text
    assert warning or not [text for text in caplog.messages if " rows of " not in text]
    suite = read_suite(workspace.data / "custom")
    written = {split: read_rows(workspace.data / f"custom/{split}.tsv") for split in ("train", "quiz", "dev", "test")}
    assert {name: len(part) for name, part in written.items()} == {
        split: sum(domain.rows[split] for domain in suite.domains.values()) for split in written
    }


def test_texts_with_special_characters_are_kept_unchanged(workspace):
    texts = [
        '"never closed',
        "it's",
        "a\\tb",
        "\u05e9\u05dc\u05d5\u05dd \u202e",
        "\U0001f468\u200d\U0001f4bb",
        "=1+1",
        "w" * 100_000,
    ]
    lines = "".join(f"{text}\tx\ta\n" for text in texts)
    assert custom("--quiz_fraction", "0", train=GOOD + lines.encode(), dev=TEST, test=TEST)(workspace).status == 0
    assert [row.text_a for row in read_rows(workspace.data / "custom/train.tsv")][-len(texts) :] == texts


def test_deduplicate_drops_only_train_rows_whose_texts_are_in_dev_or_test(workspace):
    flags = ("--deduplicate", "1", "--quiz_fraction", "0")
    assert custom(*flags, train=GOOD, dev=HEADER + rows("b:y", 2), test=HEADER + rows("a:x", 3))(workspace).status == 0
    left = {row.text_a for row in read_rows(workspace.data / "custom/train.tsv")}
    everything = {line.split("\t")[0] for line in GOOD.decode().splitlines()[1:]}
    assert everything - left == {*(f"text {i} a x" for i in range(3)), *(f"text {i} b y" for i in range(2))}
    notes = read_suite(workspace.data / "custom").settings["notes"]
    assert notes == {
        "train rows left out, as their texts are in test": 3,
        "train rows left out, as their texts are in dev": 2,
    }


def trained(workspace, *flags: str) -> Finished:
    more = ("--teacher_model", workspace.root / "model", "--num_train_epochs", "1", "--per_device_train_batch_size", "8")
    return command("train_teacher.py", *common_flags(workspace), *more, "--max_length", "16", *flags)


def test_nan_loss_stops_training_names_the_rows_and_keeps_older_checkpoints(workspace, monkeypatch):
    really, calls, seen = class_weights.hard_label_loss, [], []

    def loss(*given):
        calls.append(1)
        return really(*given) * (torch.nan if len(calls) == 4 else 1)

    def forward(self, **batch):
        seen.append(batch["index"].tolist())
        return original(self, **batch)

    original = teacher.TeacherTraining.forward
    shutil.rmtree(workspace.root / "outputs")
    with monkeypatch.context() as patch:
        patch.setattr(class_weights, "hard_label_loss", loss)
        patch.setattr(teacher.TeacherTraining, "forward", forward)
        done = trained(workspace, "--save_steps", "1", "--learning_rate", "1e-3")
    guids = [row.guid for row in read_rows(workspace.data / "tiny/train.tsv")]
    assert done.status == 1 and "the loss became nan at step 4, with learning rate 0.0006" in done.error, done.error
    assert f"on the rows {', '.join(guids[row] for row in seen[3])}; lower the learning rate" in done.error
    checkpoints = workspace.root / "outputs/tiny/seed42/.teacher-meta.partial/checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["checkpoint-2", "checkpoint-3"]
    assert all(value.isfinite().all() for value in load_file(checkpoints / "checkpoint-3/model.safetensors").values())
    done = trained(workspace, "--save_steps", "1", "--learning_rate", "1e-3")
    assert done.status == 0 and (workspace.root / "outputs/tiny/seed42/teacher-meta/stage.json").is_file(), done.error


def test_non_finite_weights_are_never_saved_in_a_checkpoint(workspace, monkeypatch):
    def spoil(self, *arguments, **options):
        with torch.no_grad():
            self.model.teacher.classifier.model.bert.pooler.dense.bias.fill_(torch.inf)
        return really(self, *arguments, **options)

    really = DistillationTrainer._save_checkpoint
    monkeypatch.setattr(DistillationTrainer, "_save_checkpoint", spoil)
    shutil.rmtree(workspace.root / "outputs")
    done = trained(workspace)
    assert done.status == 1 and re.search(r"after step 6: the weight '.*bias' contains NaN or infinity", done.error)
    assert not list(workspace.root.glob("outputs/**/*.safetensors"))


def test_collected_losses_are_checked_together_and_the_first_nan_is_reported():
    watch = LossWatch(["a", "b", "c"])
    for step, loss in enumerate((1.0, float("nan"), 2.0), start=1):
        watch.steps.append(Step(step, 0.1, torch.tensor([2, step % 2]), torch.tensor(loss)))
    with pytest.raises(TeachbackError, match="loss became nan at step 2, with learning rate 0.1, on the rows c, a;"):
        watch.check()
    watch.check()  # a loss is reported only once


class OnGpu(torch.Tensor):
    """Tensor that says that it is on a GPU."""

    device = torch.device("cuda")


@pytest.mark.parametrize(("kind", "checked_at"), [(torch.Tensor, 1), (OnGpu, 16)])
def test_losses_are_checked_at_each_step_on_a_cpu_and_every_sixteen_on_a_gpu(kind, checked_at):
    watch = LossWatch(["a"])
    for _ in range(2 * checked_at):  # finite losses are transferred and forgotten
        watch.add(0, 0.1, None, torch.tensor(1.0).as_subclass(kind))
    for step in range(1, checked_at):
        watch.add(step, 0.1, torch.tensor([0]), torch.tensor(torch.nan).as_subclass(kind))
    with pytest.raises(TeachbackError, match="loss became nan at step 1, with learning rate 0.1, on the rows a;"):
        watch.add(checked_at, 0.1, torch.tensor([0]), torch.tensor(torch.nan).as_subclass(kind))
    assert not watch.steps


def test_batches_of_one_row_can_be_trained_and_evaluated(workspace):
    shutil.rmtree(workspace.root / "outputs")
    edit = (workspace.data / "tiny/train.tsv").read_text().splitlines(keepends=True)
    (workspace.data / "tiny/train.tsv").write_text("".join([edit[0], edit[1], edit[2], edit[25]]))
    done = trained(workspace, "--per_device_train_batch_size", "1", "--per_device_eval_batch_size", "1")
    assert done.status == 0, done.error
