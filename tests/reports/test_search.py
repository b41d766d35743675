"""Tests of the hyperparameter search (space, shared stages, pruning, failures, resumption) with fake and with real stages."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, stage
from tiny_suite import write_tiny_suite

from teachback.core.errors import TeachbackError
from teachback.core.published import read_stage
from teachback.reports import search_space
from teachback.reports.search import Search, SearchArguments, search
from teachback.reports.search_space import Range, SearchPlan, check_values, parse_space, stages_of

optuna = pytest.importorskip("optuna")

# A stage that records its values, fails or runs for long on request, and scores SECOND_LR by its distance from 7.
STAGE = """
: "${{SUITE=tiny}}"
: "${{SEED=42}}"
: "${{OUTPUT_DIR=}}"
: "${{TEACHER_DIR=}}"
: "${{STUDENT_DIR=}}"
{variables}
echo "{number} ${{FIRST_LR-}} ${{SECOND_LR-}} ${{TEACHER_DIR##*/}} ${{STUDENT_DIR##*/}}" >> "$HOME/ran"
if [[ -e $HOME/broken-{number} ]]; then echo "it broke" >&2; exit 3; fi
distance=$((${{SECOND_LR-0}} > 7 ? ${{SECOND_LR-0}} - 7 : 7 - ${{SECOND_LR-0}}))
score=$((90 - distance))
if [[ {number} == 5 && -e $HOME/slow ]]; then
    work=$OUTPUT_DIR/tiny/seed42/books/.student_second.partial/checkpoints/checkpoint-2
    mkdir -p "$work"
    echo '{{"log_history": [{{"eval_score": 0.1}}, {{"eval_score": 0.1}}]}}' > "$work/trainer_state.json"
    sleep 60 & wait
fi
folder=$OUTPUT_DIR/tiny/seed42/{folder}
mkdir -p "$folder"
echo "{{\\"dev\\": {{\\"score\\": 0.$score}}, \\"history\\": [{{\\"eval_score\\": 0.$score}}, {{\\"eval_score\\": 0.$score}}]}}" > "$folder/stage.json"
"""
VARIABLES = {"3": ("TEACHER_LR", "METHOD"), "4": ("FIRST_LR",), "5": ("SECOND_LR", "METHOD"), "6": ("EPISODES",)}
FOLDERS = {"3": "teacher-meta", "4": "books/student_first", "5": "books/student_second", "6": "books/curriculum"}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """Project of four fake stages, and its data."""
    for number, name in search_space.SCRIPTS.items():
        if number in VARIABLES:
            lines = "\n".join(f': "${{{variable}=0}}"' for variable in VARIABLES[number])
            (tmp_path / name).write_text(STAGE.format(number=number, variables=lines, folder=FOLDERS[number]))
    (tmp_path / "data/tiny").mkdir(parents=True)
    (tmp_path / "data/tiny/suite.json").write_text("{}")
    (tmp_path / "config.sh").write_text("# a config\nFIRST_LR=5\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("FIRST_LR", "SECOND_LR", "TEACHER_DIR", "STUDENT_DIR"):
        monkeypatch.delenv(variable, raising=False)
    take_root(tmp_path, monkeypatch.setattr)
    return tmp_path


def take_root(root: Path, setattr) -> None:
    for module in ("search", "search_space", "cells"):
        setattr(f"teachback.reports.{module}.scripts_root", lambda: root)


def arguments(root: Path, space="SECOND_LR=1..9", **changes) -> SearchArguments:
    options = {"trials": 4, "suite": "tiny", "data_dir": str(root / "data"), "output_root": str(root / "outputs"), "config": str(root / "config.sh")}
    return SearchArguments(space=space.replace(" ", "\n"), **options | changes)


def ran(root: Path, number: str) -> list[str]:
    return [line for line in (root / "ran").read_text().splitlines() if line.startswith(number)]


def finished_trials(made: Search) -> list[tuple]:
    """Values and scores of the trials that were completed or pruned."""
    return [(t.user_attrs["values"], t.value) for t in made.study.get_trials() if t.state.name in ("COMPLETE", "PRUNED")]


@pytest.mark.parametrize(
    ("word", "expected"),
    [("A=1e-5..1e-4:log", (1e-5, 1e-4, True, ())), ("A=2..10", (2, 10, False, ())), ("A=0.5..2", (0.5, 2, False, ())),
     ("A=1,2,4", (0, 0, False, ("1", "2", "4"))), ("A=,balanced", (0, 0, False, ("", "balanced"))), ("A=kl", (0, 0, False, ("kl",)))],
)  # fmt: skip
def test_ranges_are_parsed(word, expected):
    found = Range.parse(word)
    assert (found.low, found.high, found.log, found.choices) == expected


@pytest.mark.parametrize(
    ("space", "message"),
    [("SECON_LR=1..2", "SECON_LR is not a variable of stages 3 to 6, so it cannot be searched; did you mean SECOND_LR"),
     ("SECOND_LR=2..1", "the first number must be below the second"), ("SECOND_LR=0..1:log", "above 0 with :log"),
     ("SECOND_LR=1..2:exp", "the only suffix"), ("SECOND_LR=a..b", "expected a range low..high or low..high:log"),
     ("SEED=1,2", "SEED identifies the run"), ("PROTOCOL=honest,paper", "PROTOCOL identifies the run"),
     ("SECOND_LR=1..2\nSECOND_LR=1..3", "SECOND_LR is given twice"), ("", "name variables with their ranges")],
)  # fmt: skip
def test_invalid_search_spaces_are_explained(space, message):
    with pytest.raises(TeachbackError, match=message):
        parse_space(space)


@pytest.mark.parametrize(
    ("space", "message"),
    [("METHOD=metakd,foo", "METHOD=foo is unknown; use one of: metakd, mpdistil, finetune"), ("LABEL_SMOOTHING=0..1.5", "LABEL_SMOOTHING=1.5: must be"),
     ("REWARD=real,binary,best", "REWARD=best is unknown"), ("TEACHER=meta,multi", "TEACHER=multi is unknown"), ("EPISODES=10,many", "EPISODES=many: expected a whole number"),
     ("TEMPERATURE=1,hot", "TEMPERATURE=hot: expected a number"), ("SECOND_LR=-1e-5..1e-5", "SECOND_LR=-1e-05: must be a number above 0")],
)  # fmt: skip
def test_invalid_values_are_refused_before_any_trial(space, message):
    with pytest.raises(TeachbackError, match=message):
        check_values(parse_space(space), ("3", "4", "5", "6"))


def test_valid_values_pass_the_check():
    words = ["CLASS_WEIGHTS=,balanced", "DROPOUT=,0.1", "EPISODE_STEPS=,4", "TEACHER=multi", "SOFT_LOSS=ce,kl", "USE_SAMPLE_WEIGHTS=0,1", "EPOCHS=1..4",
             "LR=1e-5..1e-3:log", "BATCH_SIZE=8..64:log", "TEMPERATURE=1,2.5", "LAYER_MAP=uniform,-1"]  # fmt: skip
    check_values(parse_space("\n".join(words)), ("4", "5"))
    check_values(parse_space("BATCH_SIZE=4,8\nPOLICY_LR=,0.1\nPOLICY=learned,ucb"), ("6",))


@pytest.mark.parametrize(("space", "stages"), [("METHOD=finetune", "5"), ("METHOD=finetune STUDENT_INIT=teacher", "35"), ("METHOD=finetune,metakd", "345")])
def test_a_method_in_the_search_space_determines_the_stages(tmp_path, space, stages):
    (tmp_path / "data/tiny").mkdir(parents=True)
    (tmp_path / "data/tiny/suite.json").write_text("{}")
    assert "".join(Search(arguments(tmp_path, f"{space} SECOND_LR=1e-5..1e-4:log", config="")).plan.stages) == stages


def test_selection_on_test_rows_or_for_all_domains_is_refused(tmp_path):
    with pytest.raises(TeachbackError, match="PROTOCOL=paper selects on the reported rows"):
        arguments(tmp_path, protocol="paper")
    with pytest.raises(TeachbackError, match="DOMAIN=all"):
        arguments(tmp_path, domain="all")


@pytest.mark.parametrize(
    ("space", "options", "stages"),
    [("TEACHER_LR=1..2", {}, "3"), ("FIRST_LR=1..2", {}, "345"), ("SECOND_LR=1..2", {}, "345"), ("LABEL_SMOOTHING=0..0.5", {}, "345"),
     ("CURRICULUM_LR=1..2", {}, "3456"), ("SECOND_LR=1..2 EPISODES=1..2", {"students": "x"}, "356"), ("EPISODES=1..2", {"students": "x"}, "36"),
     ("SECOND_LR=1..2", {"teachers": "x"}, "45"), ("SECOND_LR=1..2", {"teachers": "x", "students": "y"}, "5"),
     ("SECOND_LR=1..2", {"finetune": True}, "5"), ("SECOND_LR=1..2", {"finetune": True, "cut_teacher": True}, "35"),
     ("LABEL_SMOOTHING=0..0.5", {"until": "3"}, "3")],
)  # fmt: skip
def test_a_trial_runs_the_stages_that_it_needs(space, options, stages):
    defaults = {"until": "", "finetune": False, "cut_teacher": False, "teachers": "", "students": ""}
    assert "".join(stages_of(parse_space(space.replace(" ", "\n")), **defaults | options)) == stages


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [("TEACHER_LR=1..2", {"teachers": "x"}, "TEACHER_LR has no effect in stages"), ("FIRST_LR=1..2", {"students": "x"}, "FIRST_LR has no effect"),
     ("FIRST_LR=1..2", {"until": "4"}, "UNTIL=4: use 3, 5 or 6, the stages with scores"), ("SECOND_LR=1..2", {"until": "3"}, "SECOND_LR has no effect in stages 3"),
     ("FIRST_LR=1..2", {"finetune": True}, "FIRST_LR has no effect in stages 5")],
)  # fmt: skip
def test_a_variable_without_effect_is_refused(space, options, message):
    defaults = {"until": "", "finetune": False, "cut_teacher": False, "teachers": "", "students": ""}
    with pytest.raises(TeachbackError, match=message):
        stages_of(parse_space(space), **defaults | options)


def test_trials_share_stages_with_equal_variables():
    ranges = tuple(parse_space("FIRST_LR=1,2\nSECOND_LR=1..9"))
    plan = SearchPlan(Path("/study"), ranges, ("3", "4", "5"), {"SUITE": "tiny", "SEED": "42"})
    one, other, third = (plan.cells({"FIRST_LR": f, "SECOND_LR": s}) for f, s in (("1", "3"), ("1", "4"), ("2", "3")))
    assert [a.name == b.name for a, b in zip(one, other)] == [True, True, False]
    assert [a.name == b.name for a, b in zip(one, third)] == [True, False, False]
    teacher, first, second = one
    assert first.variables["TEACHER_DIR"] == second.variables["TEACHER_DIR"] == teacher.variables["OUTPUT_DIR"]
    assert second.variables["STUDENT_DIR"] == first.variables["OUTPUT_DIR"] and "SECOND_LR" not in first.variables


def test_the_best_settings_are_found_and_written_as_a_config(project, capsys, monkeypatch):
    monkeypatch.setenv("METHOD", "mpdistil")
    folder = search(arguments(project, "FIRST_LR=1,2 SECOND_LR=1..9", trials=14))
    made = Search(arguments(project, "FIRST_LR=1,2 SECOND_LR=1..9", trials=14))
    tried = {tuple(values.values()) for values, _ in finished_trials(made)}
    assert len(ran(project, "3")) == 1 and len(ran(project, "4")) == 2 and len(ran(project, "5")) == len(tried) < 14
    assert made.study.best_value == max(0.9 - abs(int(value) - 7) / 100 for _, value in tried)
    best = made.study.best_trial.user_attrs["values"]
    config = (folder / "best.sh").read_text()
    assert "FIRST_LR=5\n" in config and "METHOD=mpdistil\n" in config and config.endswith(f"FIRST_LR={best['FIRST_LR']}\nSECOND_LR={best['SECOND_LR']}\n")
    assert len(list(folder.glob("stage5-*"))) == 1 and len(list(folder.glob("stage4-*"))) == 2  # only the best student is kept
    page = (folder / "search.html").read_text()
    assert "All trials" in page and re.search(r"the best of 14 trials", page) and "SECOND_LR: the best trial has" in page
    said = capsys.readouterr().out
    assert said.count(", as trial ") == 14 - len(tried)
    before = ran(project, "5")
    search(arguments(project, "FIRST_LR=1,2 SECOND_LR=1..9", trials=14))
    assert ran(project, "5") == before  # no trial is added to the 14


def test_other_settings_have_another_study(project, monkeypatch):
    folders = {Search(arguments(project)).folder}
    folders.add(Search(arguments(project, seed=1)).folder)
    folders.add(Search(arguments(project, trials=9)).folder)  # the same study, with more trials
    monkeypatch.setenv("FIRST_LR", "3")
    folders.add(Search(arguments(project)).folder)
    (project / "config.sh").write_text("FIRST_LR=6\n")
    folders.add(Search(arguments(project)).folder)
    assert len(folders) == 4


def test_a_config_of_the_project_is_found_from_any_folder(project, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    folder = search(arguments(project, config="config.sh", trials=1))
    assert "FIRST_LR=5\n" in (folder / "best.sh").read_text()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [0, 2])
def test_an_interrupted_search_continues_as_if_it_were_not_interrupted(project, tmp_path_factory, monkeypatch, after):
    whole = Search(arguments(project, trials=5))
    whole.run()
    other = arguments(project, trials=5, output_root=str(project / "elsewhere"))
    with monkeypatch.context() as patch:
        original, seen = Search._run, []

        def killed(self, trial, values):
            seen.append(values)
            if len(seen) > after:
                raise Killed
            return original(self, trial, values)

        patch.setattr(Search, "_run", killed)
        broken = Search(other)
        with pytest.raises(Killed):
            broken.run()
    broken.trial_lock.release()  # as happens when its process ends
    again = Search(other)
    again.run()
    assert finished_trials(again) == finished_trials(whole) and len(finished_trials(again)) == 5


def test_a_trial_below_the_median_is_pruned(project):
    """The sixth trial reports scores below those of the first five, and would then run for a minute."""
    made = Search(arguments(project, trials=6))
    made.folder.mkdir(parents=True)
    for value in (5, 6, 7, 8, 9, 1):
        made.study.enqueue_trial({"SECOND_LR": value})
    original, done = made._judge, []

    def judge(trial):
        if len(done) == 5:
            (project / "slow").touch()
        original(trial)
        done.append(trial)

    made._judge = judge
    made.run()
    trials = made.study.get_trials()
    assert [trial.user_attrs["values"]["SECOND_LR"] for trial in trials] == ["5", "6", "7", "8", "9", "1"]
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 5 + ["PRUNED"]
    assert not Path(made.plan.cells({"SECOND_LR": "1"})[-1].variables["OUTPUT_DIR"]).exists()


def test_only_a_failure_of_the_first_trial_stops_the_search(project, capsys):
    (project / "broken-4").touch()
    with pytest.raises(TeachbackError, match=r"the first trial failed, so others probably would too: it broke \(log: .*stage4.log"):
        search(arguments(project))
    (project / "broken-4").unlink()
    search(arguments(project, trials=2))
    (project / "broken-5").touch()
    folder = search(arguments(project, trials=5))
    assert "it broke" in capsys.readouterr().out and "it broke" in (folder / "search.html").read_text()


def test_parallel_processes_share_a_study(project):
    """Stage 3, which all trials share, waits until both processes have begun a trial."""
    both = 'until set -- "${OUTPUT_DIR%/*}"/locks/trial-*; [[ $# -ge 2 ]]; do if [[ $SECONDS -gt 60 ]]; then exit 4; fi; sleep 0.02; done\n'
    with open(project / search_space.SCRIPTS["3"], "a") as script:
        script.write(both + "sleep 0.5\n")  # in which the second process would run the stage too, if it did not wait for the first
    space = "SECOND_LR=1..80"  # so many values that no two trials have the same
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path; from unittest.mock import patch; import test_search as t; "
        "root = Path(sys.argv[1]); t.take_root(root, lambda name, value: patch(name, value).start()); "
        f"t.Search(t.arguments(root, {space!r}, trials=4)).run()"
    )
    paths = [str(project), *(str(ROOT / place) for place in ("tests/reports", "tests/stages", "tests", "src"))]
    children = [subprocess.Popen([sys.executable, "-c", code, *paths], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [child.communicate(timeout=300)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    numbers = [re.findall(r"^trial (\d)", text, re.MULTILINE) for text in said]
    assert sorted(numbers[0] + numbers[1]) == list("0123") and all(numbers)
    made = Search(arguments(project, space, trials=4))
    values = [values["SECOND_LR"] for values, _ in finished_trials(made)]
    assert made.counted() == len(set(values)) == 4
    assert len(ran(project, "3")) == len(ran(project, "4")) == 1
    assert sorted(line.split()[1] for line in ran(project, "5")) == sorted(values)


def test_folders_that_another_process_reads_are_not_removed(project):
    """Two processes try the same values; one finishes and tidies up before the other has read the shared folder."""
    one, two = Search(arguments(project)), Search(arguments(project))
    (one.folder / "locks").mkdir(parents=True)
    for value in (7, 3, 3):
        one.study.enqueue_trial({"SECOND_LR": value})
    best = one._next()
    one._judge(best)
    one.trial_lock.release()
    first, second, run = one._next(), two._next(), two._run

    def run_after_the_other(trial, values):
        one._judge(first)
        one.trial_lock.release()
        one._keep_best()
        return run(trial, values)

    two._run = run_after_the_other
    two._judge(second)
    assert [trial.state.name for trial in two.study.get_trials()] == ["COMPLETE"] * 3 and len(ran(project, "5")) == 2
    two.trial_lock.release()
    two._keep_best()
    assert len(list(one.folder.glob("stage5-*/"))) == 1


def test_search_with_real_stages(tmp_path):
    """Two trials of stage 5 on tiny models; the written config has the settings of the best one."""
    write_tiny_suite(tmp_path / "data")
    fixed = {
        "SUITE": "tiny", "DATA_DIR": str(tmp_path / "data"), "OUTPUT_DIR": str(tmp_path / "outputs"), "DOMAIN": "books", "DEVICE": "cpu",
        "TEACHER_MODEL": "scratch:tiny", "STUDENT_MODEL": "scratch:tiny", "STUDENT_LAYERS": "1", "STUDENT_INIT": "teacher", "EPOCHS": "1",
        "MAX_LENGTH": "16", "PRECISION": "fp32", "BATCH_SIZE": "8", "TKD_WEIGHT": "0", "TEACHER": "single",
    }  # fmt: skip
    command = ["bash", str(ROOT / "scripts/search.sh"), "SECOND_LR=1e-4..5e-3:log", "TEMPERATURE=1,2", "TRIALS=2"]
    environment = {name: value for name, value in os.environ.items() if name not in ("CONFIG", "LR")} | fixed | {"PYTHON": sys.executable}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^trial \d: SECOND_LR=[\d.e-]+ TEMPERATURE=[12]: dev [01]\.\d{4}", done.stdout, re.MULTILINE)) == 2
    (folder,) = (tmp_path / "outputs/search").iterdir()
    (best,) = folder.glob("stage5-*")
    record = read_stage(best / "tiny/seed42/books/student_second")
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{folder / 'study.db'}")
    assert record["dev"]["score"] == study.best_value and study.best_trial.intermediate_values
    values = study.best_trial.user_attrs["values"]
    assert record["arguments"]["learning_rate"] == float(values["SECOND_LR"]) and record["arguments"]["temperature"] == float(values["TEMPERATURE"])
    places = {"TEACHER_DIR": str(folder / "stage3"), "STUDENT_DIR": str(folder / "stage4"), "OUTPUT_DIR": str(best), "DATA_DIR": fixed["DATA_DIR"]}
    again = stage("5_student_second.sh", tmp_path, "--dry_run", CONFIG=str(folder / "best.sh"), DEVICE="cpu", **places)
    assert "is up to date" in again.output, again.output + again.error
