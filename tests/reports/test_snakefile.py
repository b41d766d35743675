"""Tests of a table's Snakemake workflow: order, marks, retries and GPUs with fake stages, and two cells of the generated suite."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_reproduce import ROOT, command, home  # noqa: F401  (a fixture)
from test_reproduce_cells import cell, place, ran  # noqa: F401  (a fixture)

from teachback.core.errors import TeachbackError
from teachback.reports.snakefile import snakefile

PLACES = [ROOT / ".venv/snakemake/bin", Path(sys.executable).parent, *os.environ["PATH"].split(os.pathsep)]
SNAKEMAKE = shutil.which("snakemake", path=os.pathsep.join(map(str, PLACES)))
needs_snakemake = pytest.mark.skipif(not SNAKEMAKE, reason="needs snakemake, see requirements-engines.txt")

# Records its seed and GPU, and copies the file `result` to stage.json.
STAGE = """
echo "$SEED ${CUDA_VISIBLE_DEVICES-}" >> "$HOME/ran"
mkdir -p "$OUTPUT_DIR/sample/seed$SEED/teacher-mix" && cp "$HOME/result" "$OUTPUT_DIR/sample/seed$SEED/teacher-mix/stage.json"
"""


@pytest.fixture
def table(place):  # noqa: F811
    """Two cells of a fake stage, of which the second needs the first."""
    (place.root / "3_train_teacher.sh").write_text(STAGE)
    (place.root / "result").write_text("a")
    places = {"OUTPUT_DIR": str(place.root / "out"), "SUITE": "sample", "DOMAIN": "all"}
    first, second = cell(place, 1), cell(place, 2, "teacher.seed1")
    return place, [replace(one, variables=one.variables | places) for one in (first, second)]


def write(table, **changes) -> Path:
    place, cells = table  # noqa: F811
    options = {"threads": 1, "retries": 0, "gpus": None} | changes
    path = place.root / "Snakefile"
    path.write_text(snakefile("metakd_amazon", place.root, cells, place, **options))
    return path


def snakemake(path: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [SNAKEMAKE, "--rerun-triggers", "mtime", "--cores", "2", *flags], cwd=path.parent, capture_output=True, text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(path.parent / "cache"), **variables},
    )  # fmt: skip


@needs_snakemake
def test_cells_run_in_order_and_again_only_if_their_inputs_change(table):
    place, (first, second) = table  # noqa: F811
    done = snakemake(write(table))
    assert done.returncode == 0, done.stderr
    assert ran(place) == ["1", "2"] and first.mark("done").is_file() and second.log.is_file()
    assert re.fullmatch("[0-9a-f]{64}  -\n", first.mark("stages").read_text())
    assert "Nothing to be done" in snakemake(write(table)).stderr  # the rewritten Snakefile and scripts are unchanged

    subprocess.run(["bash", first.script], check=True)  # remade with the same result, as another launcher may do
    assert "Nothing to be done" in snakemake(place.root / "Snakefile").stderr
    (place.root / "result").write_text("b")
    subprocess.run(["bash", first.script], check=True)  # remade with another result, which makes the cell that needs it stale
    assert snakemake(place.root / "Snakefile").returncode == 0 and ran(place)[2:] == ["1", "1", "2"]
    (place.root / "config.sh").write_text("EPOCHS=2\n")  # other settings change the scripts
    assert snakemake(write(table)).returncode == 0 and ran(place)[5:] == ["1", "2"]


@needs_snakemake
def test_a_stopped_cell_is_retried(table):
    place, (first, _) = table  # noqa: F811
    stop = 'if [[ ! -e $HOME/stopped ]]; then touch "$HOME/stopped"; exit 143; fi\n'
    (place.root / "3_train_teacher.sh").write_text(STAGE + stop)
    assert snakemake(write(table)).returncode == 1 and first.mark("failed").read_text() == "143\n"
    assert not first.mark("stages").exists()
    (place.root / "stopped").unlink()
    assert snakemake(write(table, retries=1)).returncode == 0 and ran(place) == ["1", "1", "1", "2"]


@needs_snakemake
def test_parallel_cells_have_a_gpu_each(table):
    place, (first, second) = table  # noqa: F811
    both = 'until [[ $(wc -l < "$HOME/ran") -ge 2 || $SECONDS -gt 60 ]]; do sleep 0.02; done\n'
    (place.root / "3_train_teacher.sh").write_text(STAGE + both)
    alone = (place, [first, replace(second, needs=())])
    assert snakemake(write(alone, gpus=["2", "5"]), "--resources", "gpu=2").returncode == 0
    used = [line.split() for line in (place.root / "ran").read_text().splitlines()]
    assert {seed for seed, _ in used} == {"1", "2"} and {gpu for _, gpu in used} == {"2", "5"}
    first.mark("stages").unlink()
    assert snakemake(write(alone, gpus=["2", "5"]), CUDA_VISIBLE_DEVICES="7").returncode == 0  # as a scheduler sets it
    assert (place.root / "ran").read_text().splitlines()[2:] == ["1 7"]


def test_unprocessed_data_and_braces_in_paths_are_refused(table):
    place, cells = table  # noqa: F811
    data = replace(cells[0], name="data", scripts=("1_get_data.sh", "2_process_data.sh"))
    with pytest.raises(TeachbackError, match="which does not exist; create it first with .export .*bash 2_process_data.sh"):
        write((place, [data, *cells]))
    with pytest.raises(TeachbackError, match="treats braces in .* as wildcards"):
        snakefile("metakd_amazon", place.root / "{x}", cells, place, 1, 0, None)


@needs_snakemake
def test_the_command_line_makes_a_workflow_of_two_cells(home):  # noqa: F811
    part = {"ROWS": "mix-tinybert", "SEEDS": "4", "DOMAIN": "books", "DOMAINS": "books dvd"}
    made = command(home, "metakd_amazon", "--snakefile", RETRIES="1", **part)
    assert made.returncode == 0, made.stderr
    (home / "Snakefile").write_text(made.stdout)
    assert "RETRIES = 1" in made.stdout and "'gpu'" not in made.stdout  # DEVICE=cpu
    done = snakemake(home / "Snakefile")
    assert done.returncode == 0, done.stderr
    listed = command(home, "metakd_amazon", "--dry_run", "--list_cells", **part).stdout.splitlines()
    assert [line.split()[:2] for line in listed] == [
        ["done", "teacher-mix.seed4"],
        ["done", "mix-tinybert.books.seed4"],
    ]
    refused = command(home, "metakd_amazon", "--snakefile", "--dry_run", **part)
    assert refused.returncode == 1 and "use only one of them" in refused.stderr
