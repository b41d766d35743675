"""Whether the model hub can be reached, asked once and soon answered.

Where it cannot, its client would try each file of a model again and again for more than a minute.
"""

from functools import cache
from pathlib import Path

import requests
from huggingface_hub import constants

SECONDS = 5  # for a connection, and for an answer


def look_no_further_than_the_cache(name: str) -> None:
    """Before a model is loaded by its hub name: where the hub gives no answer, let the client use its cache alone."""
    if not constants.HF_HUB_OFFLINE and not Path(name).is_dir() and not hub_answers(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True


@cache
def hub_answers(address: str) -> bool:
    """Whether anything answers at the hub's address, whatever it says."""
    try:
        requests.head(address, timeout=SECONDS)
    except requests.RequestException:
        return False
    return True
