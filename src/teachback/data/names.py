"""Names of the user's domains and labels: what they may be, and the folders that domains' names become."""

import re
from urllib.parse import quote, unquote

LONGEST = 60  # characters of a domain's name
NAME_BYTES = 255  # of a file's or folder's name
# What is put around a domain's folder name in the longest name of a file that is made of it, stage 7's predictions.
LONGEST_AROUND = "__student_finetune-train.tsv"
LONGEST_LABEL = 200
EVERY = "all"  # DOMAIN=all
SEPARATORS = re.compile(r"[\s,]")  # between the names in DOMAINS
# What else lies in the folder that holds those of the domains, and what would be hidden or lead out of it.
TAKEN = re.compile(r"\.|teacher-|(logs|predictions|submission|results\.tsv|costs\.tsv|report\.html)$", re.IGNORECASE)


def domain_misfit(name: str) -> str:
    """What keeps a name from being a domain's, "" if nothing does."""
    if not name:
        return "empty domain"
    if len(name) > LONGEST:
        return f"domain {name[:LONGEST]!r}... has {len(name)} characters; at most {LONGEST} can name a folder"
    if SEPARATORS.search(name) or not name.isprintable():
        return f"domain {name!r} holds a blank, a comma or an invisible character; DOMAINS could not name it"
    room = NAME_BYTES - len(LONGEST_AROUND)
    if (taken := len(folder_name(name))) > room:
        return f"domain {name!r} takes {taken} bytes in the name of a folder (3 for each byte that is not ASCII), and {room} fit"
    if name.startswith("-") or name == EVERY:
        return f"domain {name!r} would be taken for a flag, or for DOMAIN=all; give it another name"
    return ""


def label_misfit(name: str) -> str:
    """What keeps a text from being a label, "" if nothing does."""
    return f"label of {len(name)} characters; are the columns swapped?" if len(name) > LONGEST_LABEL else ""


def folder_name(domain: str) -> str:
    """A domain's name as that of a folder: letters, digits and . _ + - of ASCII stay, of others %XX for each byte.

    No two names share a folder's; none is hidden, leads elsewhere, or is that of a stage's own file.
    """
    name = quote(domain, safe="+").replace("~", "%7E")
    return f"%{ord(name[0]):02X}{name[1:]}" if TAKEN.match(name) else name


def domain_of_folder(name: str) -> str:
    """The domain whose `folder_name` this is."""
    return unquote(name)
