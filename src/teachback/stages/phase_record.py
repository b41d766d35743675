"""Results of MPDistil's phases: the history, and models with their cards."""

from pathlib import Path

from teachback.data.schema import Domain
from teachback.inference.model_card import loader_card, loader_record, write_text
from teachback.methods.episodes import Episodes
from teachback.models.loading import write_checkpoint
from teachback.stages.phase_inputs import STUDENT, TEACHER, Task

LIBRARY_NAMES = {"train_losses": "train_loss", "tasks": "trajectories"}  # names of keys in MPDistil's library
SPEED = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")  # reported by a Trainer beside metrics


def epochs_history(log: list[dict]) -> dict:
    """History of phase 1 or 2 from a Trainer's log: losses and their terms by epoch, val metrics, the best epoch."""
    trained = [entry for entry in log if "loss" in entry]
    scored = [
        {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_") and name not in SPEED}
        for entry in log if "eval_score" in entry
    ]  # fmt: skip
    terms = sorted({name for entry in trained for name in entry if name.startswith("loss_")})
    best = max(range(len(scored)), key=lambda epoch: (scored[epoch]["score"], -epoch))
    return {
        "train_losses": [entry["loss"] for entry in trained],
        "loss_terms": {name.removeprefix("loss_"): [entry[name] for entry in trained] for name in terms},
        "val_metrics": scored,
        "best_epoch": best + 1,
    }


def episodes_history(episodes: Episodes, metrics: list[dict]) -> dict:
    """History of phase 4: losses, rewards and chosen tasks by episode; val metrics after each of ``episodes``."""
    record = episodes.curriculum.record
    tasks: list[list[str]] = [[] for _ in record.episodes]
    for step in record.steps:
        tasks[step["episode"]].append(step["domain"])
    columns = {"student_loss": "train_losses", "reward": "rewards", "policy_loss": "policy_losses", "entropy": "entropies",
               "probabilities": "probabilities"}  # fmt: skip
    by_episode = {name: [episode[column] for episode in record.episodes] for column, name in columns.items()}
    scored = {"episodes": list(episodes.scores), "val_metrics": metrics, "best_episode": episodes.best_episode}
    return by_episode | {"tasks": tasks} | scored


class PhaseRecord:
    """History of a training, and the folders of its models. ``counted``: the task's domain with row counts."""

    def __init__(self, task: Task, settings: dict, counted: Domain):
        self.task, self.settings, self.counted = task, settings, counted
        self.history: dict = {}
        self.folders: tuple[Path, Path] = (task.output_dir / "teacher", task.output_dir / "student")

    def note(self, phase: str, results: dict) -> None:
        """Add a phase to the history, with the names of MPDistil's library as aliases, and print its best model's scores."""
        self.history[phase] = results | {name: results[ours] for ours, name in LIBRARY_NAMES.items() if ours in results}
        values = [f"{name} {value:.4f}" for name, value in self._best(phase).items() if name not in ("score", "loss")]
        print(f"{phase}: val {', '.join(values)}")

    def _best(self, phase: str) -> dict[str, float]:
        """Val metrics of a phase's best model."""
        return max(self.history[phase]["val_metrics"], key=lambda metrics: metrics["score"])

    def write(self, which: int, model, stage: str, phase: str) -> None:
        """Write the checkpoint and model card of the teacher or the student."""
        task = self.task
        write_checkpoint(self.folders[which], model, task.tokenizers[which])
        cut = which == STUDENT and task.student_init == "teacher"
        settings = {
            "teacher_model": task.models[TEACHER], "student_model": task.models[STUDENT],
            "student_layers": task.student_layers, "student_init": task.student_init, **task.texts, **self.settings,
        }  # fmt: skip
        origin = task.models[TEACHER if cut else which]
        self._written = loader_record(stage, self.counted, origin, settings, self._best(phase))
        write_text(self.folders[which], loader_card(self._written, self.counted))

    def write_student_card(self, tested: dict) -> None:
        """Rewrite the student's card with its test result: ``score`` and number of ``rows``."""
        write_text(self.folders[STUDENT], loader_card(self._written, self.counted, tested))
