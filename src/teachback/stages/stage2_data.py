"""Stage 2: raw files -> train, quiz, dev and test TSVs, embeddings, prototype scores, suite.json."""

import logging
from dataclasses import asdict, replace
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.core.files import sha256
from teachback.core.integrity import without_writes_in_dry_runs
from teachback.core.locks import locked
from teachback.core.log import stage_log
from teachback.core.precision import resolve_precision_on
from teachback.core.published import hash_model
from teachback.core.runs import StageRun
from teachback.data.bad_rows import Problems
from teachback.data.download import raw_folder
from teachback.data.groups import write_groups
from teachback.data.overlap import shared_sides, shared_texts, without_shared
from teachback.data.schema import (
    COLUMNS,
    HIDDEN,
    SPLITS,
    STORED_TOKENS,
    Suite,
    read_suite,
    with_row_counts,
    write_rows,
    write_suite,
)
from teachback.data.splits import cut, cut_each
from teachback.data.suites import definition
from teachback.data.suites.definition import Parsed, ReadSettings, choose
from teachback.data.user_columns import NAMED, column_of
from teachback.data.user_files import is_hub
from teachback.data.user_sources import open_source, source_files
from teachback.data.warnings import cautions
from teachback.models.location import locate
from teachback.stages.stage2_arguments import CUSTOM_ONLY, ProcessArguments

logger = logging.getLogger(__name__)

WITHOUT_EFFECT = ("suite", "data_dir", "source", "eval_batch_size", "device", "dry_run")  # not part of the fingerprint; the suite names the folder


@without_writes_in_dry_runs
def process(arguments: ProcessArguments, problems: Problems | None = None) -> Suite | None:
    """Run stage 2 unless it is up to date; the previous output is replaced only by a complete new one.

    A dry run reports what it would do, and returns None. ``problems`` collects bad rows.
    """
    run = _stage_run(arguments)
    if arguments.dry_run:
        print(f"{run.folder} {run.dry_run_message()}")
        return None
    if run.up_to_date():
        run.tidy()
        print(f"{run.folder} is up to date")
        return read_suite(run.folder)
    run.warn()
    with locked(run.folder), stage_log(Path(arguments.data_dir) / "logs" / f"{arguments.suite}-2_process_data.log"):
        suite = _make(run, arguments, problems or Problems())
        print(f"wrote {run.folder}")
    return suite


def _make(run: StageRun, arguments: ProcessArguments, problems: Problems) -> Suite:
    parsed = _select(_with_quiz(_parse(arguments, problems), arguments), arguments.domains)
    if arguments.deduplicate:
        parsed = _deduplicated(parsed)
    _check_train(parsed)
    for caution in cautions(parsed, _wanted(arguments, parsed)):
        logger.warning("%s: %s", run.folder, caution)
    suite = with_row_counts(Suite(arguments.suite, parsed.domains, _settings(arguments, parsed)), parsed.rows)
    print(_describe(suite))
    with run.publishing({}, keep=(STORED_TOKENS,)) as folder:
        _write(folder, suite, parsed, arguments)
    return suite


def _stage_run(arguments: ProcessArguments) -> StageRun:
    """Stage run with everything that the output depends on."""
    settings = asdict(arguments) | {
        "domains": " ".join(arguments.domains.replace(",", " ").split()),
        "quiz_fraction": arguments.quiz,
        "precision": resolve_precision_on(arguments.device, arguments.precision),
    }
    without = WITHOUT_EFFECT if arguments.suite == "custom" else (*WITHOUT_EFFECT, *CUSTOM_ONLY)
    chosen = {name: value for name, value in settings.items() if name not in without}
    source = _source(arguments)
    base = source.parent if source.is_file() else source
    read = {str(path.relative_to(base)): sha256(path) for path in _raw_files(arguments)}
    if is_hub(arguments.source):
        read["data set"] = arguments.source
    read["embedding model"] = hash_model(locate(arguments.embedding_model, arguments.data_dir))
    return StageRun(arguments.folder, "process_data", chosen, read, arguments.dry_run)


def _raw_files(arguments: ProcessArguments) -> list[Path]:
    """Raw files that stage 2 may read."""
    suite, source = definition(arguments.suite), _source(arguments)
    if not suite.archives:
        return source_files(source)
    folders = [source / archive.folder for archive in suite.archives_of(arguments.domains)]
    return sorted(path for folder in set(folders) for path in folder.rglob("*") if path.is_file())


def _parse(arguments: ProcessArguments, problems: Problems) -> Parsed:
    """Read the raw files; bad rows are an error unless SKIP_BAD_ROWS drops them."""
    suite, source = definition(arguments.suite), _source(arguments)
    try:
        parsed = suite.read(source, _settings_of_reading(arguments), problems)
    finally:
        problems.report(arguments.skip_bad_rows)  # also after an error: bad rows may be why the suite cannot be divided
    for what, number in parsed.notes.items():
        print(f"{number} {what}")
    if problems.found:
        parsed.notes["bad rows dropped"] = len(problems.found)
    return parsed


def _settings_of_reading(arguments: ProcessArguments) -> ReadSettings:
    return ReadSettings(
        arguments.seed, arguments.dev_fraction, arguments.test_fraction, arguments.protocol, arguments.domains,
        arguments.group_by, arguments.group_column, arguments.delimiter.replace("\\t", "\t"),
        {name: getattr(arguments, f"{name}_column") for name in NAMED},
    )  # fmt: skip


def check_before_reading(arguments: ProcessArguments) -> None:
    """Check values, and for SUITE=custom the columns of the user's files, before any row is read."""
    suite = definition(arguments.suite)
    suite.archives_of(arguments.domains)
    if not suite.archives and not is_hub(arguments.source):
        settings = _settings_of_reading(arguments)
        for _, table in open_source(_source(arguments), settings.delimiter):
            column_of(table, settings)


def _source(arguments: ProcessArguments) -> Path:
    """Folder of the raw files, or for SUITE=custom possibly a single file."""
    suite = definition(arguments.suite)
    raw = raw_folder(suite, Path(arguments.data_dir))
    return raw / "content" if suite.archives else Path(arguments.source or raw)


def _with_quiz(parsed: Parsed, arguments: ProcessArguments) -> Parsed:
    """Complete the splits: quiz is cut from train unless the source has one; an empty hidden test is left out."""
    rows = dict(parsed.rows)
    if "quiz" not in rows:
        how = (rows["train"], arguments.quiz, arguments.seed, parsed.domains)
        separate = definition(arguments.suite).separate
        rows["train"], rows["quiz"] = cut_each(*how) if separate else cut(*how, parsed.groups)
    splits = SPLITS + ((HIDDEN,) if rows.get(HIDDEN) else ())
    return replace(parsed, rows={split: rows.get(split, []) for split in splits})


def _select(parsed: Parsed, names: str) -> Parsed:
    """Select domains by name, in the suite's order; the split of rows does not depend on the selection."""
    domains = {name: parsed.domains[name] for name in choose(names, parsed.domains)}
    rows = {split: [row for row in part if row.domain in domains] for split, part in parsed.rows.items()}
    return replace(parsed, domains=domains, rows=rows)


def _deduplicated(parsed: Parsed) -> Parsed:
    notes = {
        f"{learnt} rows left out, as their texts are in {scored}": count
        for (learnt, scored), count in shared_texts(parsed.rows).items()
    }
    for what, number in notes.items():
        print(f"{number} {what}")
    return replace(parsed, rows=without_shared(parsed.rows), notes=parsed.notes | notes)


def _wanted(arguments: ProcessArguments, parsed: Parsed) -> list[str]:
    """Splits that should have rows."""
    empty = [] if arguments.quiz else ["quiz"]
    if arguments.protocol == "paper" and not parsed.rows["dev"]:
        empty.append("dev")
    return [split for split in ("quiz", "dev", "test") if split not in empty]


def _check_train(parsed: Parsed) -> None:
    """Check that every domain can be trained.

    Raises:
        TeachbackError: a trainable domain has no train rows, an evaluation-only domain's head is not trained, or a
            classification domain has a single label.
    """
    trained = {row.domain for row in parsed.rows["train"]}
    empty = [name for name, domain in parsed.domains.items() if domain.trainable and name not in trained]
    if empty or not parsed.domains:
        raise TeachbackError(
            f"no train rows for: {', '.join(empty) or 'any domain'}; set DOMAINS without such domains"
        )
    heads = {parsed.domains[name].head for name in trained}
    for name, domain in parsed.domains.items():
        if domain.head not in heads:
            raise TeachbackError(f"{name} is for evaluation only; add {domain.head} to DOMAINS")
        if domain.task == "classification" and len(domain.labels) < 2:
            raise TeachbackError(
                f"{name} has only the label {', '.join(domain.labels)}, so there is nothing to classify; add rows of "
                "another label, or set DOMAINS without it"
            )


def _settings(arguments: ProcessArguments, parsed: Parsed) -> dict:
    """Settings and statistics for suite.json."""
    names = ["seed", "protocol", "embedding_model", "prototype", "alpha", "max_length"]
    if arguments.suite == "custom":
        names += ["dev_fraction", "test_fraction", *CUSTOM_ONLY]
    settings = {name: getattr(arguments, name) for name in names}
    overlap = {"shared_texts": shared_sides(parsed.rows)}
    return settings | overlap | {"quiz_fraction": arguments.quiz, "notes": parsed.notes}


def _describe(suite: Suite) -> str:
    splits = list(next(iter(suite.domains.values())).rows)
    lines = [f"{'rows of ' + suite.name:20s} " + " ".join(f"{split:>7s}" for split in splits)]
    for name, domain in suite.domains.items():
        lines.append(f"{name:20s} " + " ".join(f"{number:7d}" for number in domain.rows.values()))
    return "\n".join(lines)


def _write(folder: Path, suite: Suite, parsed: Parsed, arguments: ProcessArguments) -> None:
    # imports PyTorch, which is not needed where stage 2 is up to date
    from teachback.stages.stage2_scores import write_scored_train

    write_scored_train(folder, parsed.rows["train"], suite, arguments)
    for split in [split for split in parsed.rows if split != "train"]:
        write_rows(folder / f"{split}.tsv", parsed.rows[split], COLUMNS)
    write_groups(folder, parsed.groups)
    write_suite(folder, suite)
