"""Driver of stage 3, from arguments to a finished folder: a teacher of one or several domains, trained here or elsewhere."""

from pathlib import Path

from teachback.core.arguments import DataArguments, TeacherArguments
from teachback.core.errors import TeachbackError
from teachback.core.integrity import without_writes_in_dry_runs
from teachback.core.training_arguments import OptimizerArguments
from teachback.data.schema import Domain
from teachback.data.suite_data import texts_of
from teachback.inference.scores import domain_scores
from teachback.methods.class_weights import class_weight_column
from teachback.methods.teacher import Teacher, TeacherTraining, embeds_domains, head_name
from teachback.methods.teacher_outputs import own_logits
from teachback.models.fine_tuned import label_order, load_fine_tuned
from teachback.models.loading import load_classifier, load_tokenizer
from teachback.stages.context import Context


@without_writes_in_dry_runs
def train_teachers(data_args: DataArguments, args: TeacherArguments, training: OptimizerArguments) -> list[Path]:
    """Run stage 3: train a teacher over the selected domains, or a single teacher for each target domain."""
    context = Context(data_args, training)
    if args.teacher != "single":
        shortened = context.rows.shortened_domain()
        together = [context.rows.taught_domains()]
        return context.each(
            "3_train_teacher", together, lambda names: train_teacher(context, args, names, shortened)
        )
    names = [domain.name for domain in context.data.targets(data_args.domain) if domain.name != data_args.hold_out]
    if not names:
        raise TeachbackError(f"HOLD_OUT={data_args.hold_out} is the only domain of TEACHER=single; choose another DOMAIN, or unset HOLD_OUT")
    return context.each("3_train_teacher", names, lambda name: train_teacher(context, args, [name], name))


def train_teacher(context: Context, args: TeacherArguments, names: list[str], shortened: str) -> Path:
    """Train a teacher on the domains ``names``, with TRAIN_FRACTION of ``shortened``; returns its folder."""
    if args.teacher_checkpoint:
        return publish_teacher(context, args, names, shortened)
    data, data_dir = context.data, context.args.data_dir
    rows, dev = context.rows.labelled(names, shortened)
    folder = context.teachers.folder(args.teacher, names[0])
    inputs = context.model_input(args.teacher_model, shortened)
    arguments = (args, {"trained_domains": names})
    run = context.run(folder, arguments, names, inputs, args.teacher_model, train=rows, selection=dev)
    if context.skip(run):
        return folder
    weights = class_weight_column(args, rows, list(map(data.suite.domain, names)), lambda domain: head_name(args.teacher, domain))
    tokenizer = load_tokenizer(args.teacher_model, data_dir, texts_of(context.rows.vocabulary(shortened)))
    teacher = new_teacher(args, [data.suite.domain(name) for name in names], tokenizer, data_dir)
    encoded = context.encode(rows, names, tokenizer)
    encoded.columns |= weights
    trainer, metrics = context.fit(run, TeacherTraining(teacher, args), encoded, dev, names, tokenizer)
    context.compare_with_majority("teacher", metrics, rows, dev)
    record = {"transferable": teacher.transferable is not None, "head_trained": True}
    context.publish(run, trainer, lambda path: teacher.save(path, tokenizer), record, metrics)
    return folder


def publish_teacher(context: Context, args: TeacherArguments, names: list[str], shortened: str) -> Path:
    """Publish a fine-tuned classifier as the teacher of the domains ``names``, after scoring it; returns its folder."""
    data, name = context.data, args.teacher_checkpoint
    domains = [data.suite.domain(each) for each in names]
    if other := next((domain for domain in domains if domain.head != domains[0].head), None):
        raise TeachbackError(
            f"TEACHER_CHECKPOINT={name} has one head, but {domains[0].name} and {other.name} have different labels; set DOMAINS to domains of "
            "one label set, or set TEACHER=single"
        )
    rows, dev = context.rows.labelled(names, shortened)
    folder = context.teachers.folder(args.teacher, names[0])
    order = label_order(name, domains[0], args.teacher_labels, context.args.data_dir)
    choices = {"teacher": args.teacher, "dropout": args.dropout, "trained_domains": names, "label_order": order}
    inputs = context.model_input(name, shortened)
    run = context.run(folder, (choices,), names, inputs, name, trains=False, selection=dev)
    if context.skip(run):
        return folder
    model, tokenizer = load_fine_tuned(name, domains[0], order, context.args.data_dir, args.dropout)
    teacher = Teacher(model, args.teacher, domains, transferable=False)
    logits = own_logits(teacher.classifier, context.encode(dev, names, tokenizer), **context.settings(tokenizer))
    scores = domain_scores(logits, dev, data)
    metrics = {f"eval_{key}": value for key, value in scores.items()}
    context.compare_with_majority("teacher", metrics, rows, dev, "are its labels in the right order (TEACHER_LABELS)?")
    record = {
        "transferable": False, "head_trained": True, "seed": context.training.seed, "dev": scores, "selected_on": context.rows.split,
        "teacher_checkpoint": name, "teacher_labels": args.teacher_labels,
    }  # fmt: skip
    context.publish_as_is(run, lambda path: teacher.save(path, tokenizer), record)
    return folder


def new_teacher(args: TeacherArguments, domains: list[Domain], tokenizer, data_dir: str) -> Teacher:
    """Create an untrained teacher with the heads of its kind, and for ``meta`` the transferable-knowledge module.

    Without the domain loss, or if its weight is 0, nothing would train that module, so it is left out.
    """
    corrupts = args.teacher == "meta" and args.use_domain_loss and args.domain_loss_weight > 0
    if corrupts and len(domains) < 2:
        raise TeachbackError("the domain loss needs at least two domains; set USE_DOMAIN_LOSS=0 or add domains")
    model = load_classifier(args.teacher_model, domains[0], tokenizer, data_dir, args.dropout)
    return Teacher(model, args.teacher, domains, corrupts, embeds_domains(args.domain_labels))
