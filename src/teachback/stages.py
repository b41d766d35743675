"""Stages 3, 4 and 5 from arguments to a finished folder."""

import copy
import logging
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import set_seed

from teachback.arguments import (
    DataArguments,
    FirstStageArguments,
    OptimizerArguments,
    SecondStageArguments,
    StudentArguments,
    TeacherArguments,
    as_arguments,
    prepare_hardware,
    relevant,
)
from teachback.distill import FirstStage, SecondStage
from teachback.encoding import EncodedRows
from teachback.errors import TeachbackError
from teachback.models import Classifier, load_classifier, load_finished_classifier, load_tokenizer, locate
from teachback.runs import StageRun, hash_model, hash_rows, read_stage, seed_folder
from teachback.students import initial_student
from teachback.suite_data import SuiteData, encode_rows, labelled, read_unlabelled
from teachback.suites.schema import Domain, Row
from teachback.teacher import (
    Teacher,
    TeacherTraining,
    load_teacher,
    majority_scores,
    report_scores,
    score_by_domain,
)
from teachback.teacher_outputs import teacher_logits
from teachback.training import DistillationTrainer, train

logger = logging.getLogger(__name__)

# Where the data lies and what computes it do not change what is computed.
PLACES = ("data_dir", "output_root", "device", "domains", "domain", "stage")


def teacher_folder(data_args: DataArguments, kind: str, domain: str, seed: int) -> Path:
    name = f"teacher-single-{domain}" if kind == "single" else f"teacher-{kind}"
    return seed_folder(data_args.output_root, data_args.suite, seed) / name


def train_teacher(data_args: DataArguments, args: TeacherArguments, training: OptimizerArguments) -> Path:
    """Stage 3. Returns the teacher's folder."""
    data_args = replace(data_args, precision=prepare_hardware(data_args, training))
    data = SuiteData.read(data_args.data_dir, data_args.suite, data_args.domains)
    names = [data.target(data_args.domain).name] if args.teacher == "single" else data.selected
    split = data.selection_split(data_args.protocol)
    rows, dev = labelled(data.rows("train", names)), labelled(data.rows(split, names))
    run = StageRun(
        teacher_folder(data_args, args.teacher, names[0], training.seed),
        "teacher",
        as_arguments(data_args, args, without=PLACES) | {"trained_domains": names} | relevant(training),
        _inputs(data, names, args.teacher_model, data_args, train=rows, selection=dev),
    )
    if _skip(run, training):
        return run.folder
    set_seed(training.seed)
    tokenizer = load_tokenizer(args.teacher_model, data_args.data_dir, data.texts())
    teacher = _new_teacher(args, data, names, tokenizer, data_args.data_dir)
    trainer, metrics = _fit(run, TeacherTraining(teacher, args), data, names, tokenizer, rows, dev, data_args, training)
    _say(training, lambda: report_scores(metrics, majority_scores(rows, dev, data), split))
    record = {"transferable": teacher.transferable is not None, "head_trained": True}
    _publish(run, trainer, lambda folder: teacher.save(folder, tokenizer), record, metrics, split)
    return run.folder


def _new_teacher(args: TeacherArguments, data: SuiteData, names: list[str], tokenizer, data_dir: str) -> Teacher:
    domains = [data.suite.domain(name) for name in names]
    corrupts = args.teacher == "meta" and args.use_domain_loss
    if corrupts and len(domains) < 2:
        raise TeachbackError("the domain loss needs at least two domains; set USE_DOMAIN_LOSS=0 or add domains")
    return Teacher(load_classifier(args.teacher_model, domains[0], tokenizer, data_dir), args.teacher, domains, corrupts)


def _inputs(data: SuiteData, names: list[str], model: str, data_args: DataArguments, **rows: list[Row]) -> dict[str, str]:
    """Hashes of all that a run reads: rows, the domains' description, and the model it starts from."""
    description = {name: asdict(data.suite.domain(name)) | {"rows": None} for name in names}
    inputs = {f"{name} rows": hash_rows(part) for name, part in rows.items()}
    if model.startswith("scratch:"):
        inputs["vocabulary texts"] = hash_rows(data.all_train_rows())
    elif model:
        inputs["model"] = hash_model(locate(model, data_args.data_dir))
    return inputs | {"domains": repr(description)}


def _skip(run: StageRun, training: OptimizerArguments) -> bool:
    if run.up_to_date():
        _say(training, lambda: print(f"{run.folder} is up to date"))
        return True
    for change in run.changes():
        logger.warning("%s is made again, as this changed: %s", run.folder, change)
    return False


def _say(training: OptimizerArguments, speak) -> None:
    """Only the first of several processes speaks."""
    if training.should_save:
        speak()


def _fit(run, module, data, names, tokenizer, rows, dev, data_args, training, scored=True) -> tuple[DistillationTrainer, dict]:
    """Encode, train, and score the best checkpoint on the selection rows (longest first, to waste no padding)."""
    train_rows = rows if isinstance(rows, EncodedRows) else encode_rows(rows, data, names, tokenizer, data_args.max_length)
    dev_rows, order = encode_rows(dev, data, names, tokenizer, data_args.max_length).sorted_by_length()
    metrics = score_by_domain([dev[i] for i in order], data) if scored else None
    trainer = train(module, train_rows, dev_rows, training, run.checkpoints(), tokenizer.pad_token_id, metrics)
    return trainer, trainer.evaluate()


def _publish(run: StageRun, trainer: DistillationTrainer, save, record: dict, metrics: dict, split: str) -> None:
    trainer.accelerator.wait_for_everyone()
    if trainer.args.should_save:
        history = [entry for entry in trainer.state.log_history if "train_runtime" not in entry]
        dev = {name.removeprefix("eval_"): value for name, value in metrics.items() if name != "epoch"}
        record = record | {"selected_on": split, "seed": trainer.args.seed, "dev": dev, "history": history}
        with run.publishing(record | {"all_training_arguments": trainer.args.to_dict()}) as folder:
            save(folder)
        print(f"wrote {run.folder}")
    trainer.accelerator.wait_for_everyone()


def _read_teacher(data_args: DataArguments, kind: str, domain: Domain, seed: int, data: SuiteData) -> tuple[Path, Teacher]:
    folder = teacher_folder(data_args, kind, domain.name, seed)
    if not (folder / "stage.json").is_file():
        hint = f"TEACHER={kind}" + (f" DOMAIN={domain.name}" if kind == "single" else "")
        raise TeachbackError(f"there is no {kind} teacher at {folder}; run {hint} bash 3_train_teacher.sh with the same SUITE and SEED first")
    return folder, load_teacher(folder, read_stage(folder), data.suite)


def student_folder(data_args: DataArguments, domain: str, seed: int, name: str) -> Path:
    return seed_folder(data_args.output_root, data_args.suite, seed) / domain / name


def distil_first(data_args, student_args: StudentArguments, args: FirstStageArguments, training, domain: Domain) -> Path:
    """Stage 4 for one domain. Returns the student's folder."""
    data = SuiteData.read(data_args.data_dir, data_args.suite, data_args.domains)
    teacher_path, teacher = _read_teacher(data_args, student_args.teacher, domain, training.seed, data)
    names = [d.name for d in teacher.domains]
    used = [n for n in data.selected if n in names] if args.transfer_set == "all" else [domain.name]
    split = data.selection_split(data_args.protocol)
    rows, dev = data.rows("train", used), data.rows(split, used)
    rows = rows + read_unlabelled(args.unlabelled, domain)
    run = StageRun(
        student_folder(data_args, domain.name, training.seed, "student_first"),
        "student_first",
        as_arguments(data_args, student_args, args, without=(*PLACES, "unlabelled")) | {"head": domain.head} | relevant(training),
        {"teacher": hash_model(str(teacher_path))} | _inputs(data, used, _initial_model(student_args), data_args, train=rows, selection=dev),
    )
    if _skip(run, training) or _reuse(run, data_args, training):
        return run.folder
    set_seed(training.seed)
    model, tokenizer = initial_student(student_args, data, domain, data_args.data_dir, teacher, teacher_path)
    _require_same_tokens(tokenizer, load_tokenizer(str(teacher_path)))
    module = FirstStage(Classifier(model, {domain.head: domain}), teacher, args, student_args.use_expertise_weights)
    teacher.to(training.device)
    trainer, metrics = _fit(run, module, data, names, tokenizer, rows, dev, data_args, training, scored=False)
    record = {"method": "metakd", "domain": domain.name, "head_trained": student_args.student_init == "teacher"}
    _publish(run, trainer, lambda folder: _save_first(folder, module, tokenizer), record, metrics, split)
    return run.folder


def _initial_model(student_args: StudentArguments) -> str:
    return "" if student_args.student_init == "teacher" else student_args.student_model


def _reuse(run: StageRun, data_args: DataArguments, training: OptimizerArguments) -> bool:
    """Take another domain's student where it would be the same to the bit, as with TRANSFER_SET=all."""
    if training.world_size > 1:
        return False
    for other in sorted(run.folder.parent.parent.glob(f"*/{run.folder.name}")):
        if other != run.folder and run.reuse(other):
            print(f"{run.folder}: copied from {other}, which has the same inputs and arguments")
            return True
    return False


def _require_same_tokens(student, teacher) -> None:
    if student.get_vocab() != teacher.get_vocab():
        raise TeachbackError(
            "teacher and student have different tokenizers, so their tokens cannot be compared; set STUDENT_INIT=teacher, or choose a "
            "STUDENT_MODEL with the teacher's vocabulary"
        )


def _save_first(folder: Path, module: FirstStage, tokenizer) -> None:
    module.student.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    rest = {name: value.contiguous() for name, value in module.state_dict().items() if not name.startswith("student.model.")}
    save_file(rest, folder / "training_only.safetensors")


def distil_second(data_args, student_args: StudentArguments, args: SecondStageArguments, training, domain: Domain) -> Path:
    """Stage 5 for one domain: distillation of predictions into stage 4's student. Returns the student's folder."""
    data = SuiteData.read(data_args.data_dir, data_args.suite, data_args.domains)
    teacher_path, teacher = _read_teacher(data_args, student_args.teacher, domain, training.seed, data)
    first = student_folder(data_args, domain.name, training.seed, "student_first")
    if not (first / "stage.json").is_file():
        raise TeachbackError(f"there is no student at {first}; run DOMAIN={domain.name} bash 4_student_first.sh with the same SUITE and SEED first")
    rows, dev, split = _domain_rows(data, domain, data_args)
    run = StageRun(
        student_folder(data_args, domain.name, training.seed, "student_second"),
        "student_second",
        as_arguments(data_args, args, without=PLACES) | _second_stage_choices(student_args) | relevant(training),
        {"teacher": hash_model(str(teacher_path)), "student_first": hash_model(str(first))}
        | _inputs(data, [domain.name], "", data_args, train=rows, selection=dev),
    )
    if _skip(run, training):
        return run.folder
    set_seed(training.seed)
    student, tokenizer = load_finished_classifier(first).train(), load_tokenizer(str(first))
    encoded = encode_rows(rows, data, [domain.name], tokenizer, data_args.max_length)
    encoded.columns["teacher_logits"] = _ask_teacher(teacher, teacher_path, rows, data, data_args, training)[:, : student.config.num_labels]
    _fit_student(run, student, tokenizer, args, student_args, encoded, rows, dev, data, data_args, training, domain, split)
    return run.folder


def _domain_rows(data: SuiteData, domain: Domain, data_args: DataArguments) -> tuple[list[Row], list[Row], str]:
    split = data.selection_split(data_args.protocol)
    return labelled(data.rows("train", [domain.name])), labelled(data.rows(split, [domain.name])), split


def _second_stage_choices(student_args: StudentArguments) -> dict:
    """What stage 5 takes from the student's arguments; the rest is in the student it reads."""
    return {"teacher": student_args.teacher, "use_expertise_weights": student_args.use_expertise_weights}


def _ask_teacher(teacher: Teacher, folder: Path, rows, data, data_args, training) -> torch.Tensor:
    """The teacher's logits, on its own encoding of the same texts: [N, C]."""
    tokenizer = load_tokenizer(str(folder))
    encoded = encode_rows(rows, data, [d.name for d in teacher.domains], tokenizer, data_args.max_length)
    return teacher_logits(teacher, encoded, tokenizer.pad_token_id, training.per_device_eval_batch_size, training.device, data_args.precision)


def finetune_student(data_args, student_args: StudentArguments, args: SecondStageArguments, training, domain: Domain) -> Path:
    """Stage 5 with METHOD=finetune: a student of the same size that never meets a teacher. Returns its folder."""
    data = SuiteData.read(data_args.data_dir, data_args.suite, data_args.domains)
    student_args = _without_teacher(student_args, data_args, domain, training.seed)
    rows, dev, split = _domain_rows(data, domain, data_args)
    run = StageRun(
        student_folder(data_args, domain.name, training.seed, "student_finetune"),
        "student_finetune",
        as_arguments(data_args, without=PLACES)
        | {"method": "finetune", "student_model": student_args.student_model, "student_layers": student_args.student_layers}
        | relevant(training),
        _inputs(data, [domain.name], student_args.student_model, data_args, train=rows, selection=dev),
    )
    if _skip(run, training):
        return run.folder
    set_seed(training.seed)
    student, tokenizer = initial_student(student_args, data, domain, data_args.data_dir)
    encoded = encode_rows(rows, data, [domain.name], tokenizer, data_args.max_length)
    _fit_student(run, student, tokenizer, args, student_args, encoded, rows, dev, data, data_args, training, domain, split)
    return run.folder


def _without_teacher(student_args: StudentArguments, data_args: DataArguments, domain: Domain, seed: int) -> StudentArguments:
    """For a student that is cut from the teacher: the same cut of the model that the teacher itself started from."""
    if student_args.student_init == "pretrained":
        return student_args
    folder = teacher_folder(data_args, student_args.teacher, domain.name, seed)
    return replace(student_args, student_init="pretrained", student_model=read_stage(folder)["arguments"]["teacher_model"])


def _fit_student(run, model, tokenizer, args, student_args, encoded, rows, dev, data, data_args, training, domain, split) -> None:
    module = SecondStage(Classifier(model, {domain.head: domain}), args, student_args.use_expertise_weights)
    trainer, metrics = _fit(run, module, data, [domain.name], tokenizer, encoded, dev, data_args, training)
    _say(training, lambda: report_scores(metrics, majority_scores(rows, dev, data), split))
    record = {"method": args.method, "domain": domain.name, "head_trained": True}
    _publish(run, trainer, lambda folder: _save_student(folder, model, tokenizer), record, metrics, split)


def _save_student(folder: Path, model, tokenizer) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def distil(data_args, student_args, first, second, training) -> list[Path]:
    """Stage 4 or 5 for the target domain, or for each domain in turn where ``domain`` is all."""
    data_args = replace(data_args, precision=prepare_hardware(data_args, training))
    targets = SuiteData.read(data_args.data_dir, data_args.suite, data_args.domains).targets(data_args.domain)
    folders = []
    for domain in targets:
        own = copy.copy(training)  # a run fills in its own output folder and metric
        if student_args.stage == "first":
            folders.append(distil_first(data_args, student_args, first, own, domain))
        elif second.method == "finetune":
            folders.append(finetune_student(data_args, student_args, second, own, domain))
        else:
            folders.append(distil_second(data_args, student_args, second, own, domain))
    return folders
