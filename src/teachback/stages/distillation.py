"""Stages 3, 4 and 5, from arguments to a finished folder."""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from teachback.core.arguments import (
    DataArguments,
    FirstStageArguments,
    MetaTeacherArguments,
    OptimizerArguments,
    SecondStageArguments,
    StudentArguments,
    TeacherArguments,
)
from teachback.core.errors import TeachbackError
from teachback.core.runs import StageRun, hash_model, read_stage
from teachback.data.schema import Domain, Row, class_count
from teachback.data.suite_data import read_unlabelled
from teachback.inference.model_card import write_card
from teachback.methods.inner_layers import FirstStage, require_no_common_tokens
from teachback.methods.losses import average_predictions
from teachback.methods.meta_teacher import MetaTeacher, meta_heads
from teachback.methods.predictions import SecondStage, TeacherStep, pkd_layer_map
from teachback.methods.student import initial_student
from teachback.methods.teacher import Teacher, TeacherTraining, head_name
from teachback.methods.teacher_outputs import Features, logits_of
from teachback.models.heads import Classifier
from teachback.models.loading import load_classifier, load_finished_classifier, load_tokenizer
from teachback.stages.experiment import Experiment

INITIAL_STUDENT = ("student_model", "student_layers", "student_init")


def train_teachers(data_args: DataArguments, args: TeacherArguments, training: OptimizerArguments) -> list[Path]:
    """Stage 3: one teacher over the selected domains, or a single teacher for each target domain."""
    experiment = Experiment(data_args, training)
    if args.teacher != "single":
        shortened = experiment.shortened_domain()
        together = [experiment.taught_domains()]
        return experiment.each("3_train_teacher", together, lambda names: train_teacher(experiment, args, names, shortened))
    names = [domain.name for domain in experiment.data.targets(data_args.domain) if domain.name != data_args.hold_out]
    if not names:
        raise TeachbackError(f"HOLD_OUT={data_args.hold_out} leaves out the one domain of TEACHER=single")
    return experiment.each("3_train_teacher", names, lambda name: train_teacher(experiment, args, [name], name))


def train_teacher(experiment: Experiment, args: TeacherArguments, names: list[str], shortened: str) -> Path:
    """Train a teacher on the named domains; of the ``shortened`` one TRAIN_FRACTION. Returns its folder."""
    data, data_dir = experiment.data, experiment.args.data_dir
    rows, dev = experiment.labelled_rows(names, shortened)
    folder = experiment.teacher_folder(args.teacher, names[0])
    inputs = experiment.model_input(args.teacher_model)
    told = (args, {"trained_domains": names})
    run = experiment.run(folder, told, names, inputs, args.teacher_model, train=rows, selection=dev)
    if experiment.skip(run):
        return folder
    tokenizer = load_tokenizer(args.teacher_model, data_dir, data.texts())
    teacher = new_teacher(args, [data.suite.domain(name) for name in names], tokenizer, data_dir)
    encoded = experiment.encode(rows, names, tokenizer)
    trainer, metrics = experiment.fit(run, TeacherTraining(teacher, args), encoded, dev, names, tokenizer)
    experiment.compare_with_majority("teacher", metrics, rows, dev)
    record = {"transferable": teacher.transferable is not None, "head_trained": True}
    experiment.publish(run, trainer, lambda path: teacher.save(path, tokenizer), record, metrics)
    return folder


def new_teacher(args: TeacherArguments, domains: list[Domain], tokenizer, data_dir: str) -> Teacher:
    """An untrained teacher with the heads of its kind, and for ``meta`` the transferable-knowledge module."""
    corrupts = args.teacher == "meta" and args.use_domain_loss
    if corrupts and len(domains) < 2:
        raise TeachbackError("the domain loss needs at least two domains; set USE_DOMAIN_LOSS=0 or add domains")
    return Teacher(
        load_classifier(args.teacher_model, domains[0], tokenizer, data_dir), args.teacher, domains, corrupts
    )


def distil_first(
    experiment: Experiment, student_args: StudentArguments, args: FirstStageArguments, domain: Domain
) -> Path:
    """Stage 4 for one domain. Returns the student's folder."""
    weighted = student_args.use_expertise_weights is not False
    teacher_path, teacher = _teacher_of(experiment, student_args, domain)
    used = _transfer_domains(experiment, teacher, args, domain)
    names = [d.name for d in teacher.domains]
    rows = _scored(experiment.train_rows(used, domain.name), student_args) + read_unlabelled(args.unlabelled, domain)
    dev = experiment.selection_rows(used, with_label=False)
    folder = experiment.student_folder(domain, "student_first")
    inputs = {"teacher": hash_model(str(teacher_path))}
    if student_args.student_init == "pretrained":
        inputs |= experiment.model_input(student_args.student_model)
    head = {"head": head_name(student_args.teacher, domain), "use_expertise_weights": weighted}
    origin = teacher_path if student_args.student_init == "teacher" else student_args.student_model
    run = experiment.run(folder, (student_args, args, head), used, inputs, origin, train=rows, selection=dev)
    if experiment.skip(run) or _copied(run, experiment, domain):
        return folder
    model, tokenizer = initial_student(
        student_args, experiment.data, domain, experiment.args.data_dir, teacher, teacher_path
    )
    same_tokens = tokenizer.get_vocab() == load_tokenizer(str(teacher_path)).get_vocab()
    if not same_tokens:
        require_no_common_tokens(args, transferable=teacher.transferable is not None)
    module = FirstStage(Classifier(model, {domain.head: domain}), teacher, args, weighted)
    teacher.to(experiment.training.device)
    encoded = experiment.encode(rows, names, tokenizer)
    record = {"method": "metakd", "domain": domain.name, "teacher_folder": teacher_path.name,
              "head_trained": student_args.student_init == "teacher"}  # fmt: skip

    def write_states(*parts) -> None:
        kept = experiment.write_teacher_states(run, module.live_teacher, inputs["teacher"], tokenizer, *parts)
        record["teacher_states_kept"] = kept

    dev_means = None
    if not same_tokens:
        encoded.columns |= _teacher_means(experiment, teacher, teacher_path, rows)
        dev_means = _teacher_means(experiment, teacher, teacher_path, dev)
    trainer, metrics = experiment.fit(run, module, encoded, dev, names, tokenizer, scored=False,
                                      prepare=write_states if same_tokens else None, dev_columns=dev_means)  # fmt: skip
    experiment.publish(run, trainer, lambda path: _save_trained(path, module, tokenizer), record, metrics)
    return folder


def _transfer_domains(experiment: Experiment, teacher: Teacher, args: FirstStageArguments, domain: Domain) -> list[str]:
    """Names of the domains whose texts the first stage learns on, all of which the teacher answers for from here on.

    A single teacher does so for every domain of its label set but a held-out one; the others for those that they know.
    """
    if args.transfer_set == "domain":
        return [domain.name]
    known = {d.name for d in teacher.domains}
    for other in experiment.seen_with_labels_of(domain) if teacher.kind == "single" else ():
        if other.name not in known:
            teacher.add_unseen(other)
            known.add(other.name)
    return [name for name in experiment.data.trainable if name in known]


def _teacher_of(experiment: Experiment, args: StudentArguments, domain: Domain) -> tuple[Path, Teacher]:
    return experiment.read_teacher(args.teacher, domain.name, args.teacher_domain)


def _scored(rows: list[Row], args: StudentArguments) -> list[Row]:
    """The rows with their prototype scores, or with 1 for each."""
    return rows if args.use_sample_weights else [replace(row, weight=1.0) for row in rows]


def _copied(run: StageRun, experiment: Experiment, domain: Domain) -> bool:
    """Take another domain's student where it would be the same to the bit, as with TRANSFER_SET=all."""
    if experiment.training.world_size > 1:
        return False
    for other in sorted(experiment.root.glob(f"*/{run.folder.name}")):
        if other != run.folder and run.reuse(other, domain=domain.name, answers=experiment.answers(domain.name)):
            write_card(run.folder, read_stage(run.folder), experiment.data.suite)
            experiment.say(f"wrote {run.folder}, a copy of {other}, which has the same inputs and arguments")
            return True
    return False


def _teacher_means(experiment: Experiment, teacher: Teacher, folder: Path, rows: list[Row]) -> dict[str, torch.Tensor]:
    """What a student of other tokens learns from, by row: the teacher's states that belong to no one token."""
    told = experiment.teacher_features(teacher, folder, rows, means=True)
    assert told.means is not None  # they were asked for
    return {"teacher_means": torch.cat([told.pooled, told.means], -1)}


def _save_trained(folder: Path, module: FirstStage | SecondStage, tokenizer) -> None:
    """The student as a plain checkpoint, and what only its training needed beside it."""
    _save_student(folder, module.student.model, tokenizer)
    rest = {
        name: value.contiguous() for name, value in module.state_dict().items() if not name.startswith("student.model.")
    }
    if rest:
        save_file(rest, folder / "training_only.safetensors")


def _save_student(folder: Path, model, tokenizer) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def pass_on(experiment: Experiment, student_args: StudentArguments, domain: Domain) -> Path:
    """Stage 4 with FIRST=none: the initial student, as it is. Returns its folder."""
    teacher_path, teacher = None, None
    if student_args.student_init == "teacher":
        teacher_path, teacher = _teacher_of(experiment, student_args, domain)
        inputs = {"teacher": hash_model(str(teacher_path))}
    else:
        inputs = experiment.model_input(student_args.student_model)
    folder = experiment.student_folder(domain, "student_first")
    choices = {"first": "none"} | {name: getattr(student_args, name) for name in INITIAL_STUDENT}
    run = experiment.run(folder, (choices,), [domain.name], inputs, teacher_path or student_args.student_model)
    if experiment.skip(run):
        return folder
    model, tokenizer = initial_student(
        student_args, experiment.data, domain, experiment.args.data_dir, teacher, teacher_path
    )
    experiment.say(f"FIRST=none: {domain.name}'s student is passed on as it is, and has learnt nothing yet")
    head_trained = student_args.student_init == "teacher"
    record = {"method": "none", "domain": domain.name, "head_trained": head_trained, "seed": experiment.training.seed}
    experiment.publish_as_is(run, lambda path: _save_student(path, model, tokenizer), record)
    return folder


def distil_second(experiment: Experiment, student_args: StudentArguments, args: SecondStageArguments,
                  meta_args: MetaTeacherArguments, domain: Domain) -> Path:  # fmt: skip
    """Stage 5 for one domain: the teacher's predictions into stage 4's student. Returns the student's folder."""
    if student_args.teacher == "multi":
        return distil_several(experiment, student_args, args, domain)
    teacher_path, teacher = _teacher_of(experiment, student_args, domain)
    first = experiment.student_before(domain, "student_first", "4_student_first.sh")
    rows, dev = experiment.labelled_rows([domain.name], domain.name)
    rows = _scored(rows, student_args)
    quiz = experiment.quiz([domain.name]) if args.meta_teacher_every_epoch else []
    folder = experiment.student_folder(domain, "student_second")
    weighted = _weights_by_expertise(student_args, args)
    choices = {"teacher": student_args.teacher, "use_expertise_weights": weighted}
    inputs = {"teacher": hash_model(str(teacher_path)), "student_first": hash_model(str(first))}
    arguments = (args, choices, meta_args) if quiz else (args, choices)
    run = experiment.run(folder, arguments, [domain.name], inputs, first, train=rows, selection=dev, quiz=quiz)
    if experiment.skip(run):
        return folder
    model, tokenizer = load_finished_classifier(first).train(), load_tokenizer(str(first))
    encoded = experiment.encode(rows, [domain.name], tokenizer)
    layers = _pkd_layers(model, teacher, args)
    step = _teacher_step(experiment, model, tokenizer, teacher, teacher_path, quiz, domain, meta_args) if quiz else None
    encoded.columns |= _teacher_columns(experiment, teacher, teacher_path, rows, layers, step is not None, domain)
    width = teacher.classifier.model.config.hidden_size if layers else 0
    module = SecondStage(Classifier(model, {domain.head: domain}), args, weighted, step, width)
    _fit_and_publish(experiment, run, module, tokenizer, encoded, rows, dev, teacher_folder=teacher_path.name)
    return folder


def _weights_by_expertise(student_args: StudentArguments, args: SecondStageArguments) -> bool:
    if student_args.use_expertise_weights is None:
        return args.method == "metakd"
    return student_args.use_expertise_weights


def distil_several(
    experiment: Experiment, student_args: StudentArguments, args: SecondStageArguments, domain: Domain
) -> Path:
    """Stage 5 with TEACHER=multi: the mean of the domain teachers' soft targets. Returns the student's folder."""
    if args.beta_pkd or args.meta_teacher_every_epoch:
        raise TeachbackError(
            "TEACHER=multi gives averaged predictions and no inner states; set BETA_PKD=0 META_TEACHER_EVERY_EPOCH=0"
        )
    teachers = experiment.single_teachers(domain)
    first = experiment.student_before(domain, "student_first", "4_student_first.sh")
    rows, dev = experiment.labelled_rows([domain.name], domain.name)
    rows = _scored(rows, student_args)
    weighted = _weights_by_expertise(student_args, args)
    choices = {"teacher": "multi", "use_expertise_weights": weighted}
    inputs = {folder.name: hash_model(str(folder)) for _, folder in teachers} | {
        "student_first": hash_model(str(first))
    }
    folder = experiment.student_folder(domain, "student_second")
    run = experiment.run(folder, (args, choices), [domain.name], inputs, first, train=rows, selection=dev)
    if experiment.skip(run):
        return folder
    logits = [_answers(experiment, name, rows, domain) for name, _ in teachers]
    model, tokenizer = load_finished_classifier(first).train(), load_tokenizer(str(first))
    encoded = experiment.encode(rows, [domain.name], tokenizer)
    encoded.columns["teacher_logits"] = average_predictions(torch.stack(logits), args.temperature)
    module = SecondStage(Classifier(model, {domain.head: domain}), args, weighted)
    _fit_and_publish(experiment, run, module, tokenizer, encoded, rows, dev)
    return folder


def _answers(experiment: Experiment, name: str, rows: list[Row], domain: Domain) -> torch.Tensor:
    """What the single teacher of domain ``name`` says of rows of ``domain``: logits [N, C]."""
    folder, teacher = experiment.read_teacher("single", domain.name, name)
    return _logits(teacher, experiment.teacher_features(teacher, folder, rows), domain)


def _pkd_layers(model, teacher: Teacher, args: SecondStageArguments) -> tuple[int, ...]:
    """The teacher's layers whose [CLS] states the student learns, none without PKD."""
    if not args.beta_pkd:
        return ()
    depths = model.config.num_hidden_layers, teacher.classifier.model.config.num_hidden_layers
    return tuple(pkd_layer_map(args.pkd_layers, *depths))


def _teacher_columns(experiment: Experiment, teacher: Teacher, folder: Path, rows: list[Row], layers: tuple[int, ...],
                     changes: bool, domain: Domain) -> dict:  # fmt: skip
    """What the student learns from, by row: logits, or where heads will change the states that they answer from."""
    told = experiment.teacher_features(teacher, folder, rows, layers)
    columns = {"teacher_cls": told.cls} if layers else {}
    if changes:
        return columns | {"teacher_pooled": told.pooled}
    return columns | {"teacher_logits": _logits(teacher, told, domain)}


def _logits(teacher: Teacher, told: Features, domain: Domain) -> torch.Tensor:
    """The teacher's logits of the domain's own classes: [N, C]."""
    number = [known.name for known in teacher.domains].index(domain.name)
    return logits_of(teacher, told, number)[:, : class_count(domain)]


def _teacher_step(experiment: Experiment, model, tokenizer, teacher: Teacher, folder: Path, quiz: list[Row],
                  domain: Domain, meta_args: MetaTeacherArguments) -> TeacherStep:  # fmt: skip
    """The meta-teacher, which begins as the teacher's heads, and its step on quiz after each epoch."""
    head = head_name(teacher.kind, domain)
    meta = MetaTeacher({head: meta_heads(teacher, [domain])[head]}, model.config.hidden_size)
    pooled = experiment.teacher_features(teacher, folder, quiz).pooled
    encoded = experiment.encode(quiz, [domain.name], tokenizer)
    training = experiment.training
    return TeacherStep(meta.to(training.device), head, pooled, encoded, meta_args,
                       experiment.settings(tokenizer), training.per_device_train_batch_size, training.seed)  # fmt: skip


def finetune_student(
    experiment: Experiment, student_args: StudentArguments, args: SecondStageArguments, domain: Domain
) -> Path:
    """Stage 5 with METHOD=finetune: a student of the same size that never meets a teacher. Returns its folder."""
    student_args = _without_teacher(student_args, experiment, domain)
    rows, dev = experiment.labelled_rows([domain.name], domain.name)
    folder = experiment.student_folder(domain, "student_finetune")
    choices = {
        "method": "finetune",
        "student_model": student_args.student_model,
        "student_layers": student_args.student_layers,
    }
    origin = student_args.student_model
    inputs = experiment.model_input(origin)
    run = experiment.run(folder, (choices,), [domain.name], inputs, origin, train=rows, selection=dev)
    if experiment.skip(run):
        return folder
    model, tokenizer = initial_student(student_args, experiment.data, domain, experiment.args.data_dir)
    encoded = experiment.encode(rows, [domain.name], tokenizer)
    module = SecondStage(Classifier(model, {domain.head: domain}), args, use_expertise_weights=False)
    _fit_and_publish(experiment, run, module, tokenizer, encoded, rows, dev)
    return folder


def _without_teacher(student_args: StudentArguments, experiment: Experiment, domain: Domain) -> StudentArguments:
    """For a student that is cut from the teacher: the same cut of the model that the teacher itself started from."""
    if student_args.student_init == "pretrained":
        return student_args
    folder = experiment.teacher_folder(student_args.teacher, domain.name)
    experiment.require(folder, f"TEACHER={student_args.teacher}", "3_train_teacher.sh")
    return replace(
        student_args, student_init="pretrained", student_model=read_stage(folder)["arguments"]["teacher_model"]
    )


def _fit_and_publish(
    experiment: Experiment, run: StageRun, module: SecondStage, tokenizer, encoded, rows: list[Row], dev: list[Row],
    **more: str,
) -> None:  # fmt: skip
    """Train a student on predictions or labels of its one domain, select on its score, and publish it."""
    domain = next(iter(module.student.heads.values()))
    trainer, metrics = experiment.fit(run, module, encoded, dev, [domain.name], tokenizer)
    experiment.compare_with_majority("student", metrics, rows, dev)
    record = {"method": run.arguments["method"], "domain": domain.name, "head_trained": True} | more
    experiment.publish(run, trainer, lambda path: _save_trained(path, module, tokenizer), record, metrics)


def distil(data_args: DataArguments, student_args: StudentArguments, first: FirstStageArguments, second: SecondStageArguments,
           meta: MetaTeacherArguments, training: OptimizerArguments) -> list[Path]:  # fmt: skip
    """Stage 4 or 5 for the target domain, or for each domain in turn where ``domain`` is all."""
    experiment = Experiment(data_args, training)
    targets = experiment.data.targets(data_args.domain)
    if student_args.teacher == "multi" and (student_args.stage == "first" or second.method == "finetune"):
        student_args = replace(student_args, teacher="single")  # several encoders have no one set of layers
    if student_args.stage == "first" and first.first == "none":
        return experiment.each("4_student_first", targets, lambda domain: pass_on(experiment, student_args, domain))
    if student_args.stage == "first":
        return experiment.each(
            "4_student_first", targets, lambda domain: distil_first(experiment, student_args, first, domain)
        )
    name = "5_student_second"
    if second.method == "finetune":
        return experiment.each(name, targets, lambda domain: finetune_student(experiment, student_args, second, domain))
    return experiment.each(name, targets, lambda domain: distil_second(experiment, student_args, second, meta, domain))
