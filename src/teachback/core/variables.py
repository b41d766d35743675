"""Variables that the shell scripts declare, a line each: ``: "${NAME=default}" --flag  # meaning``."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LINE = re.compile(
    r'^: "\$\{([A-Z][A-Z0-9_]*)=(?:\$\{beside\})?([^}]*)\}"(?: (--[a-z_]+|no flag))? *(?:# *(.*))?$', re.MULTILINE
)


@dataclass(frozen=True)
class Variable:
    """A variable line of a script. ``flag``: the argument of Python that it sets, without hyphens; "" if none."""

    name: str
    default: str
    flag: str
    meaning: str


@cache
def declared(script: Path) -> dict[str, Variable]:
    """Variables of a script by name, in the order of their lines."""
    lines = LINE.findall(script.read_text(encoding="utf-8"))
    return {
        name: Variable(name, default, "" if flag == "no flag" else flag.lstrip("-") or name.lower(), meaning)
        for name, default, flag, meaning in lines
    }
