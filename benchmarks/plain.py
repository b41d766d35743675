"""What the released implementations do, in a straightforward loop: the yardstick of `bench_stages.py`.

Every text is padded to the full length and tokenised each time it is asked for; models compute in float32 with eager
attention and return all attention maps and hidden states; the teacher runs again at every step; the optimizer is not
fused. It learns the same losses as stages 3 to 5 do on the same rows, batch size and number of epochs.
"""

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModelForSequenceClassification

LENGTH = 128


class Texts(Dataset):
    """Rows that are tokenised, and padded to the full length, whenever one is asked for."""

    def __init__(self, rows, labels: dict[str, int], tokenizer):
        self.rows, self.labels, self.tokenizer = rows, labels, tokenizer

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.rows[index]
        item = self.tokenizer(
            row.text_a,
            row.text_b or None,
            truncation=True,
            max_length=LENGTH,
            padding="max_length",
            return_tensors="pt",
        )
        item = {name: values[0] for name, values in item.items()}
        return item | {"label": torch.tensor(self.labels[row.label]), "weight": torch.tensor(row.weight)}


def load(folder, layers: int | None = None):
    """A classifier with eager attention, all its layers or the first few."""
    options = {"num_hidden_layers": layers} if layers else {}
    return AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager", **options)


def loop(model, rows, labels, tokenizer, epochs: int, batch_size: int, rate: float, step) -> None:
    """Train ``model``; ``step(inputs, batch)`` gives the loss."""
    batches = DataLoader(Texts(rows, labels, tokenizer), batch_size, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, foreach=False, fused=False)
    model.train()
    for _ in range(epochs):
        for batch in batches:
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
            loss = step(inputs, batch)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            loss.item()


def train_teacher(model, rows, labels, tokenizer, epochs: int, batch_size: int) -> None:
    """Stage 3 without the domain loss: cross-entropy weighted by prototype score."""

    def step(inputs, batch):
        logits = model(**inputs, output_hidden_states=True, output_attentions=True).logits
        return (batch["weight"] * F.cross_entropy(logits, batch["label"], reduction="none")).mean()

    loop(model, rows, labels, tokenizer, epochs, batch_size, 2e-5, step)


def distil(student, teacher, rows, labels, tokenizer, epochs: int, batch_size: int) -> None:
    """Stages 4 and 5, ``epochs`` each."""
    teacher.eval()
    depth = teacher.config.num_hidden_layers // student.config.num_hidden_layers
    widths = student.config.hidden_size, teacher.config.hidden_size
    projection = torch.nn.Linear(*widths, bias=False) if widths[0] != widths[1] else torch.nn.Identity()

    def inner(inputs, batch):
        told, seen = both(student, teacher, inputs)
        loss = F.mse_loss(projection(seen.hidden_states[0]), told.hidden_states[0])
        for i, attention in enumerate(seen.attentions):
            layer = (i + 1) * depth
            loss = loss + F.mse_loss(projection(seen.hidden_states[i + 1]), told.hidden_states[layer])
            maps = told.attentions[layer - 1]
            if maps.shape[1] != attention.shape[1]:
                maps, attention = maps.mean(1), attention.mean(1)
            loss = loss + F.mse_loss(attention, maps)
        return loss

    def predictions(inputs, batch):
        told, seen = both(student, teacher, inputs)
        return -(told.logits.softmax(-1) * seen.logits.log_softmax(-1)).sum(-1).mean()

    loop(student, rows, labels, tokenizer, epochs, batch_size, 5e-5, inner)
    loop(student, rows, labels, tokenizer, epochs, batch_size, 3e-5, predictions)


def both(student, teacher, inputs):
    with torch.no_grad():
        told = teacher(**inputs, output_hidden_states=True, output_attentions=True)
    return told, student(**inputs, output_hidden_states=True, output_attentions=True)
