"""Headless Chromium for tests, controlled over its debugging pipe without any further package."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")


class Browser:
    """One tab of a running Chromium."""

    def __init__(self, sender: int, receiver: int):
        self.sender, self.receiver, self.buffer, self.number, self.session = sender, receiver, b"", 0, None
        self.events: list[dict] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters) -> dict:
        """Send a command of the DevTools protocol and return its result; events received meanwhile are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.sender, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _receive(self) -> dict:
        while b"\0" not in self.buffer:
            chunk = os.read(self.receiver, 1 << 20)
            assert chunk, "Chromium has gone away"
            self.buffer += chunk
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, width: int, dark: bool = False, media: str = "screen", height: int = 900) -> None:
        """Load a page in a window of the given size, in light or dark mode; earlier events are discarded."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.events.clear()
        self.call("Page.navigate", url=Path(path).resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def evaluate(self, expression: str):
        """Value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def addresses(self) -> list[str]:
        """URLs that the page has requested since it was opened."""
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]

    def problems(self) -> list[str]:
        """Log entries and exceptions of the page since it was opened."""
        found = [e["params"]["entry"]["text"] for e in self.events if e.get("method") == "Log.entryAdded"]
        return found + [str(e["params"]) for e in self.events if e.get("method") == "Runtime.exceptionThrown"]

    def screenshot(self, path: Path, whole: bool = True) -> None:
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        Path(path).write_bytes(base64.b64decode(picture))

    def pdf(self, path: Path) -> None:
        Path(path).write_bytes(base64.b64decode(self.call("Page.printToPDF")["data"]))


@contextmanager
def browser(profile: Path):
    """Run a Chromium whose profile is the given empty folder."""
    to_it, from_it = os.pipe(), os.pipe()
    # Chromium expects the pipe at descriptors 3 and 4, so neither end may have these numbers before.
    reads, writes = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_it[0], from_it[1]))
    os.close(to_it[0])
    os.close(from_it[1])
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
    shell = ["bash", "-c", f'exec "$@" 3<&{reads} 4>&{writes}', "bash", *command]
    process = subprocess.Popen(shell, pass_fds=(reads, writes), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(reads)
    os.close(writes)
    try:
        yield Browser(to_it[1], from_it[0])
    finally:
        process.terminate()
        process.wait(20)
        os.close(to_it[1])
        os.close(from_it[0])
