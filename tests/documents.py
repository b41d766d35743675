"""Checks of what Markdown pages say about this repository; each problem is reported with file and line."""

import argparse
import ast
import importlib
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from unittest.mock import patch

from commands import ROOT, SCRIPTS, STAGES, declarations, entry_point
from markdown_it import MarkdownIt

from teachback.core import parsing
from teachback.core.options import Parser

FOLDERS = ("benchmarks", "configs", "docs", "examples", "scripts", "src", "tests")
KINDS = {".cff", ".ipynb", ".md", ".py", ".sh", ".svg", ".toml", ".txt"}  # of files in this repository
MADE = {"best.sh", "checks.md", "table.md", "texts.txt"}  # files that stages and users write
PYTHONS = {"python", "python3", ".venv/bin/python"}
OTHERS_VARIABLES = {
    "CUDA_VISIBLE_DEVICES", "GOMP_SPINCOUNT", "HF_HUB_OFFLINE", "HF_TOKEN", "KMP_BLOCKTIME", "NCCL_SOCKET_IFNAME", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "PET_NNODES",
    "PET_RDZV_BACKEND", "PET_RDZV_ENDPOINT", "PET_RDZV_ID", "PYTHONPATH", "TOKENIZERS_PARALLELISM", "WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT",
    "SLURM_NNODES", "SLURM_CPUS_PER_TASK", "SRUN_CPUS_PER_TASK",
}  # fmt: skip
OTHERS_FLAGS = {  # of sbatch, pip and snakemake
    "--partition", "--gres", "--time", "--requeue", "--signal", "--nodes", "--no-deps", "--rerun-triggers", "--resources",
    "--set-resources", "--executor", "--jobs", "--default-resources",
}  # fmt: skip
ALL_VARIABLES = ("scripts/reproduce.sh", "scripts/quickstart.sh", "scripts/search.sh")  # pass variables on to the stages
THEIRS = "theirs"  # header of a table column about other projects' files and flags


@dataclass(frozen=True)
class Piece:
    """A link's target, a code span, or a fenced block of code with its language, and the line where it starts."""

    line: int
    text: str
    language: str = ""


@dataclass
class Page:
    """A parsed page. ``anchors`` are those that GitHub gives its headings."""

    path: Path
    links: list[Piece] = field(default_factory=list)
    spans: list[Piece] = field(default_factory=list)
    blocks: list[Piece] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Command:
    """A simple command: the variables assigned before it, and its words."""

    line: int
    assigned: dict[str, str]
    words: list[str]


@cache
def read_page(path: Path) -> Page:
    """Parse a page, or the Markdown cells of a notebook; code spans in table columns headed ``theirs`` are left out."""
    page, heading, column, foreign = Page(path), False, 0, False
    for token in MarkdownIt("commonmark").enable("table").parse(_markdown(path)):
        if token.type == "fence":
            page.blocks.append(Piece(token.map[0] + 2, token.content, token.info.strip()))
        elif token.type in ("heading_open", "heading_close"):
            heading = token.nesting == 1
        elif token.type in ("th_open", "td_open"):
            column += 1
        elif token.type == "tr_open":
            column = 0
        elif token.type == "table_close":
            column, foreign = 0, False
        elif token.type == "inline":
            if heading:
                page.anchors.add(anchor(token.content))
            foreign = foreign or (column == 1 and token.content == THEIRS)
            _take(page, token, token.map[0] + 1, spans=not (foreign and column == 1))
    return page


def _markdown(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


def _take(page: Page, inline, line: int, spans: bool) -> None:
    for child in inline.children:
        if child.type in ("softbreak", "hardbreak"):
            line += 1
        elif child.type == "code_inline" and spans:
            page.spans.append(Piece(line, child.content))
        elif child.type in ("link_open", "image"):
            page.links.append(Piece(line, child.attrs["href" if child.type == "link_open" else "src"]))


def anchor(heading: str) -> str:
    """GitHub's anchor of a heading: lower case, hyphens for blanks, other punctuation removed."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def commands(piece: Piece) -> Iterator[Command]:
    """Split a piece of shell code into simple commands."""
    lines, begun = [], piece.line
    for number, line in enumerate(piece.text.splitlines(), start=piece.line):
        lines.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            yield from _simple(begun, " ".join(lines).strip().removeprefix("$ "))
            lines, begun = [], number + 1


def _simple(line: int, text: str) -> Iterator[Command]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    assigned, words = {}, []
    for word in [*lexer, ";"]:
        if not set(word) <= set("|&;"):
            name, _, value = word.partition("=")
            if not [w for w in words if w != "export"] and re.fullmatch(r"[A-Za-z_]\w*", name) and "=" in word:
                assigned[name] = value
            else:
                words.append(word)
        elif assigned or words:
            yield Command(line, assigned, words)
            assigned, words = {}, []


def problems(page: Page) -> list[str]:
    """Problems of a page, as ``file:line: problem``."""
    found = [(piece.line, what) for piece in page.links if (what := wrong_link(page, piece.text))]
    for piece in page.blocks:
        if piece.language in ("bash", "sh"):
            found += wrong_block(piece)
        elif piece.language == "python":
            found += [(piece.line + line, what) for line, what in wrong_imports(piece.text)]
    found += [(piece.line, what) for piece in page.spans for what in wrong_span(piece)]
    shown = page.path.relative_to(ROOT) if page.path.is_relative_to(ROOT) else page.path.name
    return [f"{shown}:{line}: {what}" for line, what in sorted(set(found))]


def wrong_block(piece: Piece) -> list[tuple[int, str]]:
    """Problems of a block of shell code, with their lines."""
    try:
        return [(command.line, what) for command in commands(piece) for what in wrong_command(command)]
    except ValueError as error:
        return [(piece.line, f"the shell could not read this block ({error})")]


def wrong_link(page: Page, target: str) -> str:
    """Problem of a link, "" if there is none; links to other sites are not followed."""
    if re.match(r"[a-z]+:", target):
        return ""
    place, _, wanted = target.partition("#")
    path = (page.path.parent / place).resolve() if place else page.path
    if not path.exists():
        return f"the link {target} leads to no file"
    if wanted and wanted not in read_page(path).anchors:
        return f"the link {target} leads to no heading"
    return ""


def wrong_span(piece: Piece) -> Iterator[str]:
    """Problems of a code span: a file, variable, flag, command or name in the library that does not exist."""
    text = piece.text
    if " " not in text:
        yield from wrong_path(text)
        yield from wrong_name(text)
    if re.fullmatch(r"[A-Z]+_[A-Z_\d]+", text) and text not in all_variables() | OTHERS_VARIABLES:
        yield f"{text} is no variable of any script"
    try:
        found = list(commands(piece))
    except ValueError:  # an apostrophe, so the span is not shell code
        return
    for command in found:
        yield from wrong_command(command)
        if not _program(command.words):
            unknown = [flag for flag in _flags(command.words) if flag not in all_flags() | OTHERS_FLAGS]
            yield from (f"no program here has the flag {flag}" for flag in unknown)


def wrong_path(word: str) -> Iterator[str]:
    """Problem of a word that names a missing file of this repository."""
    if re.search(r"[<>$*…(=]|\.\.\.", word) or Path(word).name in MADE:
        return
    inside = word.split("/")[0] in FOLDERS
    named = "/" not in word and Path(word).suffix in KINDS and not word.startswith((".", "-"))
    if inside and not (ROOT / word).exists():
        yield f"there is no {word}"
    if named and not (ROOT / word).exists() and not any(any((ROOT / f).rglob(word)) for f in FOLDERS):
        yield f"there is no file {word}"


def wrong_name(text: str) -> Iterator[str]:
    """Problem of a ``module.name`` whose module belongs to the library but has no such name."""
    match = re.fullmatch(r"(?:teachback\.)?([a-z_]+)\.([A-Za-z_]\w*)(?:\.(\w+))?(?:\(\))?", text)
    if (
        match
        and match[2] not in ("html", "json", "py", "toml", "tsv")
        and (module := _module(match[1]))
    ):
        thing = getattr(importlib.import_module(module), match[2], None)
        if thing is None or (match[3] and not hasattr(thing, match[3])):
            yield f"teachback has no {text}"


def _module(name: str) -> str | None:
    """Dotted path of the library's module called ``name``, in any folder; None without one."""
    found = sorted((ROOT / "src/teachback").rglob(f"{name}.py"))
    return ".".join(found[0].relative_to(ROOT / "src").with_suffix("").parts) if found else None


def wrong_command(command: Command) -> Iterator[str]:
    """Problems of a command: its script, the variables before it, its flags, the files that it names."""
    program = _program(command.words)
    if program and not (ROOT / program).is_file():
        yield f"there is no script {program}"
        return
    known = variables_of(program) if program in shell_scripts() else all_variables()
    unknown = [name for name in command.assigned if name.isupper() and name not in known | OTHERS_VARIABLES]
    yield from (f"{name} is no variable of {program or 'any script'}" for name in unknown)
    yield from (what for value in command.assigned.values() for what in wrong_path(value) if "/" in value)
    yield from (what for word in command.words for what in wrong_path(word) if "/" in word)
    if program and program != "scripts/test.sh":
        yield from (f"{program} has no flag {flag}" for flag in _flags(command.words) if flag not in flags(program))


def _program(words: list[str]) -> str:
    """Script of this repository that a command runs, "" if it runs something else."""
    words = [word for word in words if word not in ("nice", "srun", "exec", "time")]
    if len(words) > 1 and (words[0] == "bash" or words[0] in PYTHONS) and words[1].endswith((".sh", ".py")):
        return words[1]
    return ""


def _flags(words: list[str]) -> list[str]:
    return [word.split("=")[0] for word in words if re.match(r"--[a-z]", word)]


@cache
def shell_scripts() -> set[str]:
    return {*STAGES, *(f"scripts/{path.name}" for path in SCRIPTS.glob("*.sh"))}


def variables_of(script: str) -> set[str]:
    """Variables that may be set before a shell script."""
    if script in ALL_VARIABLES:
        return all_variables()
    return {*declarations(ROOT / script), *declarations(SCRIPTS / "common.sh")}


@cache
def all_variables() -> set[str]:
    return {name for script in shell_scripts() for name in declarations(ROOT / script)}


@cache
def all_flags() -> set[str]:
    return set().union(*map(flags, programs()))


@cache
def programs() -> list[str]:
    """Programs of this repository that take flags."""
    own = [path for folder in ("scripts", "benchmarks", "examples") for path in (ROOT / folder).glob("*.py")]
    return [str(path.relative_to(ROOT)) for path in own if "\nif __name__" in path.read_text(encoding="utf-8")]


@cache
def flags(program: str) -> set[str]:
    """The flags of a stage, of an entry point, or of another program with argparse."""
    if program.endswith(".sh"):
        entry = entry_point(ROOT / program)
        return flags(entry) | {"--help", "--check"} if entry else set()
    if program == "benchmarks/breaking.py":  # runs another program
        return set()
    return {flag for parser in _with_subparsers(_parser_of(program)) for flag in parser._option_string_actions}


class _ParserReached(BaseException):
    """Raised where a program would parse its command line; carries its parser."""


@cache
def load(program: str):
    """Import a program as a module; it may import the other modules of its folder."""
    spec = importlib.util.spec_from_file_location(f"documented_{Path(program).stem}", ROOT / program)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module there
    with patch.object(sys, "path", [str((ROOT / program).parent), *sys.path]):
        spec.loader.exec_module(module)
    return module


def _parser_of(program: str) -> argparse.ArgumentParser:
    def stop(parser, *_, **__):
        raise _ParserReached(parser)

    def parse(*classes):
        stop(Parser(classes))

    module = load(program)
    with patch.object(parsing, "parse", parse), patch.object(argparse.ArgumentParser, "parse_known_args", stop):
        try:
            module.main()
        except _ParserReached as asked:
            return asked.args[0]
    raise AssertionError(f"{program} parsed no command line")


def _with_subparsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def wrong_imports(code: str) -> Iterator[tuple[int, str]]:
    """Names that Python code imports from the library but that do not exist, with their line from 0."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "teachback":
            module = importlib.import_module(node.module)
            for name in node.names:
                if not hasattr(module, name.name):
                    yield node.lineno - 1, f"{node.module} has no {name.name}"


@cache
def messages() -> tuple[str, ...]:
    """Strings of the library and the scripts that may be printed, with … in place of inserted values."""
    found = [
        re.sub(r"%[sdr.\d]*[sdrf]", "…", text)
        for folder in ("src/teachback", "scripts")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if " " in (text := _text_of(node))
    ]
    shell = [path.read_text(encoding="utf-8") for path in SCRIPTS.glob("*.sh")]
    return (*found, *(re.sub(r"\$\{[^}]*\}|\$\w+", "…", line) for text in shell for line in text.splitlines()))


def _text_of(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


def unprinted(page: Page) -> list[str]:
    """Lines of a page's text blocks that match no message; the parts between … must occur in order."""
    lines = [
        (piece.line + number, line)
        for piece in page.blocks if piece.language == "text"
        for number, line in enumerate(piece.text.splitlines())
    ]  # fmt: skip
    return [f"{page.path.name}:{number}: nothing prints: {line}" for number, line in lines if not _is_printed(line)]


def _is_printed(line: str) -> bool:
    """Whether a message contains all parts of the line, or equals it but for inserted values."""
    return any(_pattern(line).search(message) for message in messages()) or any(
        _pattern(message).fullmatch(line) for message in messages() if len(message.replace("…", "")) > 20
    )


@cache
def _pattern(text: str) -> re.Pattern:
    return re.compile(".*".join(map(re.escape, text.split("…"))), re.DOTALL)
