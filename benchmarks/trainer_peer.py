"""Training as a user of Hugging Face's Trainer writes it in place of stages 3 to 5: `peers.py` runs it as a process of its own.

bfloat16, batches padded to their longest row, an evaluation and a checkpoint an epoch, the best one kept; a student's
teacher answers at each step, inside ``compute_loss``, and attention maps come from eager attention.
"""

import argparse
import csv
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)


def read(path: Path, domain: str, tokenizer, labels: list[str], limit: int) -> list[dict]:
    """Tokenised rows of a domain from a stage's TSV, at most ``limit``."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if row["domain"] == domain]
    texts = tokenizer([row["text_a"] for row in rows[:limit]], truncation=True, max_length=128)
    return [{name: texts[name][i] for name in texts} | {"labels": labels.index(row["label"])} for i, row in enumerate(rows[:limit])]


def accuracy(prediction) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


class Distiller(Trainer):
    """Trainer whose loss compares the student with a teacher: on inner layers, or on predictions."""

    def __init__(self, *, teacher, inner: bool, **further):
        super().__init__(**further)
        self.teacher, self.inner = teacher.eval(), inner

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs = {name: value for name, value in inputs.items() if name != "labels"}
        options = {"output_hidden_states": True, "output_attentions": True} if self.inner else {}
        with torch.no_grad():
            target = self.teacher(**inputs, **options)
        output = model(**inputs, **options)
        loss = inner_loss(output, target) if self.inner else F.cross_entropy(output.logits, target.logits.softmax(-1))
        return (loss, {"logits": output.logits}) if return_outputs else loss


def inner_loss(output, target) -> torch.Tensor:
    """Mean squared differences of embeddings, hidden states and attention maps, teacher layers at equal distances."""
    apart = (len(target.hidden_states) - 1) // (len(output.hidden_states) - 1)
    states = zip(output.hidden_states, target.hidden_states[::apart])
    maps = zip(output.attentions, target.attentions[apart - 1 :: apart])
    return sum((F.mse_loss(ours, theirs) for ours, theirs in (*states, *maps)), torch.zeros(()))


def arguments_of(given: argparse.Namespace, folder: Path, rate: float, scored: bool) -> TrainingArguments:
    """Trainer arguments; ``scored``: the best epoch is that of the best accuracy, else of the lowest loss."""
    return TrainingArguments(
        output_dir=str(folder), learning_rate=rate, num_train_epochs=given.epochs, per_device_train_batch_size=given.batch_size,
        per_device_eval_batch_size=64, warmup_steps=0.1, weight_decay=0.01, seed=given.seed, bf16=given.bf16, report_to="none",
        use_cpu=not torch.cuda.is_available(), eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True,
        metric_for_best_model="accuracy" if scored else "loss", save_total_limit=2, disable_tqdm=True,
    )  # fmt: skip


def train(trainer: type[Trainer], model, args: TrainingArguments, data: dict, tokenizer, **further):
    scored = accuracy if args.metric_for_best_model == "accuracy" else None
    made = trainer(model=model, args=args, train_dataset=data["train"], eval_dataset=data["dev"],
                   data_collator=DataCollatorWithPadding(tokenizer), compute_metrics=scored, **further)  # fmt: skip
    made.train()
    return made.model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="encoder to fine-tune, or the teacher of a student")
    parser.add_argument("--data", type=Path, required=True, help="folder of a processed suite")
    parser.add_argument("--domain", required=True)
    parser.add_argument("--labels", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--student_layers", type=int, default=0, help="0: fine-tune; else a student of so many layers")
    parser.add_argument("--epochs", type=int, default=1, help="of a student: of either loss")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rows", type=int, default=1631)
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-5])
    parser.add_argument("--bf16", type=int, default=1)
    parser.add_argument("--seed", type=int, default=42)
    given = parser.parse_args()
    set_seed(given.seed)
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    data = {split: read(given.data / f"{split}.tsv", given.domain, tokenizer, given.labels, given.rows) for split in ("train", "dev")}
    load = AutoModelForSequenceClassification.from_pretrained
    if not given.student_layers:
        model = load(given.model, num_labels=len(given.labels))
        model = train(Trainer, model, arguments_of(given, given.out / "work", given.rates[0], True), data, tokenizer)
    else:
        teacher = load(given.model, attn_implementation="eager")
        model = load(given.model, attn_implementation="eager", num_hidden_layers=given.student_layers)
        for inner, rate in zip((True, False), given.rates):
            args = arguments_of(given, given.out / f"work-{inner}", rate, not inner)
            model = train(Distiller, model, args, data, tokenizer, teacher=teacher, inner=inner)
    model.save_pretrained(given.out)
    tokenizer.save_pretrained(given.out)


if __name__ == "__main__":
    main()
