"""Stages 3, 4 and 5, from arguments to a finished folder."""

from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file

from teachback.arguments import (
    DataArguments,
    FirstStageArguments,
    OptimizerArguments,
    SecondStageArguments,
    StudentArguments,
    TeacherArguments,
)
from teachback.distill import FirstStage, SecondStage
from teachback.errors import TeachbackError
from teachback.experiment import Experiment
from teachback.models import Classifier, load_classifier, load_finished_classifier, load_tokenizer
from teachback.runs import StageRun, hash_model, read_stage
from teachback.students import initial_student
from teachback.suite_data import read_unlabelled
from teachback.suites.schema import Domain, Row
from teachback.teacher import Teacher, TeacherTraining, head_name


def train_teachers(data_args: DataArguments, args: TeacherArguments, training: OptimizerArguments) -> list[Path]:
    """Stage 3: one teacher over the selected domains, or a single teacher for each target domain."""
    experiment = Experiment(data_args, training)
    data = experiment.data
    if args.teacher != "single":
        return [train_teacher(experiment, args, data.selected)]
    return [train_teacher(experiment, args, [domain.name]) for domain in data.targets(data_args.domain)]


def train_teacher(experiment: Experiment, args: TeacherArguments, names: list[str]) -> Path:
    """Train a teacher on the named domains. Returns its folder."""
    data, data_dir = experiment.data, experiment.args.data_dir
    rows, dev = experiment.labelled_rows(names)
    folder = experiment.teacher_folder(args.teacher, names[0])
    inputs = experiment.model_input(args.teacher_model)
    run = experiment.run(folder, (args, {"trained_domains": names}), names, inputs, train=rows, selection=dev)
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
    teacher_path, teacher = experiment.read_teacher(student_args.teacher, domain.name)
    names = [d.name for d in teacher.domains]
    used = [n for n in experiment.data.selected if n in names] if args.transfer_set == "all" else [domain.name]
    rows = experiment.data.rows("train", used) + read_unlabelled(args.unlabelled, domain)
    dev = experiment.data.rows(experiment.split, used)
    folder = experiment.student_folder(domain, "student_first")
    inputs = {"teacher": hash_model(str(teacher_path))}
    if student_args.student_init == "pretrained":
        inputs |= experiment.model_input(student_args.student_model)
    head = {"head": head_name(student_args.teacher, domain)}
    run = experiment.run(folder, (student_args, args, head), used, inputs, train=rows, selection=dev)
    if experiment.skip(run) or _copied(run, experiment, domain):
        return folder
    model, tokenizer = initial_student(
        student_args, experiment.data, domain, experiment.args.data_dir, teacher, teacher_path
    )
    _require_same_tokens(tokenizer, load_tokenizer(str(teacher_path)))
    module = FirstStage(Classifier(model, {domain.head: domain}), teacher, args, student_args.use_expertise_weights)
    teacher.to(experiment.training.device)
    encoded = experiment.encode(rows, names, tokenizer)
    trainer, metrics = experiment.fit(run, module, encoded, dev, names, tokenizer, scored=False)
    record = {"method": "metakd", "domain": domain.name, "head_trained": student_args.student_init == "teacher"}
    experiment.publish(run, trainer, lambda path: _save_first(path, module, tokenizer), record, metrics)
    return folder


def _copied(run: StageRun, experiment: Experiment, domain: Domain) -> bool:
    """Take another domain's student where it would be the same to the bit, as with TRANSFER_SET=all."""
    if experiment.training.world_size > 1:
        return False
    for other in sorted(experiment.root.glob(f"*/{run.folder.name}")):
        if other != run.folder and run.reuse(other, domain=domain.name):
            experiment.say(f"wrote {run.folder}, a copy of {other}, which has the same inputs and arguments")
            return True
    return False


def _require_same_tokens(student, teacher) -> None:
    if student.get_vocab() != teacher.get_vocab():
        raise TeachbackError(
            "teacher and student have different tokenizers, so their tokens cannot be aligned for the embedding, hidden-state "
            "and attention losses; set STUDENT_INIT=teacher, or a STUDENT_MODEL with the teacher's vocabulary"
        )


def _save_first(folder: Path, module: FirstStage, tokenizer) -> None:
    _save_student(folder, module.student.model, tokenizer)
    rest = {
        name: value.contiguous() for name, value in module.state_dict().items() if not name.startswith("student.model.")
    }
    save_file(rest, folder / "training_only.safetensors")


def _save_student(folder: Path, model, tokenizer) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def distil_second(
    experiment: Experiment, student_args: StudentArguments, args: SecondStageArguments, domain: Domain
) -> Path:
    """Stage 5 for one domain: the teacher's predictions into stage 4's student. Returns the student's folder."""
    teacher_path, teacher = experiment.read_teacher(student_args.teacher, domain.name)
    first = experiment.student_folder(domain, "student_first")
    experiment.require(first, f"DOMAIN={domain.name}", "4_student_first.sh")
    rows, dev = experiment.labelled_rows([domain.name])
    folder = experiment.student_folder(domain, "student_second")
    choices = {"teacher": student_args.teacher, "use_expertise_weights": student_args.use_expertise_weights}
    inputs = {"teacher": hash_model(str(teacher_path)), "student_first": hash_model(str(first))}
    run = experiment.run(folder, (args, choices), [domain.name], inputs, train=rows, selection=dev)
    if experiment.skip(run):
        return folder
    model, tokenizer = load_finished_classifier(first).train(), load_tokenizer(str(first))
    encoded = experiment.encode(rows, [domain.name], tokenizer)
    encoded.columns["teacher_logits"] = experiment.ask(teacher, teacher_path, rows)[:, : model.config.num_labels]
    module = SecondStage(Classifier(model, {domain.head: domain}), args, student_args.use_expertise_weights)
    _fit_and_publish(experiment, run, module, tokenizer, encoded, rows, dev)
    return folder


def finetune_student(
    experiment: Experiment, student_args: StudentArguments, args: SecondStageArguments, domain: Domain
) -> Path:
    """Stage 5 with METHOD=finetune: a student of the same size that never meets a teacher. Returns its folder."""
    student_args = _without_teacher(student_args, experiment, domain)
    rows, dev = experiment.labelled_rows([domain.name])
    folder = experiment.student_folder(domain, "student_finetune")
    choices = {
        "method": "finetune",
        "student_model": student_args.student_model,
        "student_layers": student_args.student_layers,
    }
    inputs = experiment.model_input(student_args.student_model)
    run = experiment.run(folder, (choices,), [domain.name], inputs, train=rows, selection=dev)
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
    experiment: Experiment, run: StageRun, module: SecondStage, tokenizer, encoded, rows: list[Row], dev: list[Row]
) -> None:
    """Train a student on predictions or labels of its one domain, select on its score, and publish it."""
    domain = next(iter(module.student.heads.values()))
    trainer, metrics = experiment.fit(run, module, encoded, dev, [domain.name], tokenizer)
    experiment.compare_with_majority("student", metrics, rows, dev)
    record = {"method": run.arguments["method"], "domain": domain.name, "head_trained": True}
    experiment.publish(run, trainer, lambda path: _save_student(path, module.student.model, tokenizer), record, metrics)


def distil(data_args: DataArguments, student_args: StudentArguments, first: FirstStageArguments, second: SecondStageArguments,
           training: OptimizerArguments) -> list[Path]:  # fmt: skip
    """Stage 4 or 5 for the target domain, or for each domain in turn where ``domain`` is all."""
    experiment = Experiment(data_args, training)
    targets = experiment.data.targets(data_args.domain)
    if student_args.stage == "first":
        return [distil_first(experiment, student_args, first, domain) for domain in targets]
    stage = finetune_student if second.method == "finetune" else distil_second
    return [stage(experiment, student_args, second, domain) for domain in targets]
