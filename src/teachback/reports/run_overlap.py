"""Report section on scored text pairs that share a text with training pairs, as counted by stage 2."""

from teachback.data.overlap import SIDES
from teachback.reports.parts import Section, Table, counted, percent
from teachback.reports.run import Run

INTRO = (
    "Pairs below have one text in common with a pair that was learnt from, as many pairs have that are made of one premise "
    "or passage. Scores on them say less about new texts; SUITE=custom keeps such pairs together with GROUP_BY or GROUP_COLUMN."
)


def shared_texts(run: Run) -> list[Section]:
    """Section on shared texts, if the reported split or dev has any."""
    counts = run.suite.settings.get("shared_texts") if run.suite else None
    rows = [
        [split, side, counted(found[side], "row"), percent(found[side] / found["pairs"])]
        for split, found in (counts or {}).items()
        for side in SIDES
        if split in (run.split, "dev") and found[side]
    ]
    if not rows:
        return []
    table = Table(
        "Pairs that share one text with a train or quiz row", ["split", "text", "pairs", "of all"], rows, words=(0, 1)
    )
    return [Section("shared", "Texts on both sides of the split", intro=INTRO, tables=[table])]
