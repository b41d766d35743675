"""Settings as text fit for publication: without secrets and without private paths."""

import os
import re
from collections.abc import Sequence

HIDDEN = "(hidden)"
SECRET_WORDS = {"token", "secret", "password", "passwd", "credential", "credentials", "key", "apikey"}
SECRET_VALUES = re.compile(r"hf_[A-Za-z0-9]{16,}|://[^/\s@]+@")
LEAST_SECRET = 8  # characters; shorter environment values are common words


def all_settings(record: dict) -> dict:
    """All settings of a stage: its arguments, then training arguments and paths that are not among them."""
    parts = (record.get("places", {}), record.get("training_arguments", {}), record.get("arguments", {}))
    seed = {"seed": record["seed"]} if "seed" in record else {}
    return seed | {name: value for part in parts for name, value in part.items()}


def flat(values: dict, secrets: list[str], prefix: str = "") -> dict[str, str]:
    """Flatten nested settings to name.name -> text, with the values of secret names hidden."""
    flattened: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flattened |= flat(value, secrets, f"{prefix}{name}.")
        else:
            flattened[f"{prefix}{name}"] = HIDDEN if _is_secret(str(name)) and value else readable(value, secrets)
    return flattened


def _is_secret(name: str) -> bool:
    return bool(SECRET_WORDS & set(re.split(r"[^a-z]+", name.lower())))


def readable(value, secrets: Sequence[str] = ()) -> str:
    """Value of a setting as text, with ``secrets`` hidden and paths cut to their last two parts."""
    text = "–" if value is None else ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    text = SECRET_VALUES.sub(lambda found: f"://{HIDDEN}@" if found[0].startswith("://") else HIDDEN, text)
    return re.sub(r"(?<![\w:/.])(~|[A-Za-z]:)?[/\\][^\s,;:'\"]+", lambda path: _last_parts(path[0]), text) or "(empty)"


def _last_parts(path: str) -> str:
    parts = [part for part in re.split(r"[/\\]", path) if part]
    return "…/" + "/".join(parts[-2:])


def environment_secrets() -> list[str]:
    """Values of environment variables with the names of secrets, longest first."""
    values = {value for name, value in os.environ.items() if _is_secret(name) and len(value) >= LEAST_SECRET}
    return sorted(values, key=len, reverse=True)
