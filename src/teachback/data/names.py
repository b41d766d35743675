"""Validation of user-given domain and label names, and folder names of domains."""

import re
from urllib.parse import quote, unquote

LONGEST = 60  # characters of a domain's name
NAME_BYTES = 255  # of a file's or folder's name
# The longest addition to a domain's folder name in a file name, that of stage 7's predictions.
LONGEST_AROUND = "__student_finetune-train.tsv"
LONGEST_LABEL = 200
EVERY = "all"  # DOMAIN=all
SEPARATORS = re.compile(r"[\s,]")  # between the names in DOMAINS
# Names used beside the domains' folders, and names that would be hidden or lead out of the parent folder.
TAKEN = re.compile(r"\.|teacher-|(logs|predictions|submission|results\.tsv|costs\.tsv|report\.html)$", re.IGNORECASE)


def domain_name_problem(name: str) -> str:
    """Reason why a domain name is invalid; "" if it is valid."""
    if not name:
        return "empty domain"
    if len(name) > LONGEST:
        return f"domain {name[:LONGEST]!r}... has {len(name)} characters; at most {LONGEST} are allowed, as it names a folder"
    if SEPARATORS.search(name) or not name.isprintable():
        return f"domain {name!r} contains a blank, a comma or an invisible character, so DOMAINS could not name it"
    room = NAME_BYTES - len(LONGEST_AROUND)
    if (taken := len(folder_name(name))) > room:
        return f"domain {name!r} takes {taken} bytes in the name of a folder (3 for each byte that is not ASCII); at most {room} fit"
    if name.startswith("-") or name == EVERY:
        return f"domain {name!r} would be read as a flag, or as DOMAIN=all; give it another name"
    return ""


def label_name_problem(name: str) -> str:
    """Reason why a label name is invalid; "" if it is valid."""
    return f"the label has {len(name)} characters; are the columns swapped?" if len(name) > LONGEST_LABEL else ""


def folder_name(domain: str) -> str:
    """Percent-encode a domain name for use as a folder: ASCII letters, digits and . _ + - stay, other bytes become %XX.

    The mapping is injective, and never gives a hidden name, a path elsewhere or the name of a stage's file.
    """
    name = quote(domain, safe="+").replace("~", "%7E")
    return f"%{ord(name[0]):02X}{name[1:]}" if TAKEN.match(name) else name


def domain_of_folder(name: str) -> str:
    """Inverse of `folder_name`."""
    return unquote(name)
