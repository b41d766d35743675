"""Quick check whether the model hub is reachable.

Without it, the hub's client would retry each file of a model for more than a minute.
"""

from functools import cache
from pathlib import Path

import requests
from huggingface_hub import constants

SECONDS = 5  # timeout of connecting, and of the response


def go_offline_if_hub_unreachable(name: str) -> None:
    """Switch the hub's client to offline mode if a hub model is about to be loaded and the hub is unreachable."""
    if not constants.HF_HUB_OFFLINE and not Path(name).is_dir() and not hub_answers(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True


@cache
def hub_answers(address: str) -> bool:
    """Whether the hub's address gives any HTTP response."""
    try:
        requests.head(address, timeout=SECONDS)
    except requests.RequestException:
        return False
    return True
