"""An unreachable model hub is asked once; afterwards only the local cache is used."""

import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from huggingface_hub import constants

from teachback.core.errors import TeachbackError
from teachback.models import hub_access
from teachback.models.loading import load_tokenizer


@pytest.fixture
def unreachable_hub(monkeypatch):
    """Address of a hub at which no server listens, with the client in its default online mode."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub_access.hub_answers.cache_clear()
    yield address
    hub_access.hub_answers.cache_clear()


def test_an_unavailable_model_is_refused_after_one_request(unreachable_hub, monkeypatch, tmp_path):
    asked = []
    head = hub_access.requests.head
    monkeypatch.setattr(hub_access.requests, "head", lambda *args, **options: asked.append(args) or head(*args, **options))
    for _ in range(2):
        with pytest.raises(TeachbackError, match="cannot load model 'no-such-model'.*or fetch it with MODELS=1"):
            load_tokenizer("no-such-model", tmp_path)
    assert asked == [(unreachable_hub,)] and constants.HF_HUB_OFFLINE


def test_a_folder_needs_no_hub_and_any_response_counts_as_reachable(unreachable_hub, monkeypatch, tmp_path):
    hub_access.go_offline_if_hub_unreachable(str(tmp_path))
    assert not constants.HF_HUB_OFFLINE
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # answers 501 to everything
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    hub_access.go_offline_if_hub_unreachable("some-model")
    server.shutdown()
    assert not constants.HF_HUB_OFFLINE
