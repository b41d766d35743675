"""Stage scripts: variables, precedence, configs and messages; a fake Python stands in for the entry points."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from itertools import cycle

import pytest
from commands import ROOT, STAGES, declarations

from teachback.core.arguments import (
    CurriculumArguments,
    DataArguments,
    FirstStageArguments,
    MetaTeacherArguments,
    SecondStageArguments,
    StudentArguments,
    TeacherArguments,
)
from teachback.core.variables import declared
from teachback.stages.stage7_arguments import EvaluationArguments

SCRIPTS = [ROOT / name for name in STAGES] + sorted((ROOT / "scripts").glob("*.sh"))
GENERAL = {"EPOCHS", "LR"}  # override the variable of a stage

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def own_variables(stage: str) -> dict[str, str]:
    """Variables of a stage that always set one flag, with that flag; their values do not depend on other variables."""
    apart = GENERAL | {"SUITE", "DATA_DIR", "OUTPUT_DIR"}
    variables = declared(ROOT / stage).values()
    return {one.name: f"--{one.flag}" for one in variables if one.flag and one.name not in apart}


KNOWN = {name for path in [ROOT / s for s in STAGES] + [ROOT / "scripts/common.sh"] for name in declarations(path)}


@pytest.fixture
def stage(tmp_path):
    """Function that runs a stage with a Python that prints its arguments; returns them, or the process without ``check``."""
    fake = tmp_path / "fake python"
    fake.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    fake.chmod(0o755)

    def call(name, *flags, config=None, cwd=ROOT, check=True, **variables):
        environment = {key: value for key, value in os.environ.items() if key not in KNOWN}
        environment.update({"PYTHON": str(fake), **variables})
        if config is not None:
            (tmp_path / "config.sh").write_text(config)
            environment["CONFIG"] = str(tmp_path / "config.sh")
        command = ["bash", str(ROOT / name), *flags]
        done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=60)
        if not check:
            return done
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n")[:-1]

    return call


def value_of(arguments: list[str], flag: str) -> str:
    """Effective value of a flag, that of its last occurrence; "" without one."""
    if flag not in arguments:
        return ""
    last = len(arguments) - 1 - arguments[::-1].index(flag)
    return arguments[last + 1]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_valid_bash(path):
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True).returncode == 0


@pytest.mark.parametrize("name", STAGES)
def test_every_variable_is_described_and_may_be_empty(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert ":=" not in text  # ":=" would replace an empty value that the user gave
    assert all(variable.meaning for variable in declared(ROOT / name).values())
    assert len(declared(ROOT / name)) == text.count('\n: "${')


@pytest.mark.parametrize("name", STAGES)
def test_only_variables_of_the_shell_have_no_flag(name):
    shell = {"3": {"NPROC"}, "4": {"NPROC"}, "5": {"NPROC"}, "2": {"TEACHER_MODEL"}}.get(name[0], set())
    assert {one.name for one in declared(ROOT / name).values() if not one.flag} == shell


@pytest.mark.parametrize("name", STAGES)
def test_flags_override_the_environment_which_overrides_the_config(stage, name):
    """All variables of the stage are set at once, so this also checks that each reaches the entry point."""
    flags = own_variables(name)

    def values(*extra, config="", **variables):
        arguments = stage(name, *extra, config=config + "SUITE=custom\n", **variables)
        return {variable: value_of(arguments, flag) for variable, flag in flags.items()}

    config = "".join(f"{variable}='config {variable}'\n" for variable in flags)
    environment = {variable: f"environment {variable}" for variable in flags}
    command_line = [word for variable, flag in flags.items() for word in (flag, f"flag {variable}")]
    defaults = declarations(ROOT / name)
    defaults = {
        variable: re.sub(r"^\$(\w+)$", lambda other: defaults[other[1]], defaults[variable]) for variable in flags
    }
    assert values() == defaults
    assert values(config=config) == {variable: f"config {variable}" for variable in flags}
    assert values(config=config, **environment) == environment
    assert values(config=config, **dict.fromkeys(flags, "")) == dict.fromkeys(flags, "")  # empty values are kept
    assert values(*command_line, config=config, **environment) == {variable: f"flag {variable}" for variable in flags}


@pytest.mark.parametrize("name", STAGES)
def test_suite_follows_the_precedence_of_other_variables(stage, name):
    assert value_of(stage(name), "--suite") == "amazon"
    assert value_of(stage(name, config="SUITE=mnli\n"), "--suite") == "mnli"
    assert value_of(stage(name, config="SUITE=mnli\n", SUITE="custom"), "--suite") == "custom"
    assert value_of(stage(name, "--suite", "sample", config="SUITE=mnli\n", SUITE="custom"), "--suite") == "sample"


def test_the_embedding_model_defaults_to_the_teacher_model(stage):
    assert value_of(stage("2_process_data.sh", TEACHER_MODEL="mine"), "--embedding_model") == "mine"


@pytest.mark.parametrize(
    "name, own", [("3_train_teacher.sh", "TEACHER"), ("4_student_first.sh", "FIRST"), ("5_student_second.sh", "SECOND")]
)
@pytest.mark.parametrize("general, flag", [("EPOCHS", "--num_train_epochs"), ("LR", "--learning_rate")])
def test_epochs_and_lr_override_the_variables_of_the_stage(stage, name, own, general, flag):
    own = f"{own}_{general}"
    assert value_of(stage(name, config=f"{own}=2\n{general}=3\n"), flag) == "3"
    assert value_of(stage(name, config=f"{own}=2\n", **{general: "3"}), flag) == "3"
    assert value_of(stage(name, **{own: "2", general: "3"}), flag) == "3"
    assert value_of(stage(name, **{own: "2", general: ""}), flag) == "2"
    assert value_of(stage(name, config=f"{general}=3\n", **{own: "2"}), flag) == "2"  # the environment overrides the config


@pytest.mark.parametrize("name", STAGES)
def test_an_unknown_variable_in_a_config_is_refused(stage, name):
    done = stage(name, config="# a comment\nSUITE=sample\nDOMIAN=dvd\n", check=False, PYTHON=sys.executable)
    assert done.returncode == 1 and done.stdout == ""
    assert "config.sh line 3" in done.stderr and "DOMIAN" in done.stderr and "did you mean DOMAIN?" in done.stderr


@pytest.mark.parametrize("line", ["export DOMIAN=dvd", "  DOMIAN+=x", ': "${DOMIAN:=dvd}"', "SUITE=sample; DOMIAN=dvd"])
def test_an_unknown_variable_is_found_in_every_form_of_assignment(stage, line):
    done = stage("7_eval.sh", config=f"SEED=1\n{line}\n", check=False)
    assert done.returncode == 1 and "line 2" in done.stderr and "DOMIAN" in done.stderr


def test_a_variable_of_another_script_is_refused_in_a_config(stage):
    done = stage("scripts/reproduce.sh", "metakd_amazon", config='SUITE=amazon\nSEEDS="1 2"\n', check=False)
    assert done.returncode == 1 and "config.sh line 2: SEEDS is not a variable of a stage; set it in the environment" in done.stderr


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.sh")), ids=lambda path: path.stem)
def test_every_config_is_accepted_by_every_stage(stage, name, config):
    arguments = stage(name, CONFIG=str(config))
    suite = {"recommended": "custom"}.get(config.stem, config.stem.split("_")[0])  # the name is a suite, or a suite and a variant
    assert value_of(arguments, "--suite") == suite


@pytest.mark.parametrize("name", STAGES)
def test_help_needs_nothing_installed(stage, name):
    done = stage(name, "--help", check=False, PYTHON="/nowhere/python")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith(f"Stage {name[0]}")
    for variable, default in declarations(ROOT / name).items():
        assert re.search(rf"^  {variable}={re.escape(default)}\s+\w", done.stdout, re.MULTILINE), variable
    assert "scripts/" in done.stdout.splitlines()[-1] and done.stdout.splitlines()[-1].endswith(".py --help")


@pytest.mark.parametrize("name", ["reproduce.sh", "predict.sh", "export.sh"])
def test_help_gives_no_example_that_the_script_refuses(stage, name):
    said = stage(f"scripts/{name}", "--help", check=False, PYTHON="/nowhere/python").stdout
    assert "those of stages also in the config file CONFIG" in said and "--seed" not in said


@pytest.mark.parametrize("name", STAGES)
def test_a_failing_entry_point_stops_the_stage_with_its_status(stage, tmp_path, name):
    failing = tmp_path / "failing"
    failing.write_text('#!/bin/sh\nif [ "$1" = -c ]; then exit 0; fi\nexit 7\n')  # the stage first asks whether Python starts
    failing.chmod(0o755)
    assert stage(name, check=False, PYTHON=str(failing)).returncode == 7


@pytest.mark.parametrize("name", STAGES)
def test_special_characters_in_values_are_passed_unchanged(stage, tmp_path, name):
    awkward = ("two  blanks", "'quoted\"", "a;touch evaluated", "$(touch evaluated)", "*", "`touch evaluated`")
    flags = own_variables(name) | {"DATA_DIR": "--data_dir"}
    given = dict(zip(flags, cycle(awkward)))
    arguments = stage(name, cwd=tmp_path, SUITE="custom", **given)  # the only suite with a SOURCE in stage 2
    assert {variable: value_of(arguments, flag) for variable, flag in flags.items()} == given
    words = [word for value in awkward for word in ("--flag", value)]
    assert stage(name, *words, cwd=tmp_path)[-len(words) :] == words
    assert not (tmp_path / "evaluated").exists()


def test_values_that_begin_with_a_hyphen_are_not_read_as_flags(stage):
    assert "--class_weights=-1=2,1=1" in stage("3_train_teacher.sh", CLASS_WEIGHTS="-1=2,1=1")
    assert "--slurm_options_teacher=--time=8:00:00" in stage("scripts/reproduce.sh", "metakd_amazon", SLURM_OPTIONS_TEACHER="--time=8:00:00")
    assert "--learning_rate=-1" in stage("3_train_teacher.sh", LR="-1")


def test_relative_paths_start_at_the_folder_of_the_caller(stage, tmp_path):
    (tmp_path / "mine.sh").write_text("SEED=5\n")
    arguments = stage("7_eval.sh", cwd=tmp_path, CONFIG="mine.sh", OUTPUT_DIR="here")
    assert value_of(arguments, "--seed") == "5" and value_of(arguments, "--output_root") == "here"
    assert value_of(arguments, "--data_dir") == str(ROOT / "data")  # the default stays beside the stages
    assert value_of(stage("7_eval.sh", cwd=tmp_path, CONFIG="configs/mnli.sh"), "--suite") == "mnli"
    assert value_of(stage("7_eval.sh"), "--data_dir") == "data"


def test_a_missing_config_and_a_missing_python_are_named(stage):
    done = stage("7_eval.sh", check=False, CONFIG="configs/nothing.sh")
    assert done.returncode == 1 and "configs/nothing.sh" in done.stderr and "configs/amazon.sh" in done.stderr
    done = stage("7_eval.sh", check=False, PYTHON="/nowhere/python")
    assert done.returncode == 1 and "PYTHON=/nowhere/python" in done.stderr


PRETENDING = "import sys; sys.version_info = (3, 8, 1); exec(sys.argv[1])"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (f"exec '{sys.executable}' -c '{PRETENDING}' \"$2\"", "is Python 3.8, but 3.11 or newer is needed; run 'bash scripts/env"),
        (f"exec '{sys.executable}' -S \"$@\"", "lacks the packages torch, transformers, accelerate"),  # without site-packages
        ("exec /nowhere/python", "does not start, perhaps because its Python was removed; run 'bash scripts/env"),
        ("echo No module named encodings >&2; exit 1", "does not start, perhaps because its Python was removed; run 'bash scripts/env"),
    ],
)
def test_an_unusable_python_is_named_without_a_traceback(stage, tmp_path, command, words):
    python = tmp_path / "other python"
    python.write_text(f"#!/bin/sh\n{command}\n")
    python.chmod(0o755)
    done = stage("7_eval.sh", check=False, PYTHON=str(python))
    assert done.returncode == 1 and done.stderr.startswith(f"7_eval.sh: {python} {words}"), done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_an_environment_whose_python_was_removed_is_named(tmp_path):
    for path in [*ROOT.glob("*.sh"), *ROOT.glob("scripts/*.sh")]:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(path, copy)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to("/nowhere/python3")
    environment = {name: value for name, value in os.environ.items() if name not in KNOWN}
    done = subprocess.run(["bash", "7_eval.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and ".venv: the Python that it was created with no longer exists; run 'bash scripts/environment.sh'" in done.stderr


def test_variables_of_the_environment_are_listed_without_secrets(stage):
    config = "SEED=1\nEPISODES=3\n"
    given = {"LR": "3e-5", "SEED": "2", "DOMAIN": "a\nb", "UNRELATED": "x", "TEACHER_DIR": "https://me:secret@host/x?token=secret"}
    done = stage("4_student_first.sh", check=False, config=config, **given)
    (line,) = done.stderr.splitlines()
    assert line.startswith("4_student_first.sh: from the environment: ")
    for words in (" LR=3e-5 ", " SEED=2 ", " DOMAIN=$'a\\nb' ", "TEACHER_DIR=https://...@host/x"):
        assert words in line
    assert "secret" not in line and "UNRELATED" not in line and "EPISODES" not in line


def test_settings_of_the_callers_shell_have_no_effect(stage, tmp_path):
    (tmp_path / ROOT.name).mkdir()  # where CDPATH would lead
    hostile = {"CDPATH": str(tmp_path), "IFS": "_/", "POSIXLY_CORRECT": "1", "GREP_COLORS": "mt=1", "LC_ALL": "C"}
    for config in ("", "configs/mnli.sh"):
        plain = stage("3_train_teacher.sh", CONFIG=config)
        assert stage("3_train_teacher.sh", CONFIG=config, **hostile) == plain
    relative = subprocess.run(["bash", f"{ROOT.name}/3_train_teacher.sh", "--help"], cwd=ROOT.parent, capture_output=True, text=True,
                              env=os.environ | hostile)  # fmt: skip
    assert relative.returncode == 0 and f"bash {ROOT}/3_train_teacher.sh --seed 2" in relative.stdout


@pytest.mark.parametrize("name", ["3_train_teacher.sh", "4_student_first.sh", "5_student_second.sh"])
def test_several_processes_start_through_torchrun(stage, name):
    assert stage(name)[0].startswith("scripts/") or stage(name)[0].startswith(str(ROOT))
    arguments = stage(name, NPROC="3")
    assert arguments[:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "3"]
    several_machines = stage(name, PET_NNODES="2")
    assert several_machines[:4] == ["-m", "torch.distributed.run", "--nproc_per_node", "1"]
    assert stage(name, check=False, NPROC="0").returncode == 1


def test_mpdistils_student_model_defaults_to_the_teacher_model(stage):
    for config in ("configs/superglue.sh", "configs/glue.sh"):
        assert value_of(stage("4_student_first.sh", CONFIG=config), "--student_model") == "bert-base-uncased"
        mine = {"CONFIG": config, "TEACHER_MODEL": "mine"}
        assert value_of(stage("3_train_teacher.sh", **mine), "--teacher_model") == "mine"
        assert value_of(stage("4_student_first.sh", **mine), "--student_model") == "mine"
        assert value_of(stage("4_student_first.sh", **mine, STUDENT_MODEL="other"), "--student_model") == "other"


def test_learning_rates_are_constant_for_mpdistil_and_in_stage_4_of_meta_kd(stage):
    found = {
        config: [value_of(stage(name, CONFIG=f"configs/{config}.sh"), "--lr_scheduler_type") for name in STAGES[2:5]]
        for config in ("amazon", "superglue", "glue")
    }
    constant = ["constant"] * 3
    assert found == {"amazon": ["linear", "constant", "linear"], "superglue": constant, "glue": constant}
    mine = stage("5_student_second.sh", CONFIG="configs/glue.sh", SECOND_SCHEDULE="cosine")
    assert value_of(mine, "--lr_scheduler_type") == "cosine"


def test_other_stages_run_as_one_process(stage):
    for name in set(STAGES) - {"3_train_teacher.sh", "4_student_first.sh", "5_student_second.sh"}:
        assert "torch.distributed.run" not in stage(name, NPROC="3")


def test_defaults_equal_those_of_the_entry_points():
    """A user who calls an entry point gets the defaults of the stage; an empty value counts as unset."""
    classes = {
        "3_train_teacher.sh": (TeacherArguments,),
        "4_student_first.sh": (FirstStageArguments,),
        "5_student_second.sh": (StudentArguments, SecondStageArguments, MetaTeacherArguments),
        "6_curriculum.sh": (MetaTeacherArguments, CurriculumArguments),
        "7_eval.sh": (EvaluationArguments,),
    }
    for stage_name, parts in classes.items():
        defaults = {f.name: f.default for part in (DataArguments, *parts) for f in fields(part)}
        for variable, flag in own_variables(stage_name).items():
            if flag[2:] in defaults:
                assert same(declarations(ROOT / stage_name)[variable], defaults[flag[2:]]), f"{stage_name}: {variable}"


def same(text: str, default) -> bool:
    """Whether a variable's default means the same as a flag's."""
    if default is None or default == "" or text == "":
        return text == (default or "")
    return bool(int(text)) == default if isinstance(default, bool) else type(default)(text) == default


def test_quickstart_takes_no_arguments():
    done = subprocess.run(["bash", str(ROOT / "scripts/quickstart.sh"), "--fast"], capture_output=True, text=True)
    assert done.returncode == 1 and "no arguments" in done.stdout


def test_quickstart_resolves_relative_folders_as_the_stages_do(tmp_path):
    for folder in ("project/scripts", "project/.venv/bin", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / "scripts/quickstart.sh", tmp_path / "project/scripts")
    (tmp_path / "project/scripts/environment.sh").touch()
    python = tmp_path / "project/.venv/bin/python"
    python.write_text('#!/bin/sh\necho "in $PWD: $CONFIG $1"\n')
    python.chmod(0o755)
    given = {name: value for name, value in os.environ.items() if name not in ("OUTPUT_DIR", "SEED")}

    def said(place: str, script: str, **variables: str) -> str:
        done = subprocess.run(["bash", script], cwd=tmp_path / place, env=given | variables, capture_output=True, text=True, check=True)
        return done.stdout

    project = f"{tmp_path}/project"
    run = f"in {tmp_path}/elsewhere: {project}/configs/sample.sh {project}/scripts/in_turn.py\n"
    away = said("elsewhere", "../project/scripts/quickstart.sh")
    assert run in away and f"All results are in {project}/outputs/sample/seed42:\n" in away
    away = said("elsewhere", "../project/scripts/quickstart.sh", OUTPUT_DIR="out", SEED="1")
    assert run in away and "All results are in out/sample/seed1:\n" in away
    home = said("project", "scripts/quickstart.sh")
    assert f"in {project}: configs/sample.sh scripts/in_turn.py\n" in home and "All results are in outputs/sample/seed42:\n" in home


def test_an_old_python_is_refused_naming_the_needed_version(tmp_path):
    for folder in ("scripts", "bin"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "scripts/environment.sh", tmp_path / "scripts")
    for name in ("requirements.txt", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, tmp_path)
    old = tmp_path / "bin/python3"
    old.write_text('#!/bin/sh\nif [ "$1" = --version ]; then echo Python 3.8.1; else exit 1; fi\n')
    old.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    command = ["bash", "scripts/environment.sh"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "Python 3.8.1" in done.stderr and "3.11 or newer" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.fixture
def run_environment_script(tmp_path):
    """Function that runs environment.sh with a stand-in for .venv's Python and returns the calls of the stand-in."""
    for folder in ("scripts", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("scripts/environment.sh", "requirements.txt", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    python, calls = tmp_path / ".venv/bin/python", tmp_path / "calls"
    python.write_text(f'#!/bin/sh\necho "[$PYTHONDONTWRITEBYTECODE] $*" >> {calls}\n')
    python.chmod(0o755)

    def run(*arguments: str, **variables: str) -> list[str]:
        calls.write_text("")
        command = ["bash", "scripts/environment.sh", *arguments]
        subprocess.run(command, cwd=tmp_path, env={**os.environ, **variables}, check=True, capture_output=True)
        return calls.read_text().splitlines()

    return run


@pytest.mark.parametrize("forbidden", ["", "1"])
def test_large_packages_are_compiled_if_bytecode_is_disabled(run_environment_script, forbidden):
    calls = run_environment_script("stages", PYTHONDONTWRITEBYTECODE=forbidden)
    imports = [line for line in calls if "-c import" in line and "torch" in line]
    assert [line.partition(" ")[0] for line in imports] == (["[]"] if forbidden else [])


def test_the_full_environment_only_adds_to_that_of_the_stages(run_environment_script):
    def locks(*arguments: str) -> list[str]:
        return [line.rpartition("=")[2] for line in run_environment_script(*arguments) if "--requirement=" in line]

    assert locks("stages") == ["requirements.lock"] and locks("stages") == []
    assert locks() == ["requirements-dev.lock"] and locks() == locks("stages") == []


def test_environment_refuses_unknown_arguments():
    done = subprocess.run(["bash", str(ROOT / "scripts/environment.sh"), "--dev"], capture_output=True, text=True)
    assert done.returncode == 1 and "unknown arguments --dev; use no argument" in done.stderr


def test_the_locks_hold_every_requirement_with_hashes():
    def locked(name: str) -> dict[str, str]:
        text = (ROOT / name).read_text()
        assert all("--hash=sha256:" in part for part in re.split(r"^(?=[\w.-]+==)", text, flags=re.M)[1:])
        assert not re.search(r"^(torch|nvidia|cuda|triton)", text, re.M)  # their files differ by build
        return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.M))

    def wanted(name: str) -> set[tuple[str, str]]:
        pairs = {line.replace("_", "-").partition("==")[::2] for line in (ROOT / name).read_text().split()}
        return {pair for pair in pairs if pair[0] != "torch"}

    stages, rest = locked("requirements.lock"), locked("requirements-dev.lock")
    assert wanted("requirements.txt") <= stages.items(), "call scripts/lock.sh"
    for name in ("requirements-dev.txt", "requirements-export.txt", "requirements-data.txt", "requirements-search.txt"):
        assert wanted(name) <= (stages | rest).items(), "call scripts/lock.sh"
    assert not {"pytest", "wandb", "pyarrow", "onnx"} & stages.keys()


def test_docker_ignores_the_environment_outputs_and_data():
    kept = (ROOT / ".dockerignore").read_text().split()
    assert {".venv", "outputs", "data/*"} <= set(kept)


def test_a_single_domain_in_domains_overrides_the_target_of_the_config(stage):
    def domain_of(**variables) -> tuple[str, str]:
        done = stage("4_student_first.sh", config="DOMAIN=CB\nDOMAINS=\n", check=False, **variables)
        said = [line for line in done.stderr.splitlines(keepends=True) if "from the environment:" not in line]
        return value_of(done.stdout.split("\n"), "--domain"), "".join(said)

    name, said = domain_of(DOMAINS="WiC")
    assert name == "WiC" and "DOMAIN=WiC, the only domain of DOMAINS, overrides DOMAIN=CB from" in said
    assert domain_of(DOMAINS="WiC, RTE") == domain_of(DOMAINS="") == domain_of() == ("CB", "")
    assert domain_of(DOMAINS="WiC", DOMAIN="RTE") == ("RTE", "")


# Features that macOS lacks, as its bash is 3.2 and its tools are BSD's.
NEWER = {
    "of bash 4 or newer": r"\b(mapfile|readarray|coproc)\b|\b(declare|local|typeset) -[a-zA-Z]*[Agnlu]|\$\{!?\w+(\[@\])?(,|\^|@[A-Za-z]\})"
    r"|&>>|\|&|;;?&|\[\[ -v\b|\bwait -n\b|printf [^|]*%\(|\bEPOCH(SECONDS|REALTIME)\b|\bglobstar\b|\[-1\]|\$\{\w+:[^}]*: -",
    "of GNU alone": r"\breadlink -[a-z]*[fe]|\brealpath\b|\bsed -[a-zA-Z]*[iz]|\bdate -d|\bstat -c|\bxargs -r|\bgrep -[a-zA-Z]*P"
    r"|\bsort -[a-zA-Z]*V|\bhead -n -|\btac\b|\bnproc\b|\btimeout\b|\bflock\b|\bcp -[a-zA-Z]*T|\bmktemp --",
}


@pytest.mark.parametrize("script", sorted([*ROOT.glob("*.sh"), *ROOT.glob("*/*.sh")]), ids=lambda path: path.name)
def test_scripts_use_nothing_that_macos_lacks(script):
    for number, line in enumerate(script.read_text().splitlines(), start=1):
        code = "" if line.lstrip().startswith("#") else line
        for what, pattern in NEWER.items():
            assert not (found := re.search(pattern, code)), f"{script.name} line {number}: {found and found[0]!r} is {what}"


def test_the_patterns_find_what_macos_lacks():
    for line in ("mapfile -t names", "local -A seen", "echo ${name,,}", "echo ${names[@]^}", "run &>> log", "printf '%(%s)T'", "echo ${names[-1]}"):
        assert re.search(NEWER["of bash 4 or newer"], line), line
    for line in ("readlink -f .", "sed -i s/a/b/ x", "stat -c %s x", "grep -oP x", "head -n -1 x", "jobs=$(nproc)"):
        assert re.search(NEWER["of GNU alone"], line), line
