"""Driver of stage 6, from arguments to two finished folders: the meta-teacher, and the student after its curriculum."""

import logging
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from teachback.core.arguments import CurriculumArguments, DataArguments, MetaTeacherArguments
from teachback.core.errors import Stopped, TeachbackError, naming
from teachback.core.files import sync, working_folder
from teachback.core.integrity import seal, without_writes_in_dry_runs
from teachback.core.options import recorded
from teachback.core.pass_progress import PassProgress
from teachback.core.published import hash_model, read_stage
from teachback.core.runs import StageRun
from teachback.core.training_arguments import OptimizerArguments
from teachback.data.groups import read_groups
from teachback.data.schema import Domain, Row
from teachback.data.splits import units_of
from teachback.data.suite_data import label_ids, labelled
from teachback.inference.metrics import by_domain
from teachback.inference.scores import predicted_labels
from teachback.methods.curriculum import Curriculum, DomainQuiz, Student, weights
from teachback.methods.curriculum_record import write_record
from teachback.methods.episodes import Episodes, domain_quiz, give_heads, new_accelerator
from teachback.methods.meta_teacher import (
    MetaTeacher,
    Quiz,
    fit_new_heads,
    load_meta_heads,
    meta_heads,
    new_heads,
    save_meta_teacher,
    take_heads,
    train_meta_teacher,
)
from teachback.methods.released_curriculum import ReleasedCurriculum
from teachback.methods.teacher import head_name
from teachback.methods.teacher_outputs import features, own_logits
from teachback.models.heads import Classifier
from teachback.models.loading import load_config, load_finished_classifier, load_tokenizer, save_checkpoint
from teachback.stages.context import Context
from teachback.training.checkpoints import is_whole, load_state, save_state
from teachback.training.memory import freed_memory_kept
from teachback.training.stopping import stop_request
from teachback.training.vocabulary import use_only, whole_vocabulary

logger = logging.getLogger(__name__)

KEPT = 2  # checkpoints of an unfinished run


@without_writes_in_dry_runs
def run_curriculum(data_args: DataArguments, meta_args: MetaTeacherArguments, args: CurriculumArguments) -> list[Path]:
    """Run stage 6 for the target domain, or for each domain in turn if ``domain`` is "all"."""
    if data_args.hold_out:
        raise TeachbackError("HOLD_OUT is for stages 3 to 5; stage 6 uses the quiz of all domains")
    machine = OptimizerArguments(  # the other fields are not used
        seed=args.seed, per_device_eval_batch_size=args.eval_batch_size, per_device_train_batch_size=args.batch_size, report_to=args.report_to
    )
    context = Context(data_args, machine)
    targets = context.data.targets(data_args.domain)
    return context.each("6_curriculum", targets, lambda domain: run_domain(context, meta_args, args, domain))


def run_domain(
    context: Context, meta_args: MetaTeacherArguments, args: CurriculumArguments, target: Domain
) -> Path:
    """Run stage 6 for one domain; returns the student's folder."""
    inputs = CurriculumInputs(context, args, target)
    meta_run = inputs.meta_run(meta_args)
    if not context.skip(meta_run):
        make_meta_teacher(inputs, meta_run, meta_args)
    run = inputs.run(args, meta_run)
    if context.skip(run):
        return run.folder
    meta = load_meta_heads(meta_run.folder, inputs.new_meta_teacher())
    CurriculumRun(inputs, run, args, meta).finish()
    return run.folder


class CurriculumInputs:
    """Inputs of stage 6 for a target domain: its teacher, its student and the quiz rows of all domains."""

    def __init__(self, context: Context, args: CurriculumArguments, target: Domain):
        self.context, self.args, self.target = context, args, target
        self.teacher = context.teachers.read(args.teacher, target.name)
        self.student_folder = context.student_before(target, "student_second", "5_student_second.sh")
        self._require_fraction()
        context.rows.quiz([target.name], target)
        self.domains = self._domains()
        self.names = [domain.name for domain in self.domains]
        if args.choose_from == "others" and len(self.domains) < 2:
            raise TeachbackError(
                f"CHOOSE_FROM=others: {target.name} is the only domain with a quiz; set CHOOSE_FROM=all"
            )
        self.quiz: dict[str, list[Row]] = {name: [] for name in self.names}
        for row in context.rows.quiz(list(self.quiz), target):
            self.quiz[row.domain].append(row)
        self.selection = context.rows.selection([target.name])

    def _require_fraction(self) -> None:
        """Refuse a student that was trained with another TRAIN_FRACTION."""
        asked, given = self.context.args.train_fraction, read_stage(self.student_folder).get("places", {}).get("train_fraction", 1.0)
        if asked not in (1, given):
            raise TeachbackError(
                f"{self.student_folder} was made with TRAIN_FRACTION={given:g}, but this stage has {asked:g}; run all stages with the same "
                "TRAIN_FRACTION, in an OUTPUT_DIR of its own"
            )

    def _domains(self) -> list[Domain]:
        """Domains with quiz rows, in the suite's order."""
        data = self.context.data
        with_quiz = {row.domain for row in labelled(data.rows("quiz"))}
        for name in data.trainable:
            if name not in with_quiz:
                logger.warning("%s has no quiz rows and cannot be chosen", name)
        return [data.suite.domain(name) for name in data.trainable if name in with_quiz]

    def inputs(self) -> dict[str, str]:
        return {"teacher": self.teacher.hash, "student": hash_model(str(self.student_folder))}

    def quiz_rows(self) -> list[Row]:
        return [row for rows in self.quiz.values() for row in rows]

    def meta_run(self, meta_args: MetaTeacherArguments) -> StageRun:
        folder = self.context.student_folder(self.target, "meta_teacher")
        arguments = (meta_args, {"teacher": self.args.teacher, "batch_size": self.args.batch_size})
        return self.context.run(folder, arguments, self.names, self.inputs(), self.teacher.folder, quiz=self.quiz_rows())

    def run(self, args: CurriculumArguments, meta_run: StageRun) -> StageRun:
        folder = self.context.student_folder(self.target, "curriculum")
        made = meta_run.up_to_date()  # False only in a dry run
        inputs = self.inputs() | {"meta_teacher": hash_model(str(meta_run.folder)) if made else "to be created first"}
        chosen = {k: v for k, v in recorded(args).items() if k not in ("report_to", "eval_batch_size")}
        return self.context.run(folder, (chosen,), self.names, inputs, self.student_folder,
                                quiz=self.quiz_rows(), selection=self.selection)  # fmt: skip

    def load_student(self) -> tuple[Classifier, PreTrainedTokenizerBase]:
        """Load stage 5's student with a head for every label set, the target's first, and its tokenizer."""
        heads = {self.target.head: self.target} | {domain.head: domain for domain in reversed(self.domains)}
        model = load_finished_classifier(self.student_folder).train()
        return Classifier(model, heads), load_tokenizer(str(self.student_folder))

    def new_meta_teacher(self) -> MetaTeacher:
        width = load_config(self.student_folder).hidden_size
        return MetaTeacher(meta_heads(self.teacher, self.domains), width)

    def compute_by_domain(self, ask: Callable[[list[Row], list[str]], torch.Tensor]) -> dict[str, torch.Tensor]:
        """Call ``ask`` (rows, domain names -> [N, ...]) on all quiz rows; returns the result by domain.

        Domains with the same number of sequences per row share a call, as a call per domain is slow for many small ones.
        """
        alike: dict[int, list[str]] = {}
        for domain in self.domains:
            alike.setdefault(len(domain.labels) if domain.kind == "choices" else 1, []).append(domain.name)
        by_domain: dict[str, torch.Tensor] = {}
        for names in alike.values():
            answers = ask([row for name in names for row in self.quiz[name]], names)
            by_domain |= dict(zip(names, answers.split([len(self.quiz[name]) for name in names])))
        return by_domain

    @cached_property
    def teacher_quizzes(self) -> dict[str, torch.Tensor]:
        """Teacher's pooled states of each domain's quiz."""
        return self.compute_by_domain(lambda rows, _: self.context.teachers.features(self.teacher, rows).pooled)


def make_meta_teacher(inputs: CurriculumInputs, run: StageRun, args: MetaTeacherArguments) -> None:
    """Train the meta-teacher's heads on all domains' quiz rows and publish them."""
    context, device = inputs.context, inputs.context.training.device
    student, tokenizer = inputs.load_student()
    pooled = inputs.compute_by_domain(
        lambda rows, names: features(student, context.encode(rows, names, tokenizer), **context.settings(tokenizer)).pooled
    )
    quizzes = []
    for domain in inputs.domains:
        name, rows = domain.name, inputs.quiz[domain.name]
        labels, guids = label_ids(rows, context.data.suite), [row.guid for row in rows]
        head = head_name(inputs.teacher.kind, domain)
        quizzes.append(Quiz(head, inputs.teacher_quizzes[name], pooled[name], labels, guids))
    meta = inputs.new_meta_teacher().to(device)
    # If stage 5 used the same teacher, its meta-teacher fits this teacher's states.
    same = read_stage(inputs.student_folder)["inputs"].get("teacher") == inputs.teacher.hash
    learnt = take_heads(meta, inputs.student_folder) if same else set()
    new = new_heads(inputs.teacher, inputs.domains) - learnt
    fit_new_heads(meta, quizzes, new, args.meta_loss)
    losses = train_meta_teacher(meta, quizzes, args, inputs.args.batch_size, context.training.seed)
    heads = sorted({quiz.head for quiz in quizzes})
    context.say(f"meta-teacher ({args.meta_loss}): heads {', '.join(heads)} trained on quiz, loss {losses[-1]:.4f}")
    record = {
        "method": "meta_teacher", "domain": inputs.target.name, "teacher_folder": inputs.teacher.folder.name,
        "meta_domains": inputs.names, "seed": context.training.seed, "loss_by_epoch": losses,
        "heads_of_stage_5": sorted(learnt), "new_heads": sorted(new),
    }  # fmt: skip
    context.publish_as_is(run, lambda folder: save_meta_teacher(folder, meta), record)


class CurriculumRun:
    """A run of the curriculum, from resuming a checkpoint to publishing the folder."""

    def __init__(self, inputs: CurriculumInputs, run: StageRun, args: CurriculumArguments, meta: MetaTeacher):
        self.inputs, self.stage, self.args, self.meta = inputs, run, args, meta
        self.context = inputs.context
        accelerator = new_accelerator(self.context.args.precision)
        classifier, self.tokenizer = inputs.load_student()
        classifier.to(accelerator.device)  # before `use_only`, which has no effect on a GPU
        head_domains = {head_name(inputs.teacher.kind, domain): domain for domain in inputs.domains}
        give_heads(classifier, meta, head_domains)
        quizzes = [self._quiz_of(domain, list(classifier.heads)) for domain in inputs.domains]
        self.selection = self.context.encode(inputs.selection, [inputs.target.name], self.tokenizer)
        use_only(classifier.model, [self.selection, *(quiz.rows for quiz in quizzes)], self.tokenizer.pad_token_id)
        student = Student(classifier, meta, args, accelerator, self.tokenizer.pad_token_id)
        groups = read_groups(self.context.data.folder)
        units = torch.tensor(units_of(inputs.quiz[inputs.target.name], {inputs.target.name: inputs.target}, groups))
        kind = ReleasedCurriculum if args.student_update == "released" else Curriculum
        curriculum = kind(student, quizzes, inputs.names.index(inputs.target.name), args, units)
        self.episodes = Episodes(curriculum, self._log_score)

    def _quiz_of(self, domain: Domain, heads: list[str]) -> DomainQuiz:
        rows = self.context.encode(self.inputs.quiz[domain.name], [domain.name], self.tokenizer)
        head = head_name(self.inputs.teacher.kind, domain)
        return domain_quiz(domain, rows, heads, head, self.meta, self.inputs.teacher_quizzes[domain.name])

    def finish(self) -> None:
        """Run the remaining episodes, and publish."""
        self.stage.claim()
        folder = self.stage.checkpoints()
        self._resume(folder)
        with self.context.tracking(self.stage) as self.episodes.tracks:
            self.episodes.start()
            self._run_episodes(folder)
        self._publish()

    def _run_episodes(self, folder: Path) -> None:
        total = self.args.episodes
        progress = PassProgress("ran", total, unit="episodes", done=self.episodes.done)
        with freed_memory_kept(), stop_request() as request, progress.bar:
            while self.episodes.left:
                scored = self.episodes.run_next()
                last = self.episodes.last
                progress.bar.set_postfix(loss=last["student_loss"], reward=last["reward"], refresh=False)
                progress.add(1)
                if scored or request.made:
                    self._save(folder)
                if request.made:
                    raise Stopped(
                        request.signal,
                        f"episode {self.episodes.done} of {total} was saved as a checkpoint; run the same command again to continue",
                    )

    def _log_score(self, student: Classifier) -> float:
        score = self._selection_score(student)
        self.episodes.tracks.log({f"eval_{self.inputs.target.name}_score": score}, self.episodes.done)
        self.context.say(f"episode {self.episodes.done}: {self.context.rows.split} {score:.4f}")
        return score

    def _selection_score(self, student: Classifier) -> float:
        logits = own_logits(student, self.selection, **self.context.settings(self.tokenizer))
        data, rows = self.context.data, self.inputs.selection
        return by_domain(data.suite, rows, predicted_labels(logits, rows, data))[self.inputs.target.name].value

    def _save(self, folder: Path) -> None:
        """Write a checkpoint atomically: to a temporary folder that is renamed."""
        place = folder / f"episode-{self.episodes.done:06d}"
        if place.exists() and is_whole(place):
            return
        shutil.rmtree(place, ignore_errors=True)
        with naming(folder), working_folder(place) as partial:
            save_state(partial / "state", self.episodes.state())
            sync(partial)
            seal(partial)
            partial.rename(place)
        for old in sorted(folder.glob("episode-*"))[:-KEPT]:
            shutil.rmtree(old)

    def _resume(self, folder: Path) -> None:
        checkpoints = [place for place in sorted(folder.glob("episode-*")) if is_whole(place)]
        if not checkpoints:
            return
        logger.warning("continuing from %s", checkpoints[-1])
        self.episodes.load_state(load_state(checkpoints[-1] / "state"))

    def _publish(self) -> None:
        episodes, best = self.episodes, self.episodes.best_episode
        record = {
            "method": "curriculum", "domain": self.inputs.target.name, "head_trained": True, "seed": self.args.seed,
            "selected_on": self.context.rows.split, "best_episode": best, "dev": {"score": episodes.scores[best]},
            "scores_by_episode": episodes.scores, "domains": [quiz.name for quiz in episodes.curriculum.quizzes],
        }  # fmt: skip
        self.context.say(f"best after {best} of {episodes.done} episodes: {episodes.scores[best]:.4f}")
        self.context.publish_as_is(self.stage, self._write, record)

    def _write(self, folder: Path) -> None:
        curriculum = self.episodes.curriculum
        student = curriculum.student.classifier
        with whole_vocabulary(student.model):
            save_checkpoint(folder / "last", student.model, self.tokenizer)
        student.load_state_dict(self.episodes.best)
        rest = {name: value for name, value in weights(student).items() if not name.startswith("model.")}
        if curriculum.policy:
            rest |= {f"policy.{name}": value for name, value in curriculum.policy.state_dict().items()}
        with whole_vocabulary(student.model):
            save_checkpoint(folder, student.model, self.tokenizer, rest or None)
        names = [quiz.name for quiz in curriculum.quizzes]
        write_record(folder, curriculum.record.episodes, curriculum.record.steps, names)
