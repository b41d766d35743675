"""Examples: stage 2 reads the support tickets, the notebook runs, and votes of a large model become soft labels."""

import csv
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import nbformat
import pytest

from teachback.data.schema import Domain, Row, read_rows, write_rows
from teachback.data.soft_labels import read_soft_labels
from teachback.stages.stage2_arguments import ProcessArguments
from teachback.stages.stage2_data import process

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import large_model
import support_tickets

EXAMPLES = Path(support_tickets.__file__).parent


@pytest.fixture
def tickets(tmp_path) -> Path:
    made = tmp_path / "tickets.csv"
    support_tickets.main(["make", str(made), "--count", "300"])
    return made


def test_the_csv_of_tickets_has_blanks_line_breaks_and_quotes(tickets):
    with tickets.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 300 and {row["product"] for row in rows} == {" router ", " phone ", " cloud "}
    assert any("\n" in row["message"] for row in rows) and any('"' in row["message"] for row in rows)


def test_every_ticket_becomes_a_row_of_its_product_and_queue(tickets, tmp_path):
    """Stage 2 reads the columns that docs/own_data.md names."""
    columns = {"text_a_column": "message", "label_column": "queue", "domain_column": "product"}
    arguments = {"embedding_model": "scratch:tiny", "device": "cpu", "precision": "fp32"} | columns
    suite = process(ProcessArguments(suite="custom", source=str(tickets), data_dir=str(tmp_path / "data"), **arguments))
    assert set(suite.domains) == {"router", "phone", "cloud"}
    assert set(suite.domains["router"].labels) == {"billing", "fault", "question"}
    rows = [row for split in ("train", "quiz", "dev", "test") for row in read_rows(tmp_path / f"data/custom/{split}.tsv")]
    assert len(rows) == 300 and any('"your reply"' in row.text_a for row in rows)


def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    """The cells run in order on fewer tickets and epochs, and give models and predictions."""
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)
    sizes = {"TICKETS": 240, "EPOCHS": 2, "EPISODES": 1}
    first = re.sub(r"(?m)^(\w+) = \d+", lambda line: f"{line[1]} = {sizes.pop(line[1])}", cells[0].source)
    assert not sizes, "the first cell sets them"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: dict = {}
    for cell in [first, *(cell.source for cell in cells[1:])]:
        exec(compile(cell, "quickstart.ipynb", "exec"), names)
    assert set(names["scores"]) == {"teacher", "router", "phone", "cloud"} and (names["folder"] / "router/config.json").is_file()
    assert list(names["history"]) == ["phase1", "phase2", "phase3", "phase4", "config"]
    answers = names["metakd"].predict(names["tickets"], domain="router")
    assert len(answers) == 3 and set(answers) <= {"billing", "fault", "question"}


def test_votes_of_a_large_model_become_soft_labels(tmp_path):
    """The file holds shares of valid votes, and a second call requests only rows that are missing there."""
    answers, asked = ["Positive.", "negative", "positive", "I cannot say"], []

    class Api(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            content = "?" if "odd" in asked[-1]["messages"][0]["content"] else answers[(len(asked) - 1) % 4]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"choices": [{"message": {"content": content}}]}).encode())

        def log_message(self, *arguments):
            pass

    texts = ["a good plot", "an odd plot", "a bad plot"]
    write_rows(tmp_path / "train.tsv", [Row(f"b{i}", text, "", "negative", "books") for i, text in enumerate(texts)])
    with HTTPServer(("127.0.0.1", 0), Api) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        command = [str(tmp_path / "train.tsv"), str(tmp_path / "soft.jsonl"), "--domain", "books", "--labels", "negative,positive", "--votes", "4"]
        api = ["--address", f"http://127.0.0.1:{server.server_port}/v1", "--model", "large"]
        large_model.main([*command, *api])
        first = len(asked)
        large_model.main([*command, *api])
        server.shutdown()
    written = [json.loads(line) for line in (tmp_path / "soft.jsonl").read_text().splitlines()]
    assert [row["guid"] for row in written] == ["b0", "b2"] and first == 12 and len(asked) == 16  # b1 without a valid vote is requested again
    assert written[0] == {"guid": "b0", "negative": pytest.approx(1 / 3), "positive": pytest.approx(2 / 3)}
    assert asked[0]["model"] == "large" and "negative, positive" in asked[0]["messages"][0]["content"]
    soft = read_soft_labels(str(tmp_path / "soft.jsonl"), read_rows(tmp_path / "train.tsv"), Domain("books", "s", ("negative", "positive")))
    assert soft.known.tolist() == [True, False, True]
