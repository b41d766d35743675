"""Import budgets: modules that a command loads, which are counted because seconds depend on the machine."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from teachback.data.download import get_data
from teachback.data.suites import definition
from teachback.stages.stage2_arguments import ProcessArguments
from teachback.stages.stage2_data import process

ROOT = Path(__file__).parents[1]
ARGUMENTS = {
    "get_data": "teachback.stages.stage1_arguments GetDataArguments",
    "process_data": "teachback.stages.stage2_arguments ProcessArguments",
    "train_teacher": "teachback.core.arguments TEACHER_STAGE",
    "distill_student": "teachback.core.arguments STUDENT_STAGES",
    "curriculum": "teachback.core.arguments CURRICULUM_STAGE",
    "evaluate": "teachback.stages.stage7_arguments EvaluationArguments",
}
WORK = {
    "process_data": "teachback.stages.stage2_data",
    "train_teacher": "teachback.stages.stage3_teacher",
    "distill_student": "teachback.stages.distillation",
    "curriculum": "teachback.stages.stage6_curriculum",
    "evaluate": "teachback.stages.stage7_evaluate",
}
TRAINING = ("train_teacher", "distill_student", "curriculum")
NEEDLESS = {"sklearn", "scipy", "pandas", "datasets", "matplotlib"}  # take a second or more to import, three together
LOADED = "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"


def loaded(code: str) -> set[str]:
    """Names of the modules that a new interpreter has after running ``code``."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code + LOADED], env=environment, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("script", ARGUMENTS)
def test_help_loads_neither_pytorch_nor_the_work_of_a_stage(script):
    """--help and wrong flags end the program while it parses the command line, so it is run up to that point."""
    code = f"import runpy, sys\nsys.argv = ['{script}.py', '--help']\ntry:\n    runpy.run_path('{ROOT}/scripts/{script}.py', run_name='__main__')"
    modules = loaded(code + "\nexcept SystemExit:\n    pass")
    assert not modules & (NEEDLESS | {"torch", "accelerate"})
    assert {name for name in modules if name.startswith("teachback.stages.")} <= {name.split()[0] for name in ARGUMENTS.values()} | {"teachback.stages"}
    assert len(modules) < 1200


@pytest.mark.parametrize("scripts", [("process_data",), TRAINING, ("evaluate",)])
def test_stages_load_only_the_libraries_that_they_use(scripts):
    """The stages that train share an interpreter: a library that it does not have is loaded by none of them."""
    code = "from teachback.core.parsing import parse\n"
    for script in scripts:
        module, name = ARGUMENTS[script].split()
        code += f"from {module} import {name} as kinds\n"
        code += f"parse(*(kinds if isinstance(kinds, tuple) else [kinds]), argv=[])\nimport {WORK[script]}\n"
    modules = loaded(code)
    assert not modules & NEEDLESS
    assert ("transformers.trainer" in modules) == (scripts == TRAINING)
    assert len(modules) < 3300


def test_stage_1_runs_without_pytorch(tmp_path):
    code = f"import runpy, sys\nsys.argv = ['get_data.py', '--suite', 'sample', '--data_dir', '{tmp_path}']\n"
    modules = loaded(code + f"runpy.run_path('{ROOT}/scripts/get_data.py', run_name='__main__')")
    assert (tmp_path / "raw/sample/content").is_dir()
    assert not modules & (NEEDLESS | {"torch", "accelerate"})


def test_stage_2_runs_without_pytorch_if_it_is_up_to_date(tmp_path):
    get_data(definition("sample"), tmp_path, "", False, 42, "")
    process(ProcessArguments(suite="sample", data_dir=str(tmp_path), embedding_model="scratch:tiny"))
    flags = ["--suite", "sample", "--data_dir", str(tmp_path), "--embedding_model", "scratch:tiny"]
    run = f"import runpy, sys\nsys.argv = {['process_data', *flags]}\nrunpy.run_path('{ROOT}/scripts/process_data.py', run_name='__main__')"
    made = (tmp_path / "sample/stage.json").stat().st_mtime_ns
    modules = loaded(run)
    assert (tmp_path / "sample/stage.json").stat().st_mtime_ns == made
    assert modules & NEEDLESS == set() and ("torch" in modules) == (not version("torch").endswith("+cpu"))


def test_transformers_has_the_availability_checks_that_parse_replaces():
    """A check that transformers has renamed would no longer be replaced."""
    from teachback.core.parsing import UNUSED

    code = "\n".join(f"from transformers.utils import {name}" for name in UNUSED)
    assert "transformers.utils.import_utils" in loaded(code)


def test_garbage_collection_pauses_during_imports_and_then_resumes():
    code = """
import gc, weakref
from teachback.core.imports import garbage_collection_paused
class Cycle: pass
try:
    with garbage_collection_paused():
        assert not gc.isenabled()
        raise ImportError
except ImportError:
    pass
assert gc.isenabled() and gc.get_freeze_count()
one = Cycle()
one.itself, seen = one, weakref.ref(one)
del one
gc.collect()
assert seen() is None
"""
    loaded(code)
