"""A worked example of own data: support tickets of three products, as a company exports them.

    python examples/support_tickets.py make tickets.csv   # 1,800 made-up tickets: product, opened, queue, message

The CSV has what such files have: quotes, commas and line breaks inside messages, and blanks around names. Stage 2 reads it.
"""

import argparse
import csv
import random
from pathlib import Path

COLUMNS = ("product", "opened", "queue", "message")
THINGS = {
    "router": ("the router", "my wifi", "the guest network", "the firmware", "port forwarding"),
    "phone": ("the phone", "the sim card", "my voicemail", "the hotspot", "the display"),
    "cloud": ("the backup", "my storage", "file sync", "the shared folder", "the web login"),
}
# By queue: what customers write of the thing, some of it in the words of another queue.
WORDS = {
    "billing": (
        "I was charged twice for {}", "why is {} on my invoice", "please refund {}", "the price of {} went up",
        "{} was cancelled and I still pay", "my card was declined when I renewed {}",
    ),
    "fault": (
        "{} stopped working", "{} is broken since the update", "{} keeps dropping", "there is an error when I open {}",
        "{} is very slow today", "I paid for {} and it does not start",
    ),
    "question": (
        "how do I set up {}", "where can I change {}", "can I use {} abroad", "is {} included in my plan",
        "what does {} cost", "which app do I need for {}",
    ),
}  # fmt: skip
GREETINGS = ("", "Hello, ", "Hi team,\n", 'Re: "your reply"\n', "Dear support, ")
ENDS = ("", ".", "!", " - thanks", ".\nKind regards", ", please help")


def tickets(count: int, seed: int) -> list[dict[str, str]]:
    """Rows of the CSV; a tenth of them lie in the wrong queue, as people's sorting does."""
    draw, rows = random.Random(seed), []
    for number in range(count):
        product, queue = draw.choice(list(THINGS)), draw.choice(list(WORDS))
        message = draw.choice(WORDS[queue]).format(draw.choice(THINGS[product]))
        message = draw.choice(GREETINGS) + message + draw.choice(ENDS)
        filed = queue if draw.random() > 0.1 else draw.choice(list(WORDS))
        opened = f"2024-{number % 12 + 1:02d}-{number % 28 + 1:02d}"
        rows.append({"product": f" {product} ", "opened": opened, "queue": filed, "message": message})
    return rows


def make(path: Path, count: int, seed: int) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(tickets(count, seed))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="write a CSV of made-up tickets")
    making.add_argument("csv", type=Path)
    making.add_argument("--count", type=int, default=1_800)
    making.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    make(arguments.csv, arguments.count, arguments.seed)


if __name__ == "__main__":
    main()
