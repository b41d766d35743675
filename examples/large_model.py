"""A worked example of soft labels: a large model answers the train rows, several times each, and the votes are counted.

    python examples/large_model.py data/sample/train.tsv answers.jsonl --labels negative,positive --stand_in
    python examples/large_model.py ... --address http://localhost:8000/v1 --model <name>   # any chat API like OpenAI's

The address may be that of a server of your own (vLLM, llama.cpp, Ollama) or of a company, whose key is read from LLM_API_KEY.
Answers that are no label do not count, and a row without any is left out. Each row is written when it is answered; called again, the
script goes on where it stopped. The stand-in is a word list that plays the large model on the generated sample suite.
It needs an installed teachback, or PYTHONPATH=src.
"""

import argparse
import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.request import Request, urlopen

from teachback.data.schema import Row, read_rows

QUESTION = "{text}\n\nWhich of these labels fits this text? {labels}\nAnswer with the label alone."
NEGATION = re.compile(r"\b(not|never|nothing|hardly|nobody)\b")
Ask = Callable[[Row], str]


def chat(address: str, model: str, labels: list[str]) -> Ask:
    """Ask a chat API."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ.get('LLM_API_KEY', '')}"}

    def ask(row: Row) -> str:
        content = QUESTION.format(text=f"{row.text_a}\n{row.text_b}".strip(), labels=", ".join(labels))
        body = {"model": model, "messages": [{"role": "user", "content": content}], "temperature": 1, "max_tokens": 20}
        with urlopen(Request(f"{address}/chat/completions", json.dumps(body).encode(), headers), timeout=120) as answer:
            return json.load(answer)["choices"][0]["message"]["content"]

    return ask


def stand_in(seed: int) -> Ask:
    """Judge a review of the sample suite by its words; one answer in ten is a guess."""
    from teachback.data.suites.sample import GENERAL, PECULIAR

    draw = random.Random(seed)
    words = {word: label for part in (GENERAL, *PECULIAR.values()) for label, text in part.items() for word in text.split()}
    other = {"negative": "positive", "positive": "negative"}

    def ask(row: Row) -> str:
        votes: Counter[str] = Counter()
        for sentence in row.text_a.lower().split("."):
            for label in (words[word] for word in sentence.split() if word in words):
                votes[other[label] if NEGATION.search(sentence) else label] += 1
        guess = not votes or draw.random() < 0.1
        return draw.choice(list(other)) if guess else votes.most_common(1)[0][0]

    return ask


def shares(answers: list[str], labels: list[str]) -> dict[str, float]:
    """Share of each label among the answers that are one; empty if none is."""
    same = {label.casefold(): label for label in labels}
    counted = Counter(same[answer] for answer in (one.strip(" .\"'\n").casefold() for one in answers) if answer in same)
    return {label: counted[label] / counted.total() for label in labels} if counted else {}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help="train.tsv of a suite, which stage 2 wrote")
    parser.add_argument("output", type=Path, help="file of soft labels, JSON lines")
    parser.add_argument("--domain", default="", help="rows of this domain alone")
    parser.add_argument("--labels", required=True, help="separated by commas")
    parser.add_argument("--votes", type=int, default=5, help="answers to each row")
    parser.add_argument("--address", default="", help="of a chat API, such as http://localhost:8000/v1")
    parser.add_argument("--model", default="", help="its name there")
    parser.add_argument("--stand_in", action="store_true", help="a word list in place of a model")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    if arguments.stand_in == bool(arguments.address):
        parser.error("give either --address or --stand_in")
    labels = arguments.labels.split(",")
    ask = stand_in(arguments.seed) if arguments.stand_in else chat(arguments.address, arguments.model, labels)
    lines = arguments.output.read_text(encoding="utf-8").splitlines() if arguments.output.exists() else []
    done = {json.loads(line)["guid"] for line in lines}
    rows = [row for row in read_rows(arguments.input) if arguments.domain in ("", row.domain) and row.guid not in done]
    with arguments.output.open("a", encoding="utf-8") as file:
        for row in rows:
            if share := shares([ask(row) for _ in range(arguments.votes)], labels):
                print(json.dumps({"guid": row.guid} | share), file=file, flush=True)


if __name__ == "__main__":
    main()
