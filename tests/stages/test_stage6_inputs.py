"""Outputs of models in stage 6: computed on the quizzes of all domains at once, and split by domain."""

import torch
from tiny import BOOKS, CAUSE, DVD

from teachback.data.schema import Row
from teachback.stages.stage6_curriculum import CurriculumInputs


def test_quizzes_of_domains_of_one_kind_are_evaluated_together():
    inputs = CurriculumInputs.__new__(CurriculumInputs)
    inputs.domains = [BOOKS, CAUSE, DVD]
    inputs.quiz = {d.name: [Row(f"{d.name}-{i}", "text", "", d.labels[0], d.name) for i in range(n)]
                   for d, n in ((BOOKS, 3), (CAUSE, 2), (DVD, 1))}  # fmt: skip
    asked = []

    def ask(rows, names):
        asked.append(names)
        return torch.tensor([[len(asked), number] for number, _ in enumerate(rows)])

    found = inputs.compute_by_domain(ask)
    assert asked == [["books", "dvd"], ["cause"]]  # multiple-choice questions are not mixed with other rows
    assert {name: values.tolist() for name, values in found.items()} == {
        "books": [[1, 0], [1, 1], [1, 2]], "dvd": [[1, 3]], "cause": [[2, 0], [2, 1]],
    }  # fmt: skip
