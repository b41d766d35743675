"""Benchmarked parts: stages as run by users, and the same work in `plain`'s loops, on the same data and models."""

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import plain
import torch
from transformers import AutoModel, BertConfig

from teachback.core.arguments import CURRICULUM_STAGE, STUDENT_STAGES, TEACHER_STAGE
from teachback.core.files import write_atomically
from teachback.core.parsing import parse
from teachback.data.download import get_data
from teachback.data.schema import TRAIN_COLUMNS, Row, read_rows, read_suite, write_rows, write_suite
from teachback.data.suites import definition
from teachback.models.loading import SCRATCH_SIZES, load_encoder, load_tokenizer
from teachback.stages.distillation import distil
from teachback.stages.stage2_arguments import ProcessArguments
from teachback.stages.stage2_data import process
from teachback.stages.stage3_teacher import train_teachers
from teachback.stages.stage6_curriculum import run_curriculum

SMALL_LAYERS, SMALL_WIDTH = SCRATCH_SIZES["scratch:tiny"]
# As in configs/amazon_minilm.sh.
TEACHER_RATE, FIRST_RATE, SECOND_RATE = "5e-5", "1e-4", "5e-5"


@dataclass(frozen=True)
class Part:
    """One comparison. ``prepare`` creates its inputs before timing; ``forget`` removes the output of ``ours``."""

    name: str
    title: str
    ours: Callable[[], object]
    plain: Callable[[], object]
    prepare: Callable[[], object]
    forget: Callable[[], object]


class Ground:
    """A processed suite, an encoder for the teacher, and methods that run stages on one of the domains."""

    def __init__(self, arguments: argparse.Namespace, name: str, suite: str, domains: str, target: str, quiz: float):
        self.arguments, self.suite, self.target = arguments, suite, target
        self.folder = Path(arguments.folder) / name
        made = self.folder / "made.json"  # settings that the data was made with
        settings = json.dumps([suite, domains, quiz, arguments.source, arguments.rows])
        if not made.is_file() or made.read_text() != settings:
            self._make_data(domains, quiz)
            write_atomically(made, settings)

    def _make_data(self, domains: str, quiz: float) -> None:
        """Run stages 1 and 2, then reduce the train rows."""
        suite, data = self.suite, self.folder / "data"
        get_data(definition(suite), data, "" if suite == "sample" else self.arguments.source, domains=domains)
        process(
            ProcessArguments(
                suite=suite, domains=domains, data_dir=str(data), embedding_model="scratch:tiny", quiz_fraction=quiz
            )
        )
        kept = {name: self.rows("train", name)[: self.arguments.rows] for name in self.domains}
        write_rows(data / suite / "train.tsv", [row for rows in kept.values() for row in rows], TRAIN_COLUMNS)
        shorter = {name: replace(one, rows=one.rows | {"train": len(kept[name])}) for name, one in self.domains.items()}
        write_suite(data / suite, replace(read_suite(data / suite), domains=shorter))
        (data / suite / "stage.json").unlink()  # its description does not match the reduced files

    @cached_property
    def domains(self) -> dict:
        return read_suite(self.folder / "data" / self.suite).domains

    def rows(self, split: str, domain: str) -> list[Row]:
        return [row for row in read_rows(self.folder / "data" / self.suite / f"{split}.tsv") if row.domain == domain]

    def labels(self, domain: str) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.domains[domain].labels)}

    @cached_property
    def teacher_model(self) -> str:
        """Encoder to train the teacher from; one with random weights is saved to a folder first."""
        name = self.arguments.teacher_model
        if name not in SCRATCH_SIZES:
            return name
        folder = self.folder / "encoder"
        rows = [row for domain in self.domains for row in self.rows("train", domain)]
        for part in load_encoder(name, [text for row in rows for text in (row.text_a, row.text_b) if text]):
            part.save_pretrained(folder)
        return str(folder)

    @cached_property
    def small_student(self) -> str:
        """BERT with two layers, width 128, random weights and the teacher's vocabulary."""
        folder = self.folder / "small_student"
        tokenizer = load_tokenizer(self.teacher_model)
        config = BertConfig(
            vocab_size=len(tokenizer), hidden_size=SMALL_WIDTH, num_hidden_layers=SMALL_LAYERS,
            num_attention_heads=SMALL_WIDTH // 64, intermediate_size=4 * SMALL_WIDTH, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    def seed_folder(self, seed: int = 42) -> Path:
        return self.folder / "outputs" / self.suite / f"seed{seed}"

    def teacher_folder(self, seed: int = 42) -> Path:
        return self.seed_folder(seed) / f"teacher-single-{self.target}"

    def places(self) -> list[str]:
        names = {"suite": self.suite, "domain": self.target, "data_dir": self.folder / "data"}
        names |= {"output_root": self.folder / "outputs", "teacher": "single"}
        return [word for name, value in names.items() for word in (f"--{name}", str(value))]

    def training(self, epochs: int, batch_size: int) -> list[str]:
        return [
            "--num_train_epochs", str(epochs), "--per_device_train_batch_size", str(batch_size), "--trainer", "eval_strategy=no",
            "save_strategy=no", "load_best_model_at_end=0",
        ]  # fmt: skip

    def teach(self, training: list[str], *further: str) -> None:
        """Run stage 3."""
        argv = [*self.places(), "--teacher_model", self.teacher_model, "--learning_rate", TEACHER_RATE, *training]
        train_teachers(*parse(*TEACHER_STAGE, argv=[*argv, *further]))

    def distil(self, stage: str, training: list[str], *further: str) -> None:
        """Run stage 4 (``first``) or 5 (``second``)."""
        rate = FIRST_RATE if stage == "first" else SECOND_RATE
        argv = [*self.places(), "--stage", stage, "--learning_rate", rate, *training, *further]
        distil(*parse(*STUDENT_STAGES, argv=argv))

    def rehearse(self, *further: str) -> None:
        """Run stage 6."""
        run_curriculum(*parse(*CURRICULUM_STAGE, argv=[*self.places(), *further]))

    def forget(self, *names: str) -> None:
        """Remove outputs of stages, so that they run again."""
        for name in names:
            for path in (self.folder / "outputs" / self.suite).glob(name):
                shutil.rmtree(path)


class Reviews(Ground):
    """Stages 3 to 5 on one domain: Amazon's books if the archive is available, else the generated suite's."""

    def __init__(self, arguments: argparse.Namespace):
        suite = "amazon" if arguments.source else "sample"
        super().__init__(arguments, "reviews", suite, "books dvd", "books", quiz=0.0)

    @property
    def books(self) -> list[Row]:
        return self.rows("train", "books")

    def loop(self) -> tuple[int, int]:
        return self.arguments.epochs, self.arguments.batch_size

    def parts(self) -> list[Part]:
        layers = str(self.arguments.student_layers)
        cut = ["--student_init", "teacher", "--student_layers", layers]
        return [
            Part("3", "stage 3", self.teacher, self.plain_teacher, lambda: None, self.forget_teacher),
            self.student_part("45", f"stages 4 and 5, {layers} layers", lambda: cut, lambda: (self.teacher_folder(), layers)),
            self.student_part(
                "45small", f"stages 4 and 5, {SMALL_LAYERS} layers of {SMALL_WIDTH}",
                lambda: ["--student_model", self.small_student], lambda: (self.small_student, None),
            ),
        ]  # fmt: skip

    def student_part(self, name: str, title: str, flags: Callable, student: Callable) -> Part:
        return Part(
            name, title, lambda: self.students(*flags()), lambda: self.plain_students(*student()),
            lambda: self.make_ready(flags), self.forget_students,
        )  # fmt: skip

    def make_ready(self, flags: Callable) -> None:
        """Create a student's inputs: its teacher, and the model named by its flags."""
        self.teacher()
        flags()

    def teacher(self, *further: str) -> None:
        self.teach(self.training(*self.loop()), *further)

    def forget_teacher(self) -> None:
        self.forget("seed*/teacher-*")

    def plain_teacher(self) -> None:
        tokenizer = load_tokenizer(self.teacher_model)
        model = plain.load(self.teacher_model)
        plain.train_teacher(model, self.books, self.labels("books"), tokenizer, *self.loop(), float(TEACHER_RATE))

    def students(self, *further: str) -> None:
        for stage in ("first", "second"):
            self.distil(stage, self.training(*self.loop()), "--tkd_weight", "0", *further)

    def forget_students(self) -> None:
        self.forget("teacher_states", "seed*/books")

    def plain_students(self, student, layers: str | None, seed: int = 42):
        """Distil the model in the folder ``student``, cut to its first ``layers``, with `plain`; returns the model."""
        folder = self.teacher_folder(seed)
        model = plain.load(student, int(layers) if layers else None)
        plain.distil(
            model, plain.load(folder), self.books, self.labels("books"), load_tokenizer(str(folder)), *self.loop(),
            float(FIRST_RATE), float(SECOND_RATE),
        )  # fmt: skip
        return model


class Quizzes(Ground):
    """Stage 6: CB, with COPA and RTE to choose from, if SuperGLUE's archives are available, else generated reviews."""

    LEVEL = ("--advantage", "level", "--reward_rows", "all")

    def __init__(self, arguments: argparse.Namespace):
        real = bool(arguments.source)
        place = ("superglue", "CB COPA RTE", "CB") if real else ("sample", "books dvd", "books")
        super().__init__(arguments, "quizzes", *place, quiz=0.1)

    def parts(self) -> list[Part]:
        episodes = f"stage 6, {self.arguments.episodes} episodes"
        return [
            Part("6", episodes, self.ours, self.plain, self.prepare, self.forget_curriculum),
            Part(
                "6level", f"{episodes}, rewards as in plain", lambda: self.ours(*self.LEVEL), self.plain, self.prepare,
                self.forget_curriculum,
            ),
        ]  # fmt: skip

    def prepare(self) -> None:
        """Train teacher and student for one epoch, without PKD: stage 6's time does not depend on their quality."""
        training = self.training(1, 8)
        self.teach(training)
        student = ["--student_model", self.teacher_model, "--student_layers", str(self.arguments.student_layers)]
        self.distil("first", training, *student, "--first", "none")
        self.distil("second", training, *student, "--method", "mpdistil", "--beta_pkd", "0")

    def ours(self, *further: str) -> None:
        self.rehearse("--episodes", str(self.arguments.episodes), *further)

    def forget_curriculum(self) -> None:
        self.forget(*(f"seed*/{self.target}/{name}" for name in ("meta_teacher", "curriculum")))

    def plain(self) -> None:
        folder = self.teacher_folder()
        plain.curriculum(
            plain.load(self.seed_folder() / self.target / "student_second"), plain.load(folder),
            {name: self.rows("quiz", name) for name in self.domains},
            {name: self.labels(name) for name in self.domains},
            self.target, self.rows("dev", self.target), load_tokenizer(str(folder)), self.arguments.episodes,
        )  # fmt: skip
