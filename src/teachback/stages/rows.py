"""Selection of a stage's rows: splits, labels, HOLD_OUT and TRAIN_FRACTION."""

from teachback.core.arguments import DataArguments
from teachback.core.errors import TeachbackError
from teachback.data.bad_rows import listed
from teachback.data.schema import Domain, Row
from teachback.data.suite_data import SuiteData, kept_numbers, labelled
from teachback.data.suites import selection_split
from teachback.methods.seen_scores import rescored


class RunRows:
    """Train, selection and quiz rows of a run's stages."""

    def __init__(self, data: SuiteData, args: DataArguments, seed: int):
        self.data, self.args, self.seed = data, args, seed
        self.split = selection_split(data.suite.name, args.protocol)  # for selecting checkpoints

    def train(self, domains: list[str], target: str) -> list[Row]:
        """Train rows of ``domains``; of the target's rows only TRAIN_FRACTION.

        Their prototype scores are computed without withheld rows, so that nothing unseen leaks into them.
        """
        data, fraction = self.data, self.args.train_fraction
        unseen = "" if self.args.hold_out in domains else self.args.hold_out
        if fraction == 1 and not unseen:
            return data.rows("train", domains)
        rows = data.all_train_rows()
        kept = kept_numbers(rows, data.suite.domain(target), fraction, self.seed)
        seen = rescored(data.folder, data.suite, rows, [number for number in kept if rows[number].domain != unseen])
        return [row for row in seen if row.domain in domains]

    def vocabulary(self, target: str) -> list[Row]:
        """Train rows for the vocabulary of models from scratch, the same for teacher and student.

        They are the rows of every domain except a held-out one; of the target's rows only TRAIN_FRACTION.
        """
        rows = self.data.all_train_rows()
        kept = kept_numbers(rows, self.data.suite.domain(target), self.args.train_fraction, self.seed)
        return [rows[number] for number in kept if rows[number].domain != self.args.hold_out]

    def labelled(self, domains: list[str], target: str) -> tuple[list[Row], list[Row]]:
        """Labelled train rows and selection rows."""
        return labelled(self.train(domains, target)), self.selection(domains)

    def selection(self, domains: list[str], with_label: bool = True) -> list[Row]:
        """Rows for selecting checkpoints.

        Raises:
            TeachbackError: there are none.
        """
        rows = self.data.rows(self.split, domains)
        rows = labelled(rows) if with_label else rows
        if not rows:
            made, wanted = self.data.suite.settings.get("protocol"), self.args.protocol
            remedy = "run stage 2 with more rows of each label (with SUITE=custom, or a larger DEV_FRACTION)"
            if made not in (None, wanted):
                remedy = f"stage 2 ran with PROTOCOL={made}, but this stage has PROTOCOL={wanted}; use the same in both"
            raise TeachbackError(
                f"{self.data.folder / self.split}.tsv has no {'labelled ' * with_label}rows of {listed(domains)}, on which "
                f"checkpoints are selected; {remedy}"
            )
        return rows

    def shortened_domain(self) -> str:
        """Domain that TRAIN_FRACTION applies to, for a teacher of several domains."""
        if self.args.train_fraction == 1:
            return self.data.selected[0]
        if self.args.domain == "all":
            raise TeachbackError("TRAIN_FRACTION applies to one domain; name it, as in DOMAIN=books")
        return self.data.target(self.args.domain).name

    def taught_domains(self) -> list[str]:
        """Domains that a teacher of several domains is trained on, without a held-out one."""
        held_out = self.args.hold_out
        if held_out and held_out not in self.data.trainable:
            raise TeachbackError(
                f"HOLD_OUT={held_out} is not among the trained domains of this run: {', '.join(self.data.trainable)}"
            )
        names = [name for name in self.data.trainable if name != held_out]
        if not names:
            raise TeachbackError(f"HOLD_OUT={held_out} leaves no domain to train on; add domains to DOMAINS")
        return names

    def quiz(self, domains: list[str], target: Domain) -> list[Row]:
        """Labelled quiz rows; of the target's rows only TRAIN_FRACTION.

        Raises:
            TeachbackError: there are none.
        """
        rows = labelled(self.data.rows("quiz", domains))
        rows = [rows[number] for number in kept_numbers(rows, target, self.args.train_fraction, self.seed)]
        if not rows:
            raise TeachbackError(
                f"{self.data.folder / 'quiz.tsv'} has no rows of {', '.join(domains)}, but the meta-teacher learns from quiz rows; "
                "run QUIZ_FRACTION=0.1 bash 2_process_data.sh and the stages after it again, or in stage 5 set META_TEACHER_EVERY_EPOCH=0"
            )
        return rows

    def sharing_labels_with(self, target: Domain) -> list[str]:
        """Trained domains with the target's label set, and the target, in the suite's order.

        Raises:
            TeachbackError: no other domain has this label set.
        """
        shared = {target.name, *(domain.name for domain in self.trained_domains_like(target))}
        if len(shared) == 1:
            raise TeachbackError(
                f"SECOND_TRANSFER_SET=all: no other domain of this run has {target.name}'s labels, so there are no further texts; "
                "set SECOND_TRANSFER_SET=domain"
            )
        return [name for name in self.data.trainable if name in shared]

    def trained_domains_like(self, target: Domain) -> list[Domain]:
        """Trained domains with the target's label set, without a held-out one."""
        domains = [self.data.suite.domain(name) for name in self.data.trainable]
        return [domain for domain in domains if domain.head == target.head and domain.name != self.args.hold_out]
