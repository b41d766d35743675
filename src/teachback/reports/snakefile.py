"""A table's cells as a workflow for Snakemake, whose plugins run it on many kinds of clusters.

Cells are the same scripts that the other launchers run. The marker file that Snakemake checks holds a hash of the stage.json
files that a cell has written, so its checksum shows whether a cell that ran again has another result.
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.reports.cells import Cell, Workplace

# Of a cell by its role, generous for BERT-base on a GPU.
MINUTES = {"teacher": 360, "student": 720, "curriculum": 720}
MEMORY_MB = 16_000


def snakefile(
    name: str, folder: Path, cells: Sequence[Cell], place: Workplace, threads: int, retries: int, gpus: Sequence[str] | None
) -> str:
    """Write the scripts of all cells, and return the text of a Snakefile that runs them.

    Args:
        folder: of the table.
        gpus: GPUs of this machine, over which local jobs are distributed; None if cells do not need one.

    Raises:
        TeachbackError: there are no processed data yet, or the table's path cannot be part of a Snakefile.
    """
    by_name, home = {cell.name: cell for cell in cells}, folder.absolute()
    if makes := next((cell for cell in cells if cell.role == "data"), None):
        raise TeachbackError(f"cells depend on the content of {place.data}, which does not exist; create it first with {makes.command}")
    if set("{}") & set(str(home)):
        raise TeachbackError(f"OUTPUT_DIR: Snakemake treats braces in {home} as wildcards; use another folder")
    lines = []
    for cell in cells:
        cell.folder.mkdir(parents=True, exist_ok=True)
        place.write_script(cell, by_name)
        at = cell.folder.relative_to(folder).as_posix()
        lines.append(f"    {cell.name!r}: {(cell.role, at, [*cell.needs, *cell.after])!r},")
    gpu = {} if gpus is None else {"gpu": 1}
    resources = [
        f'    "{role}": {gpu | {"mem_mb": MEMORY_MB, "runtime": minutes}},'
        for role, minutes in MINUTES.items() if any(cell.role == role for cell in cells)
    ]  # fmt: skip
    head = [
        f"# {name} for Snakemake 9, from: bash scripts/reproduce.sh {name} --snakefile > Snakefile",
        "#     snakemake --rerun-triggers mtime --rerun-incomplete --keep-going --cores 4",
        f"# When it has ended: bash scripts/reproduce.sh {name} --only_table",
        f"FOLDER = {str(home)!r}",
        f"THREADS = {threads}  # of a cell",
        f"RETRIES = {retries}  # of a cell that fails, which resumes from its stages' last checkpoints",
        f"GPUS = {','.join(gpus or ())!r}  # over which local cells are distributed unless CUDA_VISIBLE_DEVICES is set",
        "RESOURCES = {  # mem_mb is multiplied by the attempt; runtime is in minutes",
        *resources, "}", "CELLS = {  # cell: what it makes, its folder, and the cells that it needs", *lines, "}",
    ]  # fmt: skip
    template = files("teachback.reports").joinpath("templates/Snakefile").read_text(encoding="utf-8")
    return "\n".join(head) + f"\n{template}"
