"""The worked example of own data: what it makes is what stage 2 reads."""

import csv
import sys
from pathlib import Path

import pytest

from teachback.processing import ProcessArguments, process
from teachback.suites.schema import read_rows

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import support_tickets


@pytest.fixture
def tickets(tmp_path) -> tuple[Path, Path]:
    made, converted = tmp_path / "tickets.csv", tmp_path / "tickets.tsv"
    support_tickets.main(["make", str(made), "--count", "300"])
    support_tickets.main(["convert", str(made), str(converted)])
    return made, converted


def test_the_csv_has_what_exports_have(tickets):
    with tickets[0].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 300 and {row["product"] for row in rows} == {" router ", " phone ", " cloud "}
    assert any("\n" in row["message"] for row in rows) and any('"' in row["message"] for row in rows)


def test_every_ticket_becomes_a_row_of_its_product_and_queue(tickets, tmp_path):
    arguments = {"embedding_model": "scratch:tiny", "device": "cpu", "precision": "fp32"}
    suite = process(ProcessArguments(suite="custom", source=str(tickets[1]), data_dir=str(tmp_path / "data"), **arguments))
    assert set(suite.domains) == {"router", "phone", "cloud"}
    assert set(suite.domains["router"].labels) == {"billing", "fault", "question"}
    rows = [row for split in ("train", "quiz", "dev", "test") for row in read_rows(tmp_path / f"data/custom/{split}.tsv")]
    assert len(rows) == 300 and any('"your reply"' in row.text_a for row in rows)
