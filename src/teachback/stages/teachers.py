"""Finished teachers of a run, and the on-disk cache of their outputs."""

from pathlib import Path
from typing import TYPE_CHECKING

from teachback.core.disk_cache import DiskCache
from teachback.core.errors import TeachbackError
from teachback.core.published import hash_model, read_stage
from teachback.core.runs import StageRun
from teachback.data.encoding import EncodedRows
from teachback.data.names import folder_name
from teachback.data.schema import Row
from teachback.methods.teacher import Teacher, load_teacher
from teachback.methods.teacher_outputs import Features, features, features_size, load_features, save_features
from teachback.methods.teacher_states import FrozenTeacher, attach_states, name_of, refusal
from teachback.models.loading import load_tokenizer

if TYPE_CHECKING:
    from teachback.stages.context import Context


class Teachers:
    """Finds and loads the finished teachers of a run, and computes or loads their outputs."""

    def __init__(self, context: "Context", root: Path):
        self.context, self.root = context, root

    def folder(self, kind: str, domain: str) -> Path:
        return self.root / (f"teacher-single-{folder_name(domain)}" if kind == "single" else f"teacher-{kind}")

    def finished(self, kind: str, domain: str) -> Path:
        """Folder of the finished teacher of a kind, for ``single`` the one of ``domain``.

        Raises:
            TeachbackError: it is missing, or is the single teacher of the held-out domain.
        """
        hold_out = self.context.args.hold_out
        if kind == "single" and domain == hold_out:
            raise TeachbackError(f"HOLD_OUT={hold_out}: the single teacher of this domain was trained on it; set TEACHER_DOMAIN to another domain")
        folder = self.folder(kind, domain)
        without = f"HOLD_OUT={hold_out} " if hold_out and kind != "single" else ""
        variables = f"{without}TEACHER={kind}{f' DOMAIN={domain}' if kind == 'single' else ''}"
        self.context.require(folder, variables, "3_train_teacher.sh", self.root.name.removeprefix("seed"))
        return folder

    def read(self, kind: str, domain: str, taught: str = "") -> Teacher:
        """Load a finished teacher in eval mode.

        ``taught``: the domain of a single teacher, if it differs from ``domain``.

        Raises:
            TeachbackError: the teacher is missing, does not serve ``domain``, or was trained on the held-out domain.
        """
        folder, hold_out = self.finished(kind, taught or domain), self.context.args.hold_out if kind != "single" else ""
        teacher = load_teacher(folder, read_stage(folder), self.context.data.suite)
        teacher.folder, teacher.hash = folder, hash_model(str(folder))
        known = [d.name for d in teacher.domains]
        if hold_out in known:
            raise TeachbackError(
                f"{folder} was trained on {hold_out}, which HOLD_OUT={hold_out} excludes; first run, with another OUTPUT_DIR: "
                f"HOLD_OUT={hold_out} TEACHER={kind} bash 3_train_teacher.sh"
            )
        if domain not in known and (taught or domain == hold_out):
            teacher.add_unseen(self.context.data.suite.domain(domain))
            known.append(domain)
        if domain not in known:
            raise TeachbackError(
                f"{folder} was trained on {', '.join(known)}, not on {domain}; train a teacher with DOMAINS that include it"
            )
        return teacher

    @property
    def cache(self) -> DiskCache:
        """On-disk cache of teacher outputs, shared by the suite's stages and seeds, and by runs that share teachers."""
        return DiskCache(self.root.parent / "teacher_states", self.context.args.teacher_cache_gb)

    def features(self, teacher: Teacher, rows: list[Row], layers: tuple[int, ...] = (), means: bool = False) -> Features:
        """Teacher's pooled states, [CLS] states of ``layers`` and optionally means, in its own encoding of the rows.

        They are cached on disk if they fit.
        """
        tokenizer = load_tokenizer(str(teacher.folder))
        encoded, cache = self.context.encode(rows, sorted({row.domain for row in rows}), tokenizer), self.cache
        if len(set(encoded.sequences)) > 1:
            raise TeachbackError(
                "questions with choices are mixed with other rows, but a teacher with another tokenizer than the student's needs "
                "rows of one kind; set TRANSFER_SET=domain"
            )

        def compute() -> Features:
            return features(teacher.classifier, encoded, layers=layers, means=means, **self.context.settings(tokenizer))

        size = features_size(teacher, encoded, layers, means)
        if cache.refusal(size):
            return compute()
        key = self._features_key(teacher, layers, encoded, means)
        with self.context.training.main_process_first(desc="asking the teacher"):
            return cache.get(key, size, lambda place: save_features(place, compute()), load_features)

    def _features_key(self, teacher: Teacher, layers: tuple[int, ...], encoded: EncodedRows, means: bool = False) -> str:
        kind = "means" if means else "features"
        return f"{kind}-{name_of(teacher.hash, self.context.args.precision, layers, '', encoded)}"

    def write_states(self, run: StageRun, teacher: FrozenTeacher, tokenizer, *parts: EncodedRows) -> bool:
        """Add the teacher's cached states to the encoded rows, train rows first, if they fit; returns whether they do.

        Cached states are in half precision, which changes the student slightly. A resumed run therefore repeats its
        first decision, even if the free disk space has changed.
        """
        cache = self.cache

        def decide() -> str:
            return refusal(parts, teacher, cache)

        with self.context.training.main_process_first(desc="writing the teacher's states"):
            free_disk_decides = cache.limit is None
            if reason := run.remembered("why the teacher's states are not kept", decide) if free_disk_decides else decide():
                self.context.say(f"the teacher runs at each step, as its states are not cached on disk: {reason}")
                return False
            for part in parts:
                attach_states(part, teacher, cache, self.context.settings(tokenizer), teacher.teacher.hash)
            self._keep_pooled(parts[0], teacher.teacher)
        self.context.say(f"the teacher has run once; its states are in {cache.folder}")
        return True

    def _keep_pooled(self, encoded: EncodedRows, teacher: Teacher) -> None:
        """Cache the pooled states as the features that stage 5 needs, if they fit."""
        width = teacher.classifier.model.config.hidden_size
        pooled = Features(encoded.columns["teacher_means"][..., :width].contiguous())
        size = features_size(teacher, encoded, (), means=False)
        if not self.cache.refusal(size):
            key = self._features_key(teacher, (), encoded)
            self.cache.keep(key, size, lambda place: save_features(place, pooled))
