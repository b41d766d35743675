"""Variables that the shell scripts declare, a line each: ``: "${NAME=default}" --flag  # meaning``."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from teachback.core.places import scripts_root

LINE = re.compile(
    r'^: "\$\{([A-Z][A-Z0-9_]*)=(?:\$\{beside\})?([^}]*)\}"(?: (--[a-z_]+|no flag))? *(?:# *(.*))?$', re.MULTILINE
)
ELSEWHERE = re.compile(r"as in stage ([1-7])")


@dataclass(frozen=True)
class Variable:
    """A variable line of a script. ``flag``: the argument of Python that it sets, without hyphens; "" if none."""

    name: str
    default: str
    flag: str
    meaning: str


@cache
def declared(script: Path) -> dict[str, Variable]:
    """Variables of a script by name, in the order of their lines; a meaning "as in stage 3" is that of the stage."""
    variables = {}
    for name, default, flag, meaning in LINE.findall(script.read_text(encoding="utf-8")):
        if reference := ELSEWHERE.fullmatch(meaning):
            (stage,) = scripts_root().glob(f"{reference[1]}_*.sh")
            meaning = declared(stage)[name].meaning
        python = "" if flag == "no flag" else flag.lstrip("-") or name.lower()
        variables[name] = Variable(name, default, python, meaning)
    return variables


def flag_meanings(entry_point: str) -> dict[str, str]:
    """Meanings of the flags that variables set: those of the scripts that start a Python script of this name, then of others."""
    start = re.compile(rf"^(run|launch) scripts/{re.escape(entry_point)}\b", re.MULTILINE)
    scripts = sorted((*scripts_root().glob("[1-7]_*.sh"), *scripts_root().glob("scripts/*.sh")))
    scripts.sort(key=lambda script: not start.search(script.read_text(encoding="utf-8")))
    meanings: dict[str, str] = {}
    for variable in (one for script in scripts for one in declared(script).values()):
        meanings.setdefault(variable.flag, variable.meaning)
    return meanings
