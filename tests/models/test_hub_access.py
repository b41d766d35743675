"""A hub that gives no answer is asked once, and its cache alone is used from then on."""

import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from huggingface_hub import constants

from teachback.core.errors import TeachbackError
from teachback.models import hub_access
from teachback.models.loading import load_tokenizer


@pytest.fixture
def silent_hub(monkeypatch):
    """The address of a hub at which nobody listens, and the client as it is where the environment says nothing."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub_access.hub_answers.cache_clear()
    yield address
    hub_access.hub_answers.cache_clear()


def test_a_model_that_cannot_be_had_is_refused_after_one_attempt(silent_hub, monkeypatch, tmp_path):
    asked = []
    head = hub_access.requests.head
    monkeypatch.setattr(hub_access.requests, "head", lambda *args, **options: asked.append(args) or head(*args, **options))
    for _ in range(2):
        with pytest.raises(TeachbackError, match="cannot load model 'no-such-model'.*or fetch it with MODELS=1"):
            load_tokenizer("no-such-model", tmp_path)
    assert asked == [(silent_hub,)] and constants.HF_HUB_OFFLINE


def test_a_folder_needs_no_hub_and_any_answer_will_do(silent_hub, monkeypatch, tmp_path):
    hub_access.look_no_further_than_the_cache(str(tmp_path))
    assert not constants.HF_HUB_OFFLINE
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # answers 501 to everything
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    hub_access.look_no_further_than_the_cache("some-model")
    server.shutdown()
    assert not constants.HF_HUB_OFFLINE
