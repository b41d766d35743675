"""Driver of stage 5, from arguments to a finished folder: distillation of predictions, or fine-tuning on labels."""

from dataclasses import replace
from pathlib import Path

import torch

from teachback.core.arguments import HARD_LABEL, MetaTeacherArguments, SecondStageArguments, StudentArguments
from teachback.core.errors import TeachbackError
from teachback.core.integrity import content_hash
from teachback.core.published import hash_model, read_stage
from teachback.core.runs import StageRun
from teachback.data.schema import Domain, Row
from teachback.data.soft_labels import SoftLabels, read_soft_labels
from teachback.data.suite_data import labelled, read_unlabelled
from teachback.methods.class_weights import class_weight_column
from teachback.methods.losses import average_predictions
from teachback.methods.meta_teacher import MetaTeacher, meta_heads
from teachback.methods.predictions import (
    PredictionDistillation,
    TeacherStep,
    answer_columns,
    pkd_layers,
    teacher_columns,
    teacher_logits,
)
from teachback.methods.teacher import Teacher, head_name
from teachback.models.heads import Classifier
from teachback.models.loading import load_finished_classifier, load_tokenizer
from teachback.stages.context import Context
from teachback.stages.student import initial_student, save_trained, scored
from teachback.stages.teachers import Teachers

FEW_TEXTS = 200  # below which stage 5 suggests texts of other domains


def distil_second(context: Context, student_args: StudentArguments, args: SecondStageArguments,
                  meta_args: MetaTeacherArguments, domain: Domain) -> Path:  # fmt: skip
    """Run stage 5 for one domain: distil the teacher's predictions into stage 4's student; returns its folder."""
    if student_args.teacher == "multi" or args.teacher_seeds or (args.soft_labels and not args.beta_pkd):
        return distil_predictions(context, student_args, args, domain)
    teacher = context.teachers.read(student_args.teacher, domain.name, student_args.teacher_domain)
    first = context.student_before(domain, "student_first", "4_student_first.sh")
    rows, dev, names = _transfer_rows(context, student_args, args, domain)
    quiz = context.rows.quiz([domain.name], domain) if args.meta_teacher_every_epoch else []
    folder = context.student_folder(domain, "student_second")
    choices = _choices(student_args, args)
    inputs = {"teacher": teacher.hash, "student_first": hash_model(str(first))} | _file_input(args)
    arguments = (args, choices, meta_args) if quiz else (args, choices)
    run = context.run(folder, arguments, names, inputs, first, train=rows, selection=dev, quiz=quiz)
    if context.skip(run):
        return folder
    model, tokenizer = load_finished_classifier(first).train(), load_tokenizer(str(first))
    rows, given = _with_windows_and_answers(context, student_args, args, rows, tokenizer, domain)
    encoded = context.encode(rows, names, tokenizer)
    layers = pkd_layers(model, teacher, args)
    step = _teacher_step(context, model, tokenizer, teacher, quiz, domain, meta_args) if quiz else None
    features = context.teachers.features(teacher, rows, layers)
    encoded.columns |= teacher_columns(teacher, features, domain, changes=step is not None)
    if given:
        encoded.columns |= answer_columns(given, encoded.columns["label"])
    width = teacher.classifier.model.config.hidden_size if layers else 0
    module = PredictionDistillation(Classifier(model, {domain.head: domain}), args, choices["use_expertise_weights"], step, width,
                                    student_args.expertise_power)  # fmt: skip
    _fit_and_publish(context, run, module, tokenizer, encoded, rows, dev, teacher_folder=teacher.folder.name)
    return folder


def _transfer_rows(context: Context, student_args: StudentArguments, args: SecondStageArguments,
                   domain: Domain) -> tuple[list[Row], list[Row], list[str]]:  # fmt: skip
    """Train rows (labelled rows of the domain, then further rows that only the teacher labels), selection rows, and domains."""
    if args.soft_labels and student_args.transfer_windows:
        raise TeachbackError("SOFT_LABELS has no answers for windows of texts; set TRANSFER_WINDOWS=0")
    names = [domain.name] if args.second_transfer_set == "domain" else context.rows.sharing_labels_with(domain)
    rows = context.rows.train(names, domain.name)  # in the order of stage 4, so that the teacher's answers are found on disk
    rows = [row if row.domain == domain.name else replace(row, label="") for row in rows if row.label or row.domain != domain.name]
    further = read_unlabelled(student_args.unlabelled, domain)
    return scored(rows, student_args) + further, context.rows.selection([domain.name]), names


def _suggest_more_texts(context: Context, rows: list[Row], args: SecondStageArguments, domain: Domain) -> None:
    """Print that other domains' texts could be used, if the domain has few: on these alone the student may become worse."""
    others = [other.name for other in context.rows.trained_domains_like(domain) if other.name != domain.name]
    if args.second_transfer_set == "domain" and len(rows) < FEW_TEXTS and others:
        context.say(
            f"{domain.name} has only {len(rows)} texts to train on; SECOND_TRANSFER_SET=all adds those of {', '.join(others)}, with the "
            "teacher's predictions as targets (docs/results.md#few-labels)"
        )


def _file_input(args: SecondStageArguments) -> dict[str, str]:
    """Hash of the file of soft labels, if there is one."""
    if not args.soft_labels:
        return {}
    if not Path(args.soft_labels).is_file():
        raise TeachbackError(f"SOFT_LABELS={args.soft_labels}: there is no such file")
    return {"soft labels": content_hash(Path(args.soft_labels))}


def _with_windows_and_answers(context: Context, student_args: StudentArguments, args: SecondStageArguments, rows: list[Row],
                              tokenizer, domain: Domain) -> tuple[list[Row], SoftLabels | None]:  # fmt: skip
    """Add further windows of long texts, after a hint if there are few texts; with SOFT_LABELS, only rows with a label or an answer, and these answers."""
    _suggest_more_texts(context, rows, args, domain)
    rows = rows + context.windows(rows, tokenizer, student_args.transfer_windows)
    if not args.soft_labels:
        return rows, None
    given = read_soft_labels(args.soft_labels, rows, domain)
    kept = [i for i, row in enumerate(rows) if row.label or given.known[i]]
    rest = f", {len(rows) - len(kept):,} have neither and are left out" * (len(kept) < len(rows))
    context.say(
        f"{args.soft_labels} has probabilities for {given.known.sum():,} of {len(rows):,} rows of {domain.name}; "
        f"{len(kept) - given.known.sum():,} have only a label{rest}; {given.elsewhere:,} rows of the file match no row"
    )
    return [rows[i] for i in kept], SoftLabels(given.values[kept])


def _choices(student_args: StudentArguments, args: SecondStageArguments) -> dict:
    """Arguments of the student that determine the result of stage 5."""
    weighted = student_args.use_expertise_weights
    choices = {
        "teacher": "soft_labels" if args.soft_labels and not args.beta_pkd else student_args.teacher,
        "use_expertise_weights": args.method == "metakd" if weighted is None else weighted,
        "expertise_power": student_args.expertise_power,
    }
    windows = student_args.transfer_windows
    return choices | ({"transfer_windows": windows} if windows else {})


def distil_predictions(
    context: Context, student_args: StudentArguments, args: SecondStageArguments, domain: Domain
) -> Path:
    """Run stage 5 from predictions alone, SOFT_LABELS or the mean of an ensemble's soft targets; returns the folder."""
    if args.beta_pkd or args.meta_teacher_every_epoch:
        raise TeachbackError(
            "TEACHER=multi and TEACHER_SEEDS give averaged predictions but no inner states; set BETA_PKD=0 META_TEACHER_EVERY_EPOCH=0"
        )
    members = [] if args.soft_labels else _ensemble(context, student_args, args, domain)
    folders = [teachers.finished(kind, taught or domain.name) for teachers, kind, taught in members]
    first = context.student_before(domain, "student_first", "4_student_first.sh")
    rows, dev, names = _transfer_rows(context, student_args, args, domain)
    choices = _choices(student_args, args)
    inputs = {f"{folder.parent.name}/{folder.name}" if args.teacher_seeds else folder.name: hash_model(str(folder)) for folder in folders}
    inputs |= {"student_first": hash_model(str(first))}
    folder = context.student_folder(domain, "student_second")
    run = context.run(folder, (args, choices), names, inputs | _file_input(args), first, train=rows, selection=dev)
    if context.skip(run):
        return folder
    model, tokenizer = load_finished_classifier(first).train(), load_tokenizer(str(first))
    rows, given = _with_windows_and_answers(context, student_args, args, rows, tokenizer, domain)
    encoded = context.encode(rows, names, tokenizer)
    if given:
        encoded.columns |= answer_columns(given, encoded.columns["label"])
    else:
        logits = [_answers(*member, rows, domain) for member in members]
        encoded.columns["teacher_logits"] = average_predictions(torch.stack(logits), args.temperature)
    module = PredictionDistillation(Classifier(model, {domain.head: domain}), args, choices["use_expertise_weights"],
                                    expertise_power=student_args.expertise_power)  # fmt: skip
    _fit_and_publish(context, run, module, tokenizer, encoded, rows, dev)
    return folder


def _ensemble(context: Context, student_args: StudentArguments, args: SecondStageArguments,
              domain: Domain) -> list[tuple[Teachers, str, str]]:  # fmt: skip
    """Members of an ensemble: the run and kind of each teacher, and the domain of a single teacher."""
    kind, names = student_args.teacher, [student_args.teacher_domain]
    if kind == "multi":
        kind, names = "single", [other.name for other in context.rows.trained_domains_like(domain)]
        if len(names) < 2:
            raise TeachbackError(f"TEACHER=multi: no other domain of this run has {domain.name}'s labels; use TEACHER=single")
    places = [context.teachers_of(int(seed)) for seed in args.teacher_seeds.split()] or [context.teachers]
    return [(teachers, kind, name) for teachers in places for name in names]


def _answers(teachers: Teachers, kind: str, taught: str, rows: list[Row], domain: Domain) -> torch.Tensor:
    """A teacher's logits of rows for the classes of ``domain``: [N, C]."""
    teacher = teachers.read(kind, domain.name, taught)
    return teacher_logits(teacher, teachers.features(teacher, rows), domain)


def _teacher_step(context: Context, model, tokenizer, teacher: Teacher, quiz: list[Row],
                  domain: Domain, meta_args: MetaTeacherArguments) -> TeacherStep:  # fmt: skip
    """Create the meta-teacher from the teacher's head, with its training on quiz rows after each epoch."""
    head = head_name(teacher.kind, domain)
    meta = MetaTeacher({head: meta_heads(teacher, [domain])[head]}, model.config.hidden_size)
    pooled = context.teachers.features(teacher, quiz).pooled
    encoded = context.encode(quiz, [domain.name], tokenizer)
    training = context.training
    return TeacherStep(meta.to(training.device), head, pooled, encoded, meta_args,
                       context.settings(tokenizer), training.per_device_train_batch_size, training.seed)  # fmt: skip


def finetune_student(
    context: Context, student_args: StudentArguments, args: SecondStageArguments, domain: Domain
) -> Path:
    """Run stage 5 with METHOD=finetune: train a student of the same size without a teacher; returns its folder."""
    student_args = _without_teacher(student_args, context, domain)
    rows, dev = context.rows.labelled([domain.name], domain.name)
    folder = context.student_folder(domain, "student_finetune")
    choices = {
        "method": "finetune",
        "student_model": student_args.student_model,
        "student_layers": student_args.student_layers,
        "dropout": student_args.dropout,
    }
    choices |= {name: value for name in HARD_LABEL if (value := getattr(args, name))}
    origin = student_args.student_model
    inputs = context.model_input(origin, domain.name)
    run = context.run(folder, (choices,), [domain.name], inputs, origin, train=rows, selection=dev)
    if context.skip(run):
        return folder
    model, tokenizer = initial_student(context, student_args, domain)
    encoded = context.encode(rows, [domain.name], tokenizer)
    module = PredictionDistillation(Classifier(model, {domain.head: domain}), args, use_expertise_weights=False)
    _fit_and_publish(context, run, module, tokenizer, encoded, rows, dev)
    return folder


def _without_teacher(student_args: StudentArguments, context: Context, domain: Domain) -> StudentArguments:
    """For STUDENT_INIT=teacher: take the same layers of the teacher's base model instead."""
    if student_args.student_init == "pretrained":
        return student_args
    folder = context.teachers.folder(student_args.teacher, student_args.teacher_domain or domain.name)
    context.require(folder, f"TEACHER={student_args.teacher}", "3_train_teacher.sh")
    origin = read_stage(folder)["arguments"].get("teacher_model")
    if origin is None:
        raise TeachbackError(
            f"METHOD=finetune STUDENT_INIT=teacher starts from the model that {folder} was trained from, which is unknown for a "
            "TEACHER_CHECKPOINT; set STUDENT_INIT=pretrained, and STUDENT_MODEL to that model"
        )
    return replace(student_args, student_init="pretrained", student_model=origin)


def _fit_and_publish(
    context: Context, run: StageRun, module: PredictionDistillation, tokenizer, encoded, rows: list[Row], dev: list[Row],
    **more: str,
) -> None:  # fmt: skip
    """Train a student on predictions or labels of its domain, select by its score, and publish it."""
    domain = next(iter(module.student.heads.values()))
    encoded.columns |= class_weight_column(module.arguments, rows, [domain])
    trainer, metrics = context.fit(run, module, encoded, dev, [domain.name], tokenizer)
    context.compare_with_majority("student", metrics, labelled(rows), dev)
    record = {"method": run.arguments["method"], "domain": domain.name, "head_trained": True} | more
    context.publish(run, trainer, lambda path: save_trained(path, module, tokenizer), record, metrics)
