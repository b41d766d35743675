import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import BOOKS, CAUSE, LABELS, text_rows, tokenizer
from tokenizers.pre_tokenizers import PreTokenizer

from teachback.core.arguments import TEACHER_STAGE
from teachback.core.parsing import parse
from teachback.data import token_store
from teachback.data.encoding import encode
from teachback.data.schema import Domain, Row, Suite, join_choices, write_rows, write_suite
from teachback.data.suite_data import SuiteData, encode_rows
from teachback.data.token_store import describe, encode_once, name_of
from teachback.models.loading import load_tokenizer
from teachback.stages.stage3_teacher import train_teachers

PAIR = Domain("pair", "pair", ("no", "yes"), kind="pair")
DOMAINS = {domain.name: domain for domain in (BOOKS, PAIR, CAUSE)}
ROWS = [
    Row("1", "good plot never read", "", "positive", "books"),
    Row("2", "bad paper", "thin screen", "yes", "pair"),
    Row("3", "once", join_choices(["loud", "quite good plot"]), "first", "cause"),
]


@pytest.fixture(autouse=True)
def cache_few_rows(monkeypatch):
    monkeypatch.setattr(token_store, "FEWEST_ROWS", 1)


@pytest.fixture
def no_tokenising(monkeypatch):
    """Function after whose call any tokenisation fails."""
    return lambda: monkeypatch.setattr(token_store, "encode", None)


def stored(folder, rows=ROWS, domains=DOMAINS, with_tokenizer=None, max_length=8):
    return encode_once(folder, rows, with_tokenizer or tokenizer(), max_length, domains)


def contents(encoded):
    return {name: [one.tolist() for one in ids] for name, ids in encoded.inputs.items()}, encoded.sequences


def fresh(rows=ROWS):
    return contents(encode(rows, tokenizer(), 8, DOMAINS))


def files(folder):
    """Names of the cached files in a suite's folder."""
    return sorted(path.name for path in (folder / "tokens").glob("*"))


# Reuse


@pytest.mark.parametrize("rows", [ROWS, ROWS[:2]], ids=["with choices", "one sequence a row"])
def test_rows_are_tokenised_once_and_then_read_from_a_mapped_file(rows, tmp_path, no_tokenising):
    assert contents(stored(tmp_path, rows)) == fresh(rows)
    no_tokenising()
    again = stored(tmp_path, rows)
    assert contents(again) == fresh(rows) and again.lengths == encode(rows, tokenizer(), 8, DOMAINS).lengths
    flat = again.inputs["input_ids"].flat
    assert flat.dtype == np.int32 and not flat.flags.writeable and not flat.flags.owndata
    assert len(files(tmp_path)) == 1


def test_tokens_are_reused_when_labels_weights_guids_or_domain_ids_change(tmp_path, no_tokenising):
    data = SuiteData(Suite("tiny", DOMAINS), tmp_path, list(DOMAINS))
    encode_rows(ROWS, data, list(DOMAINS), tokenizer(), 8)
    assert len(files(tmp_path)) == 1
    no_tokenising()
    changed = [replace(row, guid="x", weight=0.5) for row in ROWS]
    changed[0] = replace(changed[0], label="")
    encoded = encode_rows(changed, data, list(DOMAINS)[::-1], tokenizer(), 8)
    assert encoded.columns["label"].tolist() == [-1, 1, 0] and encoded.columns["domain"].tolist() == [2, 1, 0]
    assert encoded.columns["weight"].tolist() == [0.5] * 3 and contents(encoded) == fresh()


def test_a_saved_tokenizer_reuses_the_tokens_of_the_learnt_one(tmp_path, no_tokenising):
    learnt = load_tokenizer("scratch:tiny", texts=["good plot never read bad paper"] * 3)
    before = contents(stored(tmp_path, with_tokenizer=learnt))
    learnt.save_pretrained(tmp_path / "model")
    no_tokenising()
    assert contents(stored(tmp_path, with_tokenizer=load_tokenizer(str(tmp_path / "model")))) == before


def test_few_rows_are_not_cached(tmp_path, monkeypatch):
    monkeypatch.setattr(token_store, "FEWEST_ROWS", 4)
    assert contents(stored(tmp_path)) == fresh() and files(tmp_path) == []


def test_tokens_of_a_tokenizer_with_parts_in_python_are_not_cached(tmp_path):
    class Words:
        def pre_tokenize(self, text):
            text.split(lambda number, part: part.split(" ", "removed"))

    own = tokenizer()
    own.backend_tokenizer.pre_tokenizer = PreTokenizer.custom(Words())
    assert describe(own) == "" and describe(object()) == ""
    assert contents(stored(tmp_path, with_tokenizer=own)) == fresh() and files(tmp_path) == []


def test_stage_3_writes_the_same_files_with_new_and_with_cached_tokens(tmp_path, no_tokenising):
    domains = {name: Domain(name, "sentiment", LABELS) for name in ("books", "dvd")}
    for split in ("train", "dev", "test"):
        write_rows(tmp_path / "tiny" / f"{split}.tsv", [row for name in domains for row in text_rows(8, name)])
    write_suite(tmp_path / "tiny", Suite("tiny", domains))
    flags = [
        "--suite",
        "tiny",
        "--data_dir",
        str(tmp_path),
        "--teacher_model",
        "scratch:tiny",
        "--num_train_epochs",
        "1",
    ]
    flags += ["--device", "cpu", "--max_length", "16"]

    def teach(output: str) -> dict[str, bytes]:
        argv = [*flags, "--output_root", str(tmp_path / output)]
        (folder,) = train_teachers(*parse(*TEACHER_STAGE, argv=argv))
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "stage.json"}

    made = teach("made")
    assert len(files(tmp_path / "tiny")) == 1  # train and dev have the same rows
    no_tokenising()
    assert teach("read") == made and "tokenizer.json" in made


# Names of cached files


def tokenizers():
    """Yield a tokenizer, then others that each differ from it in a property that token ids depend on."""
    yield tokenizer()
    longer = tokenizer()
    longer.add_tokens(["plots"])
    yield longer
    for change in ({"truncation_side": "left"}, {"split_special_tokens": True}, {"model_input_names": ["input_ids"]}):
        changed = tokenizer()
        for name, value in change.items():
            setattr(changed, name, value)
        yield changed


def test_names_depend_on_texts_truncation_length_and_tokenizer():
    first, *others = ROWS
    choices = Domain("pair", "pair", ("no", "yes"), kind="choices")
    changes = [
        (ROWS, 8, DOMAINS),
        (ROWS, 9, DOMAINS),
        (ROWS[::-1], 8, DOMAINS),
        (ROWS[:2], 8, DOMAINS),
        ([replace(first, text_a="good plot never"), *others], 8, DOMAINS),
        ([replace(first, text_a="good plot", text_b="never read"), *others], 8, DOMAINS),
        (ROWS, 8, DOMAINS | {"pair": replace(PAIR, truncate="text_a")}),
        ([first, replace(ROWS[1], text_b=join_choices(["thin", "screen"])), ROWS[2]], 8, DOMAINS),
        ([first, replace(ROWS[1], text_b=join_choices(["thin", "screen"])), ROWS[2]], 8, DOMAINS | {"pair": choices}),
    ]
    own = describe(tokenizer())
    names = [name_of(rows, own, length, domains) for rows, length, domains in changes]
    names += [name_of(ROWS, describe(other), 8, DOMAINS) for other in tokenizers()]
    assert len(set(names)) == len(names) - 1 and names[0] == names[len(changes)]


def test_earlier_truncation_and_padding_do_not_change_the_description():
    asked = tokenizer()
    asked.backend_tokenizer.enable_truncation(5)
    asked.backend_tokenizer.enable_padding(length=7)
    assert describe(asked) == describe(tokenizer())


# Damage


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[:-4],
    "cut header": lambda content: content[:40],
    "a token": lambda content: flipped(content, len(content) - 8),
    "a name": lambda content: content.replace(b"token_type_ids", b"token_tipe_ids"),
    "another array": lambda content: content.replace(b'"lengths"', b'"lenghts"'),
    "other JSON": lambda content: (2).to_bytes(8, "little") + b"[]" + content,
    "no JSON": lambda content: flipped(content, 8),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_reported_and_recreated(damage, tmp_path, caplog, no_tokenising):
    stored(tmp_path)
    (path,) = (tmp_path / "tokens").glob("*/tokens.safetensors")
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[damage](whole))
    assert path.read_bytes() != whole
    assert contents(stored(tmp_path)) == fresh() and f"{path.parent} is damaged and is being recreated: {path.name}" in caplog.text
    assert path.read_bytes() == whole and len(files(tmp_path)) == 1
    no_tokenising()
    assert contents(stored(tmp_path)) == fresh()


def test_a_damaged_file_that_cannot_be_removed_is_not_used(tmp_path, caplog, monkeypatch):
    stored(tmp_path)
    (path,) = (tmp_path / "tokens").glob("*/tokens.safetensors")
    path.write_bytes(DAMAGE["a token"](path.read_bytes()))
    monkeypatch.setattr("teachback.core.disk_cache.remove_at_once", lambda place: None)
    assert contents(stored(tmp_path)) == fresh()
    assert "could not be cached for other stages" in caplog.text and "cannot be removed" in caplog.text


def test_token_ids_are_returned_even_if_they_cannot_be_cached(tmp_path, caplog):
    (tmp_path / "tokens").write_text("a file where the folder would be")
    assert contents(stored(tmp_path)) == fresh()
    assert "could not be cached for other stages" in caplog.text


def test_concurrent_writers_leave_one_file(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: contents(stored(tmp_path)), range(8)))
    assert found == [fresh()] * 8 and len(files(tmp_path)) == 1


def test_cached_tokens_are_readable_by_the_safetensors_library(tmp_path):
    stored(tmp_path, ROWS[:2])
    arrays = load_file(next((tmp_path / "tokens").glob("*/tokens.safetensors")))
    ids = [one for sequence in fresh(ROWS[:2])[0]["input_ids"] for one in sequence]
    assert arrays["input_ids"].tolist() == ids and arrays["lengths"].tolist() == [6, 7]


# Size limit


def aged(folder, hours: float, **options):
    """Cache a new file, date its last use ``hours`` back, and return its name."""
    before = set(files(folder))
    stored(folder, **options)
    (name,) = set(files(folder)) - before
    moment = time.time() - 3600 * hours
    os.utime(folder / "tokens" / name, (moment, moment))
    return name


def test_the_least_recently_used_files_are_removed_first(tmp_path, monkeypatch):
    oldest, older, recent = (aged(tmp_path, hours, max_length=n) for n, hours in ((4, 9), (5, 8), (6, 0.5)))
    size = max((tmp_path / "tokens" / name / token_store.FILE).stat().st_size for name in (oldest, older, recent))
    monkeypatch.setattr(token_store, "MOST_GIGABYTES", 3.5 * size / 1e9)
    newest = aged(tmp_path, 0.1, max_length=7)
    assert files(tmp_path) == sorted([older, recent, newest])
    stored(tmp_path, max_length=5)  # reading counts as use
    monkeypatch.setattr(token_store, "MOST_GIGABYTES", 2.5 * size / 1e9)
    last = aged(tmp_path, 0, max_length=8)
    assert files(tmp_path) == sorted([older, last])


def test_files_in_another_format_are_removed_to_make_room(tmp_path, monkeypatch):
    place = tmp_path / "tokens"
    place.mkdir()
    (place / "0123.safetensors").write_bytes(bytes(2_000))
    monkeypatch.setattr(token_store, "MOST_GIGABYTES", 2_100 / 1e9)
    stored(tmp_path)
    assert len(files(tmp_path)) == 1 and (place / files(tmp_path)[0]).is_dir()
