"""Recipes of the published tables: stages, variables and teacher of each row.

A row's *cells* are its runs of stages, one per seed and (except for teachers of all domains) per domain. Other variables
come from the config file and the environment. Published rows are named as in published.toml.
"""

from dataclasses import dataclass, field, replace

from teachback.core.errors import TeachbackError

SCRIPTS = {
    "1": "1_get_data.sh", "2": "2_process_data.sh", "3": "3_train_teacher.sh", "4": "4_student_first.sh",
    "5": "5_student_second.sh", "6": "6_curriculum.sh", "7": "7_eval.sh",
}  # fmt: skip


@dataclass(frozen=True)
class TableRow:
    """A row of a table. ``checkpoint``: the scored folder relative to the seed's, as a template with ``{domain}``."""

    name: str
    title: str
    stages: str  # stage numbers, in order
    checkpoint: str
    variables: dict[str, str] = field(default_factory=dict)
    teacher: str = ""  # row of its teacher
    student: str = ""  # row of the student that it continues from
    cells_of: str = ""  # row whose cells also make its checkpoint
    compared_with: str = ""  # reference row of the paired test
    by_domain: bool = True
    taught_by_other: bool = False  # whether the teacher is another domain's single teacher
    extra: bool = False  # whether it is made only on request

    @property
    def builds_on(self) -> list[str]:
        """Rows that this row's cells depend on."""
        return [name for name in (self.cells_of, self.teacher, self.student) if name]

    @property
    def is_undistilled(self) -> bool:
        return self.variables.get("METHOD") == "finetune"

    @property
    def is_student(self) -> bool:
        return "teacher" not in self.checkpoint

    @property
    def scripts(self) -> tuple[str, ...]:
        return tuple(SCRIPTS[number] for number in self.stages)


@dataclass(frozen=True)
class Recipe:
    """Recipe for reproducing a published table."""

    rows: dict[str, TableRow]
    quiz_fraction: str  # for stage 2, if there are no processed data
    undistilled_as_long: bool = False  # whether the undistilled student has the epochs of stages 4 and 5, or of 5 only
    # Rows for HOLD_OUT and TRAIN_FRACTION; the last one is the reference of the paired tests.
    held_out_rows: tuple[str, ...] = ()
    few_data_rows: tuple[str, ...] = ()

    def row(self, name: str) -> TableRow:
        if name not in self.rows:
            raise TeachbackError(f"ROWS={name}: this table has no such row; its rows are: {', '.join(self.rows)}")
        return self.rows[name]


def _teacher(name: str, title: str, kind: str, **variables: str) -> TableRow:
    single = kind == "single"
    checkpoint = "teacher-single-{domain}" if single else f"teacher-{kind}"
    against = "teacher-mtl" if name == "teacher-meta" else "teacher-meta"
    return TableRow(name, title, "37", checkpoint, {"TEACHER": kind, **variables}, compared_with=against, by_domain=single)


def _metakd(name: str, title: str, teacher: str, kind: str = "meta", **variables: str) -> TableRow:
    """Student of both Meta-KD stages, with all losses except those disabled by ``variables``."""
    every = {"METHOD": "metakd", "FIRST": "metakd", "USE_EXPERTISE_WEIGHTS": "1", "USE_SAMPLE_WEIGHTS": "1", "TEACHER": kind}
    against = "meta-tinybert" if name == "meta-distillation" else "meta-distillation"
    return TableRow(name, title, "457", "{domain}/student_second", every | variables, teacher, compared_with=against)


_UNDISTILLED = TableRow("undistilled", "Student, undistilled", "57", "{domain}/student_finetune", {"METHOD": "finetune"},
                        compared_with="meta-distillation")  # fmt: skip
# TinyBERT-KD: the same distiller without lambda (hence without prototype scores) and without L_TKD.
_TINYBERT = {"USE_EXPERTISE_WEIGHTS": "0", "TKD_WEIGHT": "0"}
# The losses and texts of configs/recommended.sh; models, epochs and learning rates are those of the table's other rows.
_RECOMMENDED = {
    "TRANSFER_SET": "all", "TRANSFER_WINDOWS": "2", "ATTENTION_TARGET": "relations", "LAYER_MAP": "-1", "LOSS_BALANCE": "initial",
    "EMBEDDING_WEIGHT": "0", "KEEP_START": "1",
}  # fmt: skip

METAKD = {row.name: row for row in (
    _teacher("teacher-single", "BERT-single (teacher)", "single"),
    _teacher("teacher-mix", "BERT-mix (teacher)", "mix"),
    _teacher("teacher-mtl", "BERT-mtl (teacher)", "mtl"),
    _teacher("teacher-meta", "Meta-teacher", "meta", USE_SAMPLE_WEIGHTS="1", USE_DOMAIN_LOSS="1"),
    _teacher("teacher-no-prototypes", "Meta-teacher without prototype weights", "meta", USE_SAMPLE_WEIGHTS="0", USE_DOMAIN_LOSS="1"),
    _teacher("teacher-no-domain-loss", "Meta-teacher without domain loss", "meta", USE_SAMPLE_WEIGHTS="1", USE_DOMAIN_LOSS="0"),
    # Not in the paper. It is trained for as many epochs as the distilled students in both stages.
    _UNDISTILLED,
    _metakd("single-tinybert", "single → TinyBERT-KD", "teacher-single", "single", **_TINYBERT),
    # For a domain that no teacher has seen.
    TableRow("other-tinybert", "another domain's single → TinyBERT-KD", "457", "{domain}/student_second",
             {"METHOD": "metakd", "FIRST": "metakd", "TEACHER": "single", **_TINYBERT}, "teacher-single",
             compared_with="meta-distillation", taught_by_other=True, extra=True),
    _metakd("mix-tinybert", "mix → TinyBERT-KD", "teacher-mix", "mix", **_TINYBERT),
    _metakd("mtl-tinybert", "mtl → TinyBERT-KD", "teacher-mtl", "mtl", **_TINYBERT),
    # Mean of the domain teachers' soft targets (You et al. 2017). Layers of separately fine-tuned encoders cannot be
    # averaged, so the first stage is that of single → TinyBERT-KD, and the rows differ in the soft targets only.
    TableRow("multi-mtn", "multi-teachers → MTN-KD", "57", "{domain}/student_second",
             {"METHOD": "metakd", "TEACHER": "multi", "USE_EXPERTISE_WEIGHTS": "0"}, "teacher-single", "single-tinybert",
             compared_with="meta-distillation"),
    _metakd("meta-tinybert", "Meta-teacher → TinyBERT-KD", "teacher-meta", **_TINYBERT),
    _metakd("meta-distillation", "Meta-teacher → Meta-distillation", "teacher-meta"),
    # Ablations, not in the paper.
    _metakd("no-lambda", "− expertise weights λ", "teacher-meta", USE_EXPERTISE_WEIGHTS="0"),
    # Neither the teacher's loss nor lambda uses prototype scores: t is 1 in both.
    _metakd("no-prototypes", "− prototype weights", "teacher-no-prototypes", USE_SAMPLE_WEIGHTS="0"),
    # Without it there is no transferable knowledge, hence no L_TKD.
    _metakd("no-domain-loss", "− domain loss (and L_TKD)", "teacher-no-domain-loss", TKD_WEIGHT="0"),
    _metakd("no-tkd", "− L_TKD", "teacher-meta", TKD_WEIGHT="0"),
    # Not in the paper.
    replace(_teacher("teacher-uniform", "Meta-teacher, uniform domain labels", "meta", DOMAIN_LABELS="uniform"), extra=True),
    replace(_metakd("recommended", "Meta-teacher, uniform → recommended", "teacher-uniform", **_RECOMMENDED), extra=True),
)}  # fmt: skip


def _mpdistil(name: str, title: str, compared_with: str = "kd", student: str = "", **variables: str) -> TableRow:
    """Student of stage 5 with MPDistil's loss, from a frozen teacher or a meta-teacher trained after each epoch.

    ``student``: row whose first stage is reused.
    """
    variables = {"METHOD": "mpdistil", "TEACHER": "single"} | variables
    stages, place = "57" if student else "457", "{domain}/student_second"
    return TableRow(name, title, stages, place, variables, "teacher", student, compared_with=compared_with)


def _curriculum(name: str, title: str, loss: str, reward: str, policy: str = "learned", against: str = "kd") -> TableRow:
    """Student of stage 6, which continues from the student distilled with the same meta-teacher loss."""
    variables = {"TEACHER": "single", "META_LOSS": loss, "REWARD": reward, "POLICY": policy}
    return TableRow(name, title, "67", "{domain}/curriculum", variables, "teacher", f"{loss}-no-curriculum", compared_with=against)


_LOSSES = ("collaborative", "competitive")  # of the meta-teacher
MPDISTIL = {row.name: row for row in (
    TableRow("teacher", "Teacher", "37", "teacher-single-{domain}", {"TEACHER": "single"}),
    # Made in stage 6 of the rows with the real-valued reward; a meta-teacher does not depend on the reward.
    *(TableRow(f"meta-teacher-{loss}", f"Meta-teacher, {loss}", "", "{domain}/meta_teacher", cells_of=f"{loss}-real",
               compared_with="teacher") for loss in _LOSSES),
    replace(_UNDISTILLED, compared_with="kd"),
    # MPDistil's loss (soft, hard and PKD terms) with a frozen teacher, so that "− curriculum" differs only in the
    # meta-teacher.
    _mpdistil("kd", "Student, KD", "undistilled", META_TEACHER_EVERY_EPOCH="0"),
    *(_curriculum(f"{loss}-{reward}", f"{loss} + {reward}", loss, reward) for loss in _LOSSES for reward in ("binary", "real")),
    *(_mpdistil(f"{loss}-no-curriculum", f"{loss} − curriculum", student="kd", META_TEACHER_EVERY_EPOCH="1", META_LOSS=loss)
      for loss in _LOSSES),
    # Not in the paper: baselines of the policy.
    _curriculum("uniform", "collaborative + real, uniform", "collaborative", "real", "uniform", "collaborative-real"),
    _curriculum("bandit", "collaborative + real, bandit", "collaborative", "real", "bandit", "collaborative-real"),
    _curriculum("target-only", "collaborative + real, target only", "collaborative", "real", "target_only", "collaborative-real"),
)}  # fmt: skip

# Domains without train rows -> the domain whose teacher and student predict them.
ANSWERED_BY = {"MNLI-mm": "MNLI"}

# The last one is the reference of the paired tests.
_HELD_OUT = ("teacher-meta", "undistilled", "meta-distillation", "other-tinybert")
_FEW_DATA = ("teacher-single", "teacher-meta", "undistilled", "meta-distillation", "recommended", "single-tinybert")

RECIPES = {
    # The paper trains on all train rows, and has no stage 6.
    "metakd_amazon": Recipe(METAKD, "0", True, _HELD_OUT, _FEW_DATA),
    "metakd_mnli": Recipe(METAKD, "0", True, _HELD_OUT, _FEW_DATA),
    "mpdistil_superglue": Recipe(MPDISTIL, quiz_fraction="0.1"),
    "mpdistil_glue": Recipe(MPDISTIL, quiz_fraction="0.1"),
}
