"""Documentation: links, files, commands, variables, flags and names in pages exist, and README links to every page."""

import re
import subprocess
import sys
from dataclasses import fields

import pytest
from commands import ROOT, STAGES
from documents import Piece, commands, flags, load, problems, programs, read_page, unprinted

from teachback.core.variables import ELSEWHERE, LINE, declared

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data/README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))

WRONG = """# A page

A [link](nowhere.md), [another](#not-here), [a good one](#a-page) and ![a picture](no.svg). `scripts/nothing.sh` and
`nothing.py` are not there, `losses.hard_label_loss` is and
`losses.soft_label_loss` is not.

| theirs | `LEARNING_RATE` |
|---|---|
| `their.py --their_flag` | `our.py` |

```bash
DOMAIN=books TEACHER_EPOCHS=2 bash 4_student_first.sh --learning_rate 1e-4 --lr 3   # FALSE=1 is a comment
OMP_NUM_THREADS=1 bash 8_more.sh && bash scripts/predict.sh <folder> --window 3 \\
    --windows 4 | head
export CONFIG=configs/none.sh SEEED=1; TEACHER=mix bash scripts/quickstart.sh
python examples/support_tickets.py make x.csv --count 3 --counts 4
.venv/bin/python benchmarks/bench_stages.py --stages 45 --stage 6
```

```bash
bash 7_eval.sh --split "dev
```

Take `--no_such_flag`, `--dry_run`, `EPOCHES=3 bash 3_train_teacher.sh`, or `TEACHER_EPOCHES`; it doesn't `matter's`.

```python
from teachback import MPDistil, MetaKB
```
"""

FOUND = """\
3: the link #not-here leads to no heading
3: the link no.svg leads to no file
3: the link nowhere.md leads to no file
3: there is no scripts/nothing.sh
4: there is no file nothing.py
5: teachback has no losses.soft_label_loss
7: LEARNING_RATE is no variable of any script
9: there is no file our.py
12: 4_student_first.sh has no flag --lr
12: TEACHER_EPOCHS is no variable of 4_student_first.sh
13: scripts/predict.sh has no flag --windows
13: there is no script 8_more.sh
15: SEEED is no variable of any script
15: there is no configs/none.sh
16: examples/support_tickets.py has no flag --counts
17: benchmarks/bench_stages.py has no flag --stage
21: the shell could not read this block (No closing quotation)
24: EPOCHES is no variable of 3_train_teacher.sh
24: TEACHER_EPOCHES is no variable of any script
24: no program here has the flag --no_such_flag
27: teachback has no MetaKB"""


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.name)
def test_everything_that_a_page_refers_to_exists(path):
    found = problems(read_page(path))
    assert not found, "\n" + "\n".join(found)


def test_problems_of_a_page_are_found_with_their_lines(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(WRONG, encoding="utf-8")
    assert "\n".join(problems(read_page(page))).replace("page.md:", "") == FOUND


def test_quoted_messages_are_printed_by_the_program(tmp_path):
    page = read_page(ROOT / "docs/troubleshooting.md")
    found = unprinted(page)
    assert sum(piece.language == "text" for piece in page.blocks) > 10 and not found, "\n" + "\n".join(found)
    wrong = tmp_path / "page.md"
    wrong.write_text("```text\n… is up to date\n… is out of date\n```\n", encoding="utf-8")
    assert unprinted(read_page(wrong)) == ["page.md:3: nothing prints: … is out of date"]


def test_readme_links_to_every_page():
    linked = {(ROOT / piece.text.partition("#")[0]).resolve() for piece in read_page(ROOT / "README.md").links}
    assert {path for path in PAGES if path.parent == ROOT / "docs"} <= linked


def test_shell_code_is_split_into_commands():
    told = list(commands(Piece(4, "A=1 bash x.sh --f 'a && b' && \\\n  python y.py  # B=2\n$ export C=3\n")))
    assert [(c.line, c.assigned, c.words) for c in told] == [
        (4, {"A": "1"}, ["bash", "x.sh", "--f", "a && b"]), (4, {}, ["python", "y.py"]), (6, {"C": "3"}, ["export"]),
    ]  # fmt: skip


def test_the_flags_of_every_program_are_found():
    told = {program: flags(program) for program in programs()}
    assert {"scripts/train_teacher.py", "benchmarks/load.py", "examples/support_tickets.py"} <= set(told)
    assert {"--teacher", "--learning_rate", "--gradient_accumulation_steps"} <= told["scripts/train_teacher.py"]
    assert "--teacher" not in told["scripts/process_data.py"] and "--json" in told["benchmarks/load.py"]


@pytest.mark.parametrize("page", ["docs/variables.md", "docs/flags.md"])
def test_the_reference_pages_match_the_scripts_and_arguments(page):
    made = load("scripts/reference_pages.py").PAGES[page]()
    written = (ROOT / page).read_text(encoding="utf-8")
    assert written == made, "run: PYTHONPATH=src python scripts/reference_pages.py"


def test_the_reference_pages_name_defaults_stages_and_flags():
    made = {path: page() for path, page in load("scripts/reference_pages.py").PAGES.items()}
    assert "| `--tkd_form` | 4, 5 | `paper` | Compare" in made["docs/flags.md"] and "`--hold_out`" not in made["docs/flags.md"]
    for row in ("`SUITE` | all | `amazon` | amazon, mnli", "`EPOCHS` `--num_train_epochs` | 3–5 |  | overrides `TEACHER_EPOCHS`",
                "`EMBEDDING_MODEL` | 2 | `TEACHER_MODEL` |", "`BATCH_SIZE` | 6 | `8` |", "`SEEDS` | `scripts/reproduce.sh` | `1 2 3 4 5` |"):  # fmt: skip
        assert f"| {row}" in made["docs/variables.md"]


def test_a_setting_is_described_in_one_place():
    """A setting is described at its variable, to which lines of other stages refer, or else at the field of its class."""
    for name, typed in typed_meanings().items():
        assert not [text for text in typed if typed.count(text) > 1 and not ELSEWHERE.fullmatch(text)], name
    pages = load("scripts/reference_pages.py")
    for script, classes in pages.SCRIPTS.items():
        by_lines = {variable.flag for variable in declared(ROOT / script).values()}
        by_fields = {f.name for kind in classes for f in fields(kind) if f.metadata.get("help")}
        assert not by_lines & by_fields, script


def typed_meanings() -> dict[str, list[str]]:
    """Variables of the stages, with the comments on their lines as written in the scripts."""
    found: dict[str, list[str]] = {}
    for stage in STAGES:
        for name, _, _, meaning in LINE.findall((ROOT / stage).read_text(encoding="utf-8")):
            found.setdefault(name, []).append(meaning)
    return found


def test_python_and_shell_help_show_the_description_of_a_variable(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["distill_student.py", "--help"])
    with pytest.raises(SystemExit):
        load("scripts/distill_student.py").main()
    said = " ".join(capsys.readouterr().out.split())
    assert "tokens per example (paper: 128) (default: 128)" in said  # stage 4 refers to stage 2
    assert "linear after a warm-up of 10 %" in said and "as in stage 2" not in said and "Compare h_d after its tanh" in said
    shell = subprocess.run(["bash", ROOT / "5_student_second.sh", "--help"], capture_output=True, text=True).stdout
    for line in (r"MAX_LENGTH=128 +tokens per example \(paper: 128\)", r"META_EPOCHS=1 +the meta-teacher's epochs on quiz"):
        assert re.search(f"^  {line}", shell, re.MULTILINE)
