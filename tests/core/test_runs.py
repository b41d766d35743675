import json
import os
import re
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
from safetensors.torch import load_file
from tiny import classifier, text_rows, tokenizer

from teachback.core import precision, runs
from teachback.core.devices import autocast, peak_memory_bytes, resolve_device
from teachback.core.errors import TeachbackError
from teachback.core.places import seed_folder
from teachback.core.precision import resolve_precision, resolve_precision_on
from teachback.core.published import hash_model, read_stage
from teachback.core.runs import StageRun, swap
from teachback.data.schema import hash_rows
from teachback.training.checkpoints import random_states, save_state

RECORD = {"dev": {"score": 0.5}, "head_trained": True}


def stage_run(folder, lr=0.1, model="abc", **arguments):
    return StageRun(
        folder / "teacher-meta", "teacher", {"lr": lr, "epochs": 3, **arguments}, {"model": model, "train rows": "123"}
    )


def publish(run, text="weights"):
    with run.publishing(RECORD) as result:
        (result / "model").write_text(text)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_published_stage_has_its_files_and_a_full_record(tmp_path):
    run = stage_run(tmp_path)
    run.checkpoints()
    publish(run)
    assert names(tmp_path) == ["teacher-meta"] and names(run.folder) == ["model", "stage.json"]
    stage = read_stage(run.folder)
    assert stage["stage"] == "teacher" and stage["fingerprint"] == run.fingerprint
    assert stage["arguments"] == {"lr": 0.1, "epochs": 3} and stage["inputs"] == {"model": "abc", "train rows": "123"}
    assert stage["dev"] == {"score": 0.5} and stage["wall_time_seconds"] >= 0
    assert stage["peak_memory_bytes"]["resident"] > 50e6
    assert stage["versions"]["torch"] == version("torch") and re.match(r"3\.\d+", stage["versions"]["python"])


def test_up_to_date_only_with_the_same_arguments_inputs_and_stage(tmp_path):
    assert not stage_run(tmp_path).up_to_date()
    publish(stage_run(tmp_path))
    assert stage_run(tmp_path).up_to_date()
    assert not stage_run(tmp_path, lr=0.2).up_to_date()
    assert not stage_run(tmp_path, model="xyz").up_to_date()
    assert not stage_run(tmp_path, new=1).up_to_date()
    other = StageRun(tmp_path / "teacher-meta", "student", stage_run(tmp_path).arguments, stage_run(tmp_path).inputs)
    assert not other.up_to_date()


def test_changes_are_listed_with_old_and_new_values(tmp_path):
    assert stage_run(tmp_path).changes() == []
    publish(stage_run(tmp_path))
    assert stage_run(tmp_path).changes() == []
    assert stage_run(tmp_path, lr=0.2, new="x").changes() == ["lr: 0.1 -> 0.2", "new: None -> 'x'"]
    assert stage_run(tmp_path, model="xyz").changes() == ["model: 'abc' -> 'xyz'"]


def test_a_stage_with_additional_recorded_arguments_is_up_to_date(tmp_path):
    publish(stage_run(tmp_path, debug=[]))
    assert stage_run(tmp_path).up_to_date() and stage_run(tmp_path).changes() == []
    assert not stage_run(tmp_path, lr=0.2).up_to_date() and stage_run(tmp_path, lr=0.2).changes() == ["lr: 0.1 -> 0.2"]


def test_tuples_that_json_turns_into_lists_count_as_unchanged(tmp_path):
    run = stage_run(tmp_path, pair=(1, 2))
    publish(run)
    again = stage_run(tmp_path, pair=(1, 2))
    assert again.up_to_date() and again.changes() == []


def test_a_failure_while_writing_leaves_the_old_folder_unchanged(tmp_path):
    publish(stage_run(tmp_path), "old")
    before = (tmp_path / "teacher-meta" / "stage.json").read_bytes()
    with pytest.raises(OSError, match="disk full"), stage_run(tmp_path, lr=0.2).publishing(RECORD) as result:
        (result / "model").write_text("half")
        raise OSError("disk full")
    assert (tmp_path / "teacher-meta" / "model").read_text() == "old"
    assert (tmp_path / "teacher-meta" / "stage.json").read_bytes() == before
    assert stage_run(tmp_path).up_to_date() and not stage_run(tmp_path, lr=0.2).up_to_date()


def test_a_first_run_that_fails_leaves_no_folder(tmp_path):
    run = stage_run(tmp_path)
    with pytest.raises(OSError), run.publishing(RECORD) as result:
        (result / "model").write_text("half")
        raise OSError
    assert not run.folder.exists() and not stage_run(tmp_path).up_to_date()


def test_leftovers_of_a_failed_attempt_are_not_published(tmp_path):
    with pytest.raises(OSError), stage_run(tmp_path).publishing(RECORD) as result:
        (result / "half").write_text("half")
        raise OSError
    publish(stage_run(tmp_path))
    assert names(tmp_path / "teacher-meta") == ["model", "stage.json"]


def test_a_new_result_replaces_every_file_of_the_old_one(tmp_path):
    publish(stage_run(tmp_path), "old")
    (tmp_path / "teacher-meta" / "old file").write_text("old")
    publish(stage_run(tmp_path, lr=0.2), "new")
    assert names(tmp_path) == ["teacher-meta"] and names(tmp_path / "teacher-meta") == ["model", "stage.json"]
    assert (tmp_path / "teacher-meta" / "model").read_text() == "new"


def test_an_interrupted_swap_is_repaired_by_the_next_run(tmp_path, monkeypatch):
    publish(stage_run(tmp_path), "old")
    rename, calls = os.rename, []

    def rename_once(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(runs.os, "rename", rename_once)
    with pytest.raises(KeyboardInterrupt):
        publish(stage_run(tmp_path, lr=0.2), "new")
    monkeypatch.undo()
    assert not (tmp_path / "teacher-meta").exists()
    assert stage_run(tmp_path).up_to_date()
    assert (tmp_path / "teacher-meta" / "model").read_text() == "old"
    publish(stage_run(tmp_path, lr=0.2), "new")
    assert names(tmp_path) == ["teacher-meta"] and (tmp_path / "teacher-meta" / "model").read_text() == "new"


def test_a_leftover_of_an_old_swap_does_not_replace_a_finished_folder(tmp_path):
    publish(stage_run(tmp_path), "new")
    (tmp_path / ".teacher-meta.old").mkdir()
    assert (stage_run(tmp_path).folder / "model").read_text() == "new"
    for name in ("second", "third"):
        (tmp_path / name).mkdir()
        swap(tmp_path / name, tmp_path / "teacher-meta")
    assert names(tmp_path) == ["teacher-meta"] and names(tmp_path / "teacher-meta") == []


def test_a_swap_that_its_own_process_completes_is_not_repaired(tmp_path, monkeypatch):
    old = tmp_path / ".teacher-meta.old"
    old.mkdir()

    @contextmanager
    def locked_after_the_swap(folder):
        folder.mkdir()
        old.rmdir()
        yield

    monkeypatch.setattr(runs, "locked", locked_after_the_swap)
    stage_run(tmp_path)
    assert names(tmp_path) == ["teacher-meta"]


def test_tidy_removes_leftovers_of_a_process_killed_after_publishing(tmp_path):
    publish(stage_run(tmp_path))
    (stage_run(tmp_path).checkpoints() / "checkpoint-3").mkdir()
    (tmp_path / ".teacher-meta.old").mkdir()
    stage_run(tmp_path).tidy()
    assert names(tmp_path) == ["teacher-meta"]
    stage_run(tmp_path, lr=0.2).checkpoints()
    stage_run(tmp_path).tidy()
    assert names(tmp_path) == [".teacher-meta.partial", "teacher-meta"]  # the work of another fingerprint may still be continued


def test_unfinished_work_is_kept_only_for_an_equal_fingerprint(tmp_path):
    kept = stage_run(tmp_path).checkpoints() / "checkpoint-3"
    kept.mkdir()
    assert (stage_run(tmp_path).checkpoints() / "checkpoint-3").is_dir()
    assert not list(stage_run(tmp_path, lr=0.2).checkpoints().iterdir())
    assert not kept.exists()


def test_unfinished_work_without_a_fingerprint_is_discarded(tmp_path):
    checkpoints = stage_run(tmp_path).checkpoints()
    (checkpoints / "checkpoint-3").mkdir()
    (checkpoints.parent / "fingerprint").unlink()
    assert not list(stage_run(tmp_path).checkpoints().iterdir())


def test_unfinished_work_does_not_count_as_a_finished_stage(tmp_path):
    run = stage_run(tmp_path)
    run.checkpoints()
    assert not run.folder.exists() and not run.up_to_date()


def test_a_folder_of_the_same_fingerprint_is_copied(tmp_path):
    publish(stage_run(tmp_path / "books"), "student")
    run = stage_run(tmp_path / "dvd")
    assert run.reuse(tmp_path / "books" / "teacher-meta")
    assert (run.folder / "model").read_text() == "student" and run.up_to_date()
    stage = read_stage(run.folder)
    assert stage["copied_from"] == str(tmp_path / "books" / "teacher-meta") and stage["dev"] == {"score": 0.5}


def test_a_folder_of_another_fingerprint_is_not_copied(tmp_path):
    publish(stage_run(tmp_path / "books"))
    run = stage_run(tmp_path / "dvd", lr=0.2)
    assert not run.reuse(tmp_path / "books" / "teacher-meta") and not run.reuse(tmp_path / "nowhere")
    assert not run.folder.exists()


def test_reading_an_unfinished_or_broken_stage_is_an_error(tmp_path):
    with pytest.raises(TeachbackError, match="does not hold a finished stage"):
        read_stage(tmp_path)
    (tmp_path / "stage.json").write_text("{")
    with pytest.raises(TeachbackError, match="not a valid description of a stage.*run its stage again"):
        read_stage(tmp_path)


def test_stage_folders_lie_under_suite_and_seed():
    assert str(seed_folder("outputs", "amazon", 42)) == os.path.join("outputs", "amazon", "seed42")


def test_the_hash_of_rows_depends_on_every_field_and_the_order():
    rows = text_rows()
    assert hash_rows(rows) == hash_rows(text_rows())
    other = {"text_a": "other", "text_b": "other", "label": "", "domain": "dvd", "weight": 0.5}
    changed = [[replace(rows[0], **{name: value}), *rows[1:]] for name, value in other.items()]
    changed += [rows[::-1], rows[:-1]]
    assert len({hash_rows(rows), *map(hash_rows, changed)}) == 8


def test_the_hash_of_a_model_depends_on_its_weights_config_and_tokenizer(tmp_path):
    classifier().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    first = hash_model(str(tmp_path))
    (tmp_path / "notes").write_text("irrelevant")
    assert hash_model(str(tmp_path)) == first
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.3}))
    second = hash_model(str(tmp_path))
    classifier(seed=1).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.3}))
    third = hash_model(str(tmp_path))
    saved = tmp_path / "tokenizer.json"
    saved.write_text(saved.read_text().replace('"good"', '"great"'))
    assert len({first, second, third, hash_model(str(tmp_path))}) == 4
    assert hash_model("bert-base-uncased") == "bert-base-uncased"


@pytest.mark.parametrize("name", ["merges.txt", "spiece.model", "added_tokens.json"])
def test_files_of_a_slow_tokenizer_change_the_hash_of_a_model_without_a_fast_one(name, tmp_path):
    classifier().save_pretrained(tmp_path)
    (tmp_path / name).write_text("one")
    first = hash_model(str(tmp_path))
    (tmp_path / name).write_text("other")
    slow = hash_model(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    fast = hash_model(str(tmp_path))
    (tmp_path / name).write_text("third")
    assert len({first, slow, fast}) == 3 and hash_model(str(tmp_path)) == fast


def test_no_pickle_is_written(tmp_path):
    run = stage_run(tmp_path)
    save_state(run.checkpoints() / "random", random_states())
    with run.publishing(RECORD) as result:
        classifier().save_pretrained(result)
        tokenizer().save_pretrained(result)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in written} <= {".json", ".safetensors", ".txt", ".jinja"}
    for path in written:
        if path.suffix == ".safetensors":
            assert all(isinstance(value, torch.Tensor) for value in load_file(path).values())
        else:
            path.read_text(encoding="utf-8")


# Devices and precision

CPU = torch.device("cpu")


def test_a_device_is_resolved_by_name_or_automatically():
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:x", "meta", ""])
def test_unsupported_devices_are_refused(name):
    with pytest.raises(TeachbackError, match=f"DEVICE={name}: use auto, cpu"):
        resolve_device(name)


def test_a_missing_gpu_is_an_error_without_fallback_to_the_cpu():
    with pytest.raises(TeachbackError, match="DEVICE=cuda:99: PyTorch sees .* set DEVICE=cpu or auto"):
        resolve_device("cuda:99")


def test_precisions_are_resolved_and_unsupported_ones_refused():
    assert resolve_precision("fp32", CPU) == "fp32" and resolve_precision("bf16", CPU) == "bf16"
    assert resolve_precision("auto", CPU) in ("fp32", "bf16")
    with pytest.raises(TeachbackError, match="PRECISION=fp16 needs a GPU"):
        resolve_precision("fp16", CPU)
    with pytest.raises(TeachbackError, match="PRECISION=half: use one of auto, fp32"):
        resolve_precision("half", CPU)


AMX, AVX = "avx512f amx_bf16 amx_tile", "avx512f avx512_bf16 sse4a"


@pytest.mark.parametrize(
    ("flags", "vendor", "expected"),
    [
        (AMX, "GenuineIntel", "bf16"), (AVX, "AuthenticAMD", "bf16"), (AVX, "GenuineIntel", "fp32"), ("avx512f", "GenuineIntel", "fp32"),
        (AVX, "", "fp32"), ("avx512f", "AuthenticAMD", "fp32"),
    ],
)  # fmt: skip
def test_auto_precision_is_bf16_on_processors_with_fast_bf16(flags, vendor, expected, monkeypatch, tmp_path):
    described = f"vendor_id\t: {vendor}\nmodel name\t: some\nflags\t\t: fpu {flags}\nbugs\t\t: none\n\n"
    (tmp_path / "cpuinfo").write_text("".join(f"processor\t: {core}\n{described}" for core in range(2)))
    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "cpuinfo")
    precision._processor.cache_clear()
    assert resolve_precision("auto", CPU) == resolve_precision_on("cpu", "auto") == expected
    precision._processor.cache_clear()


def test_auto_precision_is_fp32_without_a_description_of_the_processor(monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "absent")
    precision._processor.cache_clear()
    assert resolve_precision("auto", CPU) == "fp32"
    precision._processor.cache_clear()


def test_auto_precision_does_not_depend_on_timings(monkeypatch):
    before = resolve_precision("auto", CPU)
    monkeypatch.setattr("time.perf_counter", iter(range(10**6)).__next__)  # a clock on which everything takes equally long
    precision._processor.cache_clear()
    assert resolve_precision("auto", CPU) == before


@pytest.mark.parametrize(("build", "gpu", "chosen"), [("2.13.0+cpu", True, "cpu"), ("2.13.0", False, "cpu"), ("2.13.0", True, "cuda:0")])
def test_a_gpu_is_looked_for_unless_pytorch_is_a_cpu_build(build, gpu, chosen, monkeypatch):
    asked = []
    monkeypatch.setattr(precision, "version", lambda name: build)
    monkeypatch.setattr("teachback.core.devices.resolve_device", lambda name: torch.device("cuda:0" if gpu else "cpu"))
    monkeypatch.setattr(precision, "resolve_precision", lambda name, device: asked.append(str(device)) or name)
    assert resolve_precision_on("auto", "bf16") == "bf16" and asked == [chosen]


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_computes_in_the_given_precision(name, dtype):
    with autocast(name, CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_peak_memory_is_in_bytes():
    before = peak_memory_bytes()["resident"]
    held = torch.ones(30_000_000)  # 120 MB, which raise the peak unless it was higher before
    assert 50e6 < before <= peak_memory_bytes()["resident"] < 100e9 and len(held)


def test_continuing_with_another_thread_count_warns_and_is_recorded(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    StageRun(tmp_path / "stage", "a stage", {}, {}).checkpoints()
    run = StageRun(tmp_path / "stage", "a stage", {}, {})
    run.checkpoints()
    assert not caplog.text
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    run.checkpoints()
    assert "was started with 4 threads and continues with 2" in caplog.text and "OMP_NUM_THREADS=4" in caplog.text
    with run.publishing({}):
        pass
    assert read_stage(run.folder)["threads"] == 2
