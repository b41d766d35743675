"""What the history of MPDistil's phases tells, from the records of what trained."""

from teachback.methods.episodes import Episodes

SPEED = ("runtime", "samples_per_second", "steps_per_second")  # what a Trainer reports beside metrics


def epochs_history(log: list[dict]) -> dict:
    """Phases 1 and 2, of a Trainer's log: losses and their terms by epoch, val metrics, the epoch that was kept."""
    trained = [entry for entry in log if "loss" in entry]
    scored = [_of_evaluation(entry) for entry in log if "eval_score" in entry]
    terms = sorted({name for entry in trained for name in entry if name.startswith("loss_")})
    best = max(range(len(scored)), key=lambda epoch: (scored[epoch]["score"], -epoch))
    return {
        "train_losses": [entry["loss"] for entry in trained],
        "loss_terms": {name.removeprefix("loss_"): [entry[name] for entry in trained] for name in terms},
        "val_metrics": scored,
        "best_epoch": best + 1,
    }


def _of_evaluation(entry: dict) -> dict[str, float]:
    values = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
    return {name: value for name, value in values.items() if name not in SPEED}


def episodes_history(episodes: Episodes, metrics: list[dict]) -> dict:
    """Phase 4: by episode losses, rewards and the tasks that were picked; val metrics after ``episodes`` of them."""
    record = episodes.curriculum.record
    tasks: list[list[str]] = [[] for _ in record.episodes]
    for step in record.steps:
        tasks[step["episode"]].append(step["domain"])
    columns = {
        "student_loss": "train_losses",
        "reward": "rewards",
        "policy_loss": "policy_losses",
        "entropy": "entropies",
        "probabilities": "probabilities",
    }
    found = {name: [episode[column] for episode in record.episodes] for column, name in columns.items()}
    scored = {"episodes": list(episodes.scores), "val_metrics": metrics, "best_episode": episodes.best_episode}
    return found | {"tasks": tasks} | scored
