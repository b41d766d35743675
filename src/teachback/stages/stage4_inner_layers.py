"""Driver of stage 4, from arguments to a finished folder: distillation of the teacher's inner layers."""

from pathlib import Path

import torch

from teachback.core.arguments import FirstStageArguments, StudentArguments
from teachback.core.published import read_stage
from teachback.core.runs import StageRun
from teachback.data.common_tokens import TYPES, have_same_description, same_model_input
from teachback.data.schema import Domain, Row
from teachback.data.suite_data import read_unlabelled
from teachback.inference.model_card import write_card
from teachback.methods.inner_layers import InnerLayerDistillation, require_no_common_tokens
from teachback.methods.teacher import Teacher, head_name
from teachback.models.heads import Classifier
from teachback.models.layers import token_fields
from teachback.models.loading import load_tokenizer, save_checkpoint
from teachback.stages.context import Context
from teachback.stages.student import initial_student, save_trained, scored

INITIAL_STUDENT = ("student_model", "student_layers", "student_init", "dropout")


def distil_first(context: Context, student_args: StudentArguments, args: FirstStageArguments, domain: Domain) -> Path:
    """Run stage 4 for one domain; returns the student's folder."""
    weighted = student_args.use_expertise_weights is not False
    teacher = context.teachers.read(student_args.teacher, domain.name, student_args.teacher_domain)
    used = _transfer_domains(context, teacher, args, domain)
    names = [d.name for d in teacher.domains]
    rows = scored(context.rows.train(used, domain.name), student_args) + read_unlabelled(student_args.unlabelled, domain)
    dev = context.rows.selection(used, with_label=False)
    folder = context.student_folder(domain, "student_first")
    inputs = {"teacher": teacher.hash}
    if student_args.student_init == "pretrained":
        inputs |= context.model_input(student_args.student_model, domain.name)
    head = {"head": head_name(student_args.teacher, domain), "use_expertise_weights": weighted}
    origin = teacher.folder if student_args.student_init == "teacher" else student_args.student_model
    run = context.run(folder, (student_args, args, head), used, inputs, origin, train=rows, selection=dev)
    if context.skip(run) or _copied(run, context, domain):
        return folder
    model, tokenizer = initial_student(context, student_args, domain, teacher)
    rows += context.windows(rows, tokenizer, student_args.transfer_windows)
    shared = _shared_tokenizer(context, [*rows, *dev], model, tokenizer, teacher)
    if shared is None:
        require_no_common_tokens(args, transferable=teacher.transferable is not None)
    module = InnerLayerDistillation(Classifier(model, {domain.head: domain}), teacher, args, weighted,
                                    student_args.expertise_power)  # fmt: skip
    teacher.to(context.training.device)
    reading = shared or tokenizer
    encoded = context.encode(rows, names, reading)
    record = {"method": "metakd", "domain": domain.name, "teacher_folder": teacher.folder.name,
              "head_trained": student_args.student_init == "teacher"}  # fmt: skip

    def write_states(*parts) -> None:
        kept = context.teachers.write_states(run, module.teacher, reading, *parts)
        record["teacher_states_kept"] = kept

    dev_means = None
    if shared is None:
        encoded.columns |= _teacher_means(context, teacher, rows)
        dev_means = _teacher_means(context, teacher, dev)
    trainer, metrics = context.fit(run, module, encoded, dev, names, reading, scored=False,
                                      prepare=write_states if shared else None, dev_columns=dev_means)  # fmt: skip
    context.publish(run, trainer, lambda path: save_trained(path, module, tokenizer), record, metrics)
    return folder


def _shared_tokenizer(context: Context, rows: list[Row], student, tokenizer, teacher: Teacher):
    """Tokenizer whose batches both models can read, as it encodes ``rows`` like each model's own; None without such a tokenizer.

    It is the student's, or the teacher's if only the teacher's gives token types that a model needs.
    """
    of_teacher = load_tokenizer(str(teacher.folder))
    if tokenizer.pad_token_id != of_teacher.pad_token_id:  # decoders locate the last token by it
        return None
    if have_same_description(tokenizer, of_teacher):
        return tokenizer
    domains = sorted({row.domain for row in rows})
    for_student, for_teacher = (context.encode(rows, domains, one) for one in (tokenizer, of_teacher))
    by_student, by_teacher = (TYPES in token_fields(one) for one in (student, teacher.classifier.model))
    for chosen, encoded in ((tokenizer, for_student), (of_teacher, for_teacher)):
        if same_model_input(encoded, for_student, by_student) and same_model_input(encoded, for_teacher, by_teacher):
            return chosen
    return None


def _transfer_domains(context: Context, teacher: Teacher, args: FirstStageArguments, domain: Domain) -> list[str]:
    """Domains of the transfer set; those that the teacher lacks are added to it.

    For a single teacher these are all domains of its label set except a held-out one, otherwise the teacher's domains.
    """
    if args.transfer_set == "domain":
        return [domain.name]
    known = {d.name for d in teacher.domains}
    for other in context.rows.trained_domains_like(domain) if teacher.kind == "single" else ():
        if other.name not in known:
            teacher.add_unseen(other)
            known.add(other.name)
    return [name for name in context.data.trainable if name in known]


def _copied(run: StageRun, context: Context, domain: Domain) -> bool:
    """Reuse another domain's student if inputs and arguments are identical, as with TRANSFER_SET=all."""
    if context.training.world_size > 1:
        return False
    for other in sorted(context.root.glob(f"*/{run.folder.name}")):
        if other != run.folder and run.reuse(other, domain=domain.name, answers=context.answers(domain.name)):
            write_card(run.folder, read_stage(run.folder), context.data.suite)
            context.say(f"wrote {run.folder}, a copy of {other}, which has the same inputs and arguments")
            return True
    return False


def _teacher_means(context: Context, teacher: Teacher, rows: list[Row]) -> dict[str, torch.Tensor]:
    """Teacher states for a student with another tokenizer, by row: those that do not belong to a token."""
    states = context.teachers.features(teacher, rows, means=True)
    assert states.means is not None  # computed with means=True
    return {"teacher_means": torch.cat([states.pooled, states.means], -1)}


def publish_initial_student(context: Context, student_args: StudentArguments, domain: Domain) -> Path:
    """Run stage 4 with FIRST=none: publish the initial student; returns its folder."""
    teacher = None
    origin: Path | str = student_args.student_model
    if student_args.student_init == "teacher":
        teacher = context.teachers.read(student_args.teacher, domain.name, student_args.teacher_domain)
        inputs, origin = {"teacher": teacher.hash}, teacher.folder
    else:
        inputs = context.model_input(student_args.student_model, domain.name)
    folder = context.student_folder(domain, "student_first")
    choices = {"first": "none"} | {name: getattr(student_args, name) for name in INITIAL_STUDENT}
    run = context.run(folder, (choices,), [domain.name], inputs, origin)
    if context.skip(run):
        return folder
    model, tokenizer = initial_student(context, student_args, domain, teacher)
    context.say(f"FIRST=none: the initial student of {domain.name} is published without training")
    head_trained = student_args.student_init == "teacher"
    record = {"method": "none", "domain": domain.name, "head_trained": head_trained, "seed": context.training.seed}
    context.publish_as_is(run, lambda path: save_checkpoint(path, model, tokenizer), record)
    return folder
