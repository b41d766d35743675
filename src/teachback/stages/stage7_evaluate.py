"""Driver of stage 7: scores and times every checkpoint of a run on one split, and compares it with its teacher.

Unless a precision is given, scores are computed in float32, so that they equal those of
``pipeline("text-classification")`` for the same checkpoint.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from teachback.core.errors import TeachbackError, naming
from teachback.core.files import write_atomically
from teachback.core.integrity import without_writes_in_dry_runs
from teachback.core.locks import locked
from teachback.core.log import stage_log
from teachback.core.places import seed_folder
from teachback.core.tracking import require_installed, tracking
from teachback.data.encoding import EncodedRows
from teachback.data.names import folder_name
from teachback.data.overlap import LEARNT, SCORED, is_seen
from teachback.data.schema import HIDDEN, Row
from teachback.data.suite_data import SuiteData, labelled
from teachback.inference.baselines import CHANCE, MAJORITY, baselines
from teachback.inference.bootstrap import intervals
from teachback.inference.calibration import SPLIT
from teachback.inference.measured import Calibration, merge_costs
from teachback.inference.metrics import Score, by_domain
from teachback.inference.model_card import write_card
from teachback.inference.predictor import Checkpoint, Predictor, Speeds, find_checkpoints
from teachback.inference.results import (
    OPTIMISTIC,
    Evaluated,
    Result,
    merge_results,
    predictions_file,
    read_results,
    unseen_split,
)
from teachback.inference.scores import predicted_labels
from teachback.inference.submission import file_name, official_rows, submission
from teachback.stages.stage7_arguments import EvaluationArguments, metrics_of
from teachback.stages.stage7_details import warn_of_formulas, write_details, write_predictions
from teachback.stages.stage7_notes import measured_on, print_tables

logger = logging.getLogger(__name__)

MACRO = "macro_f1"  # reported beside every domain's metric


class Evaluation:
    """A run of stage 7: its rows, and the evaluation of each checkpoint."""

    def __init__(self, arguments: EvaluationArguments):
        self.arguments = arguments
        self.data = SuiteData.read(arguments.data_dir, arguments.suite, arguments.domains)
        self.domains = self.data.selected
        suite = self.data.suite
        self.targets = [domain.name for domain in self.data.targets(arguments.domain)]
        self.metrics = metrics_of(self.data, arguments.metric)
        self.rows = self.data.rows(arguments.split)
        if not self.rows:
            raise TeachbackError(
                f"{self.data.folder / arguments.split}.tsv has no rows of {', '.join(self.domains)}; "
                "choose another SPLIT"
            )
        self.seen = self._seen()
        formats = {name for name in self.domains if suite.domain(name).submission}
        hidden = self.data.rows(HIDDEN) if arguments.submission else []
        self.hidden = [row for row in hidden if row.domain in formats]
        self.train = self.data.all_train_rows() if (self.data.folder / "train.tsv").is_file() else []
        self.dev = labelled(self.data.rows(SPLIT)) if (self.data.folder / f"{SPLIT}.tsv").is_file() else []
        self.baselines = self._baselines_of(self.rows)
        self.macro_baselines = baselines(suite, self.train, self.rows, MACRO)
        self.calibrations: list[Calibration] = []
        self.speeds = Speeds()
        self.run = seed_folder(arguments.output_root, arguments.suite, arguments.seed)
        self.teachers = seed_folder(arguments.teacher_root or arguments.output_root, arguments.suite, arguments.seed)

    def _seen(self) -> set[Row]:
        """Labelled rows to score whose texts also occur in train or quiz, if these files exist."""
        if self.arguments.split not in SCORED:
            return set()
        there = [split for split in LEARNT if (self.data.folder / f"{split}.tsv").is_file()]
        learnt = [row for split in there for row in self.data.rows(split, list(self.data.suite.domains))]
        return {row for row, seen in zip(self.rows, is_seen(self.rows, learnt)) if seen and row.label}

    def evaluate(self, checkpoint: Checkpoint) -> Evaluated:
        """Score a checkpoint and write its scores and predictions."""
        args = self.arguments
        predictor = Predictor(
            checkpoint, self.data.suite, args.device, args.precision, args.max_length, args.eval_batch_size,
            self.data.folder,
        )  # fmt: skip
        rows = [row for row in self.rows if row.domain in predictor.heads]
        self._warn(checkpoint, rows)
        encoded = predictor.encode(rows)
        scored = self._scores(checkpoint, predictor, rows, encoded) if checkpoint.has_trained_head else ({}, {}, {})
        if checkpoint.has_trained_head:
            self._submit(checkpoint, predictor)
        self.speeds.add(checkpoint.stage, predictor)
        return Evaluated(
            checkpoint.stage,
            checkpoint.target,
            checkpoint.teacher_stage(args.teacher),
            scores=scored[0],
            unseen=scored[1],
            intervals=scored[2],
            parameters=sum(parameter.numel() for parameter in predictor.classifier.model.parameters()),
            bytes=predictor.bytes,
            optimistic=self._is_optimistic(checkpoint),
        )

    def evaluate_all(self, checkpoints: Sequence[Checkpoint]) -> list[Evaluated]:
        """Score and time checkpoints; a meta-teacher whose teacher has been replaced is skipped."""
        evaluated = []
        for checkpoint in checkpoints:
            try:
                evaluated.append(self.evaluate(checkpoint))
            except TeachbackError as error:
                if not checkpoint.is_meta_teacher:
                    raise
                print(f"{checkpoint.stage}: not scored, as {error}")
        taken = self.speeds.measure(self.rows, sorted({1, self.arguments.eval_batch_size}))
        return [
            replace(one, timings=taken[one.stage][0], timed_on=taken[one.stage][1]) if one.stage in taken else one
            for one in evaluated
        ]

    def announce(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Print what would be scored: everything, as speed is measured in each run."""
        split = self.arguments.split
        scored = {result.stage for result in read_results(self.run / "results.tsv") if result.split.startswith(split)}
        for checkpoint in checkpoints:
            why = "again" if checkpoint.stage in scored else "as it has no scores yet"
            print(f"{checkpoint.folder} would be scored on {split}, {why}")

    def _is_optimistic(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint was selected on the reported rows (PROTOCOL=paper)."""
        return checkpoint.was_selected_on(self.arguments.split, self.data.suite.name)

    def _warn(self, checkpoint: Checkpoint, rows: list[Row]) -> None:
        """Print why a checkpoint is not scored, or that MAX_LENGTH differs from its training."""
        stage, split, length = checkpoint.stage, self.arguments.split, self.arguments.max_length
        trained_length = checkpoint.record["arguments"].get("max_length", length)
        if not checkpoint.has_trained_head:
            print(f"{stage}: not scored, as its classification layer is not trained yet (5_student_second.sh trains it)")
        elif not any(row.label for row in rows):
            print(f"{stage}: not scored, as none of its rows in the {split} split has a label")
        if trained_length != length:
            print(f"{stage}: trained with MAX_LENGTH={trained_length}, evaluated with {length}")

    def _scores(
        self, checkpoint: Checkpoint, predictor: Predictor, rows: list[Row], encoded: EncodedRows
    ) -> tuple[dict[str, Score], dict[str, Score | None], dict[str, tuple[float, float]]]:
        """Predict and write predictions and results; returns scores, scores on unseen rows and intervals, by domain."""
        logits = predictor.logits(encoded)
        path = predictions_file(self.run, checkpoint.stage, self.arguments.split)
        write_predictions(path, rows, logits, self.data, self.arguments.spreadsheet)
        labels, metric, suite = predicted_labels(logits, rows, self.data), self.arguments.metric, self.data.suite
        new = [(row, label) for row, label in zip(rows, labels) if row not in self.seen]
        left = [row for row, _ in new], [label for _, label in new]
        scores, without = by_domain(suite, rows, labels, metric), by_domain(suite, *left, metric)
        unseen = {name: without.get(name) for name in scores if any(row.domain == name for row in self.seen)}
        split = self.arguments.split + (OPTIMISTIC if self._is_optimistic(checkpoint) else "")
        self.calibrations += write_details(self, checkpoint, predictor, rows, logits, split)
        results = self._results(checkpoint, scores, rows, labels, split)
        ends = {r.domain: (r.low, r.high) for r in results if r.metric == scores[r.domain].metric and r.low is not None and r.high is not None}
        some = {name: score for name, score in unseen.items() if score}
        merge_results(self.run / "results.tsv", results + self._results(checkpoint, some, *left, unseen_split(split)))
        return scores, unseen, ends

    def _results(
        self, checkpoint: Checkpoint, scores: dict[str, Score], rows: list[Row], labels: list[str], split: str
    ) -> list[Result]:
        """Results of scores, their parts and macro F1, with the majority class, chance and the interval of each."""
        suite, results = self.data.suite, []
        floors = self._baselines_of(rows) if self.seen else self.baselines
        of_macro = baselines(suite, self.train, rows, MACRO) if self.seen else self.macro_baselines
        macro = by_domain(suite, rows, labels, MACRO)
        for domain, score in scores.items():
            where = (suite.name, domain, checkpoint.method, checkpoint.stage, self.arguments.seed, split)
            every = (score, *score.parts)
            ends: dict = intervals(suite.domain(domain), rows, labels, [one.metric for one in every])
            if macro[domain].metric == MACRO and score.of(MACRO) is None:  # without an interval, which takes long
                every, ends = (*every, macro[domain]), ends | {MACRO: (None, None)}
            for one in every:
                own = of_macro if one is macro[domain] else floors
                majority, chance = (own[name][domain].of(one.metric) if domain in own[name] else None for name in (MAJORITY, CHANCE))
                results.append(Result(*where, one.metric, one.value, one.n, majority, chance, *ends[one.metric]))
        return results

    def _baselines_of(self, rows: Sequence[Row]) -> dict[str, dict[str, Score]]:
        return baselines(self.data.suite, self.train, rows, self.arguments.metric)

    def _submit(self, checkpoint: Checkpoint, predictor: Predictor) -> None:
        """Write the submission of each domain that has hidden rows and that the checkpoint serves."""
        rows = [row for row in self.hidden if row.domain in predictor.heads]
        predictions = predicted_labels(predictor.predict(rows), rows, self.data) if rows else []
        for name in dict.fromkeys(row.domain for row in rows):
            domain = self.data.suite.domain(name)
            chosen, labels = zip(*((row, label) for row, label in zip(rows, predictions) if row.domain == name))
            path = self.run / "submission" / checkpoint.stage.replace("/", "__") / file_name(domain)
            content = submission(domain, chosen, labels)
            write_atomically(path, content)
            if path.suffix == ".tsv":  # the leaderboard's format does not allow quotes
                warn_of_formulas(path, content, "do not open it in a spreadsheet")
            print(f"wrote {path}")

    def report_rows(self) -> None:
        """Print how many rows have no label and are not scored, and where METRIC does not apply."""
        for domain in self.domains:
            labels = [row.label for row in self.rows if row.domain == domain]
            hidden = f"{labels.count('')} of {len(labels)} rows"
            if not labels:
                print(f"{domain} has no {self.arguments.split} rows, so there is no result")
            elif not any(labels):
                print(f"{domain}, {self.arguments.split}: {hidden} have no label and are not scored, so there is no result")
            elif "" in labels:
                print(f"{domain}, {self.arguments.split}: {hidden} have no label and are not scored")
            if self.arguments.metric not in ("auto", self.metrics[domain]):
                print(
                    f"{domain}: METRIC={self.arguments.metric} does not fit its labels, so {self.metrics[domain]} is used"
                )

    def report_hidden_rows(self) -> None:
        """Print why no submission can be written, or that the leaderboard would reject it as incomplete."""
        if self.arguments.submission and not self.hidden:
            print(
                f"SUBMISSION=1: {self.data.folder}/{HIDDEN}.tsv has no rows for a leaderboard, so there is nothing to write"
            )
        for name, count in Counter(row.domain for row in self.hidden).items():
            official = official_rows(self.data.suite.domain(name)) or count
            if count != official:
                print(f"{name}: {count} hidden rows of {official}; the leaderboard does not score incomplete files")

    def owners(self) -> dict[str, str]:
        """Target whose student predicts each domain, for the domains shown in the layout of the papers.

        A domain without train rows belongs to the target that shares its head, if there is exactly one.
        """
        domains = self.data.suite.domains
        owners = {name: [t for t in self.targets if domains[t].head == domains[name].head] for name in self.domains}
        return {
            name: name if name in self.targets else sharing[0]
            for name, sharing in owners.items()
            if name in self.targets or (len(sharing) == 1 and not domains[name].trainable)
        }


@without_writes_in_dry_runs
def evaluate(arguments: EvaluationArguments) -> list[Evaluated]:
    """Score every checkpoint of the run; write results, costs and predictions; and print the tables."""
    require_installed([arguments.report_to])
    evaluation = Evaluation(arguments)
    checkpoints = find_checkpoints(evaluation.run, evaluation.targets, evaluation.teachers)
    if arguments.dry_run:
        evaluation.announce(checkpoints)
        return []
    # Evaluations of other domains may run in parallel: tables are merged, and scores are deterministic.
    places = [evaluation.run / f"{arguments.split} scores of {folder_name(target)}" for target in evaluation.targets]
    log = stage_log(evaluation.run / "logs" / "7_eval.log")
    with locked(*places), naming(evaluation.run), log:
        evaluation.report_rows()
        evaluation.report_hidden_rows()
        evaluated = evaluation.evaluate_all(checkpoints)
        merge_costs(evaluation.run / "costs.tsv", evaluated, measured_on(arguments))
        write_cards(evaluation, checkpoints)
        track_scores(evaluation, checkpoints, evaluated)
        print_tables(evaluation, evaluated)
    return evaluated


def track_scores(evaluation: Evaluation, checkpoints: Sequence[Checkpoint], evaluated: Sequence[Evaluated]) -> None:
    """Log scores to the trackers of each checkpoint's training, as a step after its last one."""
    arguments, records = evaluation.arguments, {checkpoint.stage: checkpoint.record for checkpoint in checkpoints}
    for one in evaluated if arguments.report_to != "none" else ():
        record = records[one.stage]
        steps = [entry.get("step", 0) for entry in record.get("history") or []]
        values = {f"{arguments.split}/{name}_{score.metric}": score.value for name, score in one.scores.items()}
        with tracking(
            [arguments.report_to], evaluation.run / "logs" / one.stage, record["arguments"], one.stage
        ) as tracks:
            tracks.log(values, max(steps, default=record["arguments"].get("episodes", 0)) + 1)


def write_cards(evaluation: Evaluation, checkpoints: Sequence[Checkpoint]) -> None:
    """Add the scores to the checkpoints' model cards, except those without write permission."""
    results = read_results(evaluation.run / "results.tsv")
    for checkpoint in checkpoints:
        if "answers" in checkpoint.record and (checkpoint.folder / "config.json").is_file():
            scores = [result for result in results if checkpoint.has_score(result)]
            with suppress(PermissionError):
                write_card(checkpoint.folder, checkpoint.record, evaluation.data.suite, scores)
