"""Malicious archives, checkpoints, names and texts; and secrets, which must be neither printed nor written."""

import gzip
import io
import json
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import tiny
from commands import command
from tiny_suite import write_tiny_suite

from teachback.core.errors import TeachbackError
from teachback.data import archives, names
from teachback.data.archives import archive_damage, unpack
from teachback.data.schema import SPLITS
from teachback.inference.results import STAGE_NAMES, predictions_file
from teachback.reports.table_formats import escape_latex, escape_markdown, escape_tsv

ROOT = Path(__file__).parents[2]
NAMES = [
    "books", "Books", "kitchen_&_housewares", "..", ".", "../../etc/passwd", "/etc/passwd", ".hidden", "a/b", "a\\b", "C:",
    "\u672c", "b\u00fccher", "bu\u0308cher", "%2e%2e", "%", "a%2Fb", "$(touch x)", "`x`", "; rm -rf x", "a'b", 'a"b', "<script>", "a&b",
    "~", "*", "teacher-meta", "teacher-single-books", "TEACHER-meta", "logs", "Logs", "logs2", "predictions", "results.tsv",
    "report.html", "submission", "costs.tsv", "\U0001f600" * names.LONGEST, "x" * names.LONGEST, "con", "a|b", "a?b", "a:b",
]  # fmt: skip


def test_domain_names_map_to_safe_unique_folders_and_back():
    folders = [names.folder_name(name) for name in NAMES]
    assert [names.domain_of_folder(folder) for folder in folders] == NAMES and len(set(folders)) == len(NAMES)
    for folder in folders:
        assert set(folder) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-%")
        assert len(folder) <= 4 * 3 * names.LONGEST and not folder.startswith((".", "-", "teacher-", "logs/"))
        assert folder.lower() not in ("logs", "predictions", "submission", "results.tsv", "costs.tsv", "report.html")
    assert [names.folder_name(name) for name in ("books", "SST-2", "MNLI-mm")] == ["books", "SST-2", "MNLI-mm"]


def test_domain_names_are_refused_if_derived_file_names_would_be_too_long():
    """Checked in stage 2, as otherwise stage 7 would fail to write its predictions after all training is done."""
    longest = {letter: max(n for n in range(1, names.LONGEST + 1) if not names.domain_name_problem(letter * n)) for letter in "a\u4e2d\u0436"}
    assert longest == {"a": 60, "\u4e2d": 25, "\u0436": 37}
    for letter, count in longest.items():
        folder = names.folder_name(letter * count)
        files = [predictions_file(Path(), f"{folder}/{stage}", split).name for stage in STAGE_NAMES for split in SPLITS]
        others = [f".teacher-single-{folder}.partial", f".train scores of {folder}.lock", f"few-data-{folder}.png"]
        assert max(map(len, files + others)) <= 255
    assert "takes 234 bytes in the name of a folder" in names.domain_name_problem("\u4e2d" * 26)


def tar(*members: tuple[str, int]) -> bytes:
    """Tar archive of members (name, size) that contain only zeros."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as archive:
        for name, size in members:
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, io.BytesIO(bytes(size)))
    return buffer.getvalue()


def zipped(name: str, size: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, bytes(size))
    return buffer.getvalue()


@pytest.mark.parametrize("content", [tar(("a.txt", 3_000_000)), zipped("a.txt", 3_000_000)], ids=["tar", "zip"])
def test_archives_with_an_excessive_compression_ratio_are_refused_early(tmp_path, monkeypatch, content):
    monkeypatch.setattr(archives, "SMALL", 1_000_000)
    path = tmp_path / "bomb"
    path.write_bytes(content)
    assert len(content) * archives.MOST_RATIO < 3_000_000
    for read in (archive_damage, lambda path: unpack(path, tmp_path / "folder")):
        with pytest.raises(TeachbackError, match=r"bomb unpacks to more than 1,000,000 bytes.*nothing was unpacked"):
            read(path)
    assert sum(path.stat().st_size for path in (tmp_path / "folder").rglob("*")) <= 1_000_000


def test_archives_with_too_many_members_or_bytes_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "many"
    path.write_bytes(tar(*((f"{i}.txt", 10) for i in range(20))))
    assert archive_damage(path) == ""
    monkeypatch.setattr(archives, "MOST_MEMBERS", 19)
    with pytest.raises(TeachbackError, match="many holds more than 19 members"):
        unpack(path, tmp_path / "folder")
    monkeypatch.setattr(archives, "MOST_BYTES", 100)
    with pytest.raises(TeachbackError, match="many unpacks to more than 100 bytes"):
        archive_damage(path)


@pytest.mark.parametrize("name", [b"x" * 2_000_000, None], ids=["attributes", "long name"])
def test_tar_archives_with_huge_headers_are_refused_before_reading_them(tmp_path, name):
    member = tarfile.TarInfo("a.txt" if name else "x" * 2_000_000)
    if name:
        member.pax_headers = {"comment": name.decode()}
    kind = tarfile.PAX_FORMAT if name else tarfile.GNU_FORMAT
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(member.tobuf(kind) + bytes(1024)))
    for read in (archive_damage, lambda path: unpack(path, tmp_path / "folder")):
        with pytest.raises(TeachbackError, match=r"bomb.tar.gz has a header of 2,000,0\d\d bytes"):
            read(path)


@pytest.mark.parametrize(
    ("member", "size", "message"),
    [
        ("CB/train.jsonl", 60_000_000, "CB.zip unpacks to more than 50,000,000 bytes"),
        ("../out.txt", 5, "CB.zip: the member '../out.txt' would be unpacked outside the folder"),
    ],
)
def test_stage_1_leaves_no_files_of_a_refused_archive(tmp_path, member, size, message):
    """Run the command of stage 1 on a zip bomb, or one with a member outside its folder, in place of a suite's archive."""
    (tmp_path / "CB.zip").write_bytes(zipped(member, size))
    done = command(
        "get_data.py", "--suite", "superglue", "--domains", "CB", "--source", tmp_path, "--data_dir", tmp_path / "data"
    )
    assert done.status == 1 and message in done.error
    assert not list((tmp_path / "data/raw/superglue").iterdir()) and not list(tmp_path.rglob("out.txt"))


@pytest.mark.parametrize("script", ["train_teacher.py", "predict.py", "export.py"])
def test_checkpoints_with_their_own_code_are_refused_without_a_prompt(tmp_path, monkeypatch, script):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks whether to run the code"))
    folder = tmp_path / "foreign"
    tiny.classifier().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "mine.C", "AutoModelForSequenceClassification": "mine.C"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mine", "auto_map": own}))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\n")
    (tmp_path / "texts").write_text("a text\n")
    write_tiny_suite(tmp_path / "data")
    places = ("--suite", "tiny", "--data_dir", tmp_path / "data", "--output_root", tmp_path / "outputs", "--device", "cpu")
    flags = {
        "train_teacher.py": (*places, "--teacher_model", folder),
        "predict.py": ("--folder", folder, "--input", tmp_path / "texts"),
        "export.py": ("--folder", folder),
    }
    done = command(script, *flags[script])
    assert done.status == 1 and "needs code that comes with the checkpoint" in done.error and "is never run" in done.error, done
    assert not (tmp_path / "ran").exists()


def test_special_characters_are_escaped_in_table_cells():
    nasty = "a\tb\nc\r\\input{x} & 5 % $x$ #1 _y_ ~ ^ {z} <b>|*`"
    assert "\t" not in escape_tsv(nasty) and "\n" not in escape_tsv(nasty)
    bare = escape_latex(nasty)
    for command_ in (
        r"\textbackslash{}",
        r"\textasciitilde{}",
        r"\textasciicircum{}",
        r"\textless{}",
        r"\textgreater{}",
        r"$^{*}$",
    ):
        bare = bare.replace(command_, "")
    for sign in "&%$#_{}":
        bare = bare.replace(f"\\{sign}", "")
    assert not set(bare) & set("\\&%$#_{}~^<>")
    assert all(
        before == "\\" for before, sign in zip(escape_markdown(nasty), escape_markdown(nasty)[1:]) if sign in "|*_<`"
    )


@pytest.mark.parametrize("variable", ["DOMAIN", "DOMAINS", "SUITE", "SOURCE", "DATA_DIR", "TEACHER_MODEL", "HOLD_OUT"])
def test_values_of_variables_are_not_run_as_shell_code(tmp_path, variable):
    """Stages pass values to their entry points unchanged, so that the shell evaluates no part of a value."""
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    value = f"$(touch {tmp_path}/ran)`touch {tmp_path}/ran`; touch {tmp_path}/ran #'\""
    script = "1_get_data.sh" if variable == "SOURCE" else "3_train_teacher.sh"
    done = subprocess.run(
        ["bash", ROOT / script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHON": str(fake), variable: value},
        check=False,
    )
    assert done.returncode == 0 and value in done.stdout.splitlines() and not (tmp_path / "ran").exists(), done.stderr


SECRETS = {
    "HF_TOKEN": "hf_secretsecretsecret", "WANDB_API_KEY": "0123456789abcdefsecret", "HUGGING_FACE_HUB_TOKEN": "hf_othersecret",
    "AWS_SECRET_ACCESS_KEY": "awssecret/secret", "HTTPS_PROXY": "http://user:proxysecret@127.0.0.1:9",
}  # fmt: skip


def test_credentials_are_neither_printed_nor_written(tmp_path, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    write_tiny_suite(tmp_path / "data")
    tiny.classifier().save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    machine = (
        "--suite",
        "tiny",
        "--data_dir",
        tmp_path / "data",
        "--output_root",
        tmp_path / "outputs",
        "--device",
        "cpu",
    )
    training = ("--teacher_model", tmp_path / "model", "--num_train_epochs", "1", "--max_length", "16")
    done = [
        command("train_teacher.py", *machine, *training, "--report_to", "tensorboard", "--hub_token", "hf_flagsecret"),
        command("evaluate.py", *machine, "--max_length", "16"),
        command("train_teacher.py", *machine, "--teacher_model", "nobody/nothing"),
        command(
            "get_data.py",
            "--suite",
            "amazon",
            "--source",
            "http://user:urlsecret@127.0.0.1:9/x.tar.gz?token=urlsecret",
            "--data_dir",
            tmp_path / "data",
        ),
    ]
    assert [one.status for one in done] == [0, 0, 1, 1], done
    told = "".join(one.output + one.error for one in done)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert "secret" not in told, told
    assert b"secret" not in written
    arguments = json.loads((tmp_path / "outputs/tiny/seed42/teacher-meta/stage.json").read_text())["training_arguments"]
    assert arguments["hub_token"] == "<HUB_TOKEN>"
