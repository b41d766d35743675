"""Stage 3, from arguments to a finished folder: a teacher of one domain or of several."""

from pathlib import Path

from teachback.core.arguments import (
    DataArguments,
    OptimizerArguments,
    TeacherArguments,
)
from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain
from teachback.methods.teacher import Teacher, TeacherTraining
from teachback.models.loading import load_classifier, load_tokenizer
from teachback.stages.experiment import Experiment


def train_teachers(data_args: DataArguments, args: TeacherArguments, training: OptimizerArguments) -> list[Path]:
    """Stage 3: one teacher over the selected domains, or a single teacher for each target domain."""
    experiment = Experiment(data_args, training)
    if args.teacher != "single":
        shortened = experiment.shortened_domain()
        together = [experiment.taught_domains()]
        return experiment.each(
            "3_train_teacher", together, lambda names: train_teacher(experiment, args, names, shortened)
        )
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
