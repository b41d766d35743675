"""The console command, in a checkout and with the files that a wheel installs."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from commands import ROOT

from teachback.cli import FURTHER, STAGES, find_script, main
from teachback.core.errors import TeachbackError


def test_the_command_lists_all_scripts(capsys):
    assert sorted(STAGES) == sorted(path.name for path in ROOT.glob("[1-7]_*.sh"))
    main([])
    said = capsys.readouterr().out
    assert all(f"teachback run {Path(name).stem}" in said for name in (*STAGES, *FURTHER))
    assert "load_superglue_dataset" in said


@pytest.mark.parametrize("name", ["3_train_teacher", "3_train_teacher.sh", "predict"])
def test_a_script_is_found_by_its_name(name):
    assert find_script(name).is_file()


def test_an_unknown_script_is_refused_naming_the_available_ones():
    with pytest.raises(TeachbackError, match="teachback run 3_train: there is no such script; available: 1_get_data, .*export"):
        find_script("3_train")


def install_data_files(folder: Path) -> Path:
    """Copy the files that a wheel installs beside the package, as pyproject.toml lists them; return their folder."""
    lists = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    for place, patterns in lists.items():
        (folder / place).mkdir(parents=True)
        for path in (path for pattern in patterns for path in ROOT.glob(pattern)):
            shutil.copy(path, folder / place)
    return folder / "share/teachback"


def bash(script: Path, *flags: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT / "src")} | variables
    return subprocess.run(["bash", str(script), *flags], cwd=cwd, env=env, capture_output=True, text=True)


def test_an_installed_stage_writes_to_the_folder_of_the_caller(tmp_path):
    """Stage 1 of the sample suite runs from a folder with a blank in its name, and finds configs beside its script."""
    share, here = install_data_files(tmp_path / "prefix"), tmp_path / "my work"
    here.mkdir()
    done = bash(share / "1_get_data.sh", cwd=here, CONFIG="configs/sample.sh")
    assert done.returncode == 0, done.stderr
    assert (here / "data/raw/sample").is_dir() and not (share / "data").exists()


def test_help_of_an_installed_stage_names_the_command(tmp_path):
    said = bash(install_data_files(tmp_path) / "3_train_teacher.sh", "--help", cwd=tmp_path).stdout
    assert "teachback run 3_train_teacher --seed 2" in said and "src" not in said.splitlines()[-1].split()[0]
