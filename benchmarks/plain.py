"""Straightforward loops like those of the released implementations: the baseline of `bench_stages.py`.

Texts are tokenised and padded to the full length at every access; models compute in float32 with eager attention and return
all attention maps and hidden states; the teacher runs at every step; the optimizer is not fused. Trains like stages 3 to 6,
with the same rows, batch sizes, learning rates and numbers of steps.
"""

import math
import random

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, default_collate
from transformers import AutoModelForSequenceClassification, get_linear_schedule_with_warmup

LENGTH = 128
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Texts(Dataset):
    """Dataset that tokenises rows and pads them to the full length at every access."""

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


def load(folder, layers: int | None = None, **options):
    """Load a classifier with eager attention on the default device, with all layers or only the first few."""
    options |= {"num_hidden_layers": layers} if layers else {}
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager", **options)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def run(model, batch: dict):
    """Run a model with all hidden states and attention maps as outputs."""
    inputs = {name: batch[name].to(model.device) for name in INPUTS if name in batch}
    return model(**inputs, output_hidden_states=True, output_attentions=True)


def loop(model, rows, labels, tokenizer, epochs: int, batch_size: int, rate: float, step, further=()) -> None:
    """Train ``model`` and ``further`` weights on the loss ``step(batch)``, with 10 % warm-up, then linear decay."""
    batches = DataLoader(Texts(rows, labels, tokenizer), batch_size, shuffle=True)
    weights = [*model.parameters(), *further]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.01, foreach=False, fused=False)
    total = epochs * len(batches)
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(total / 10), total)
    model.train()
    for _ in range(epochs):
        for batch in batches:
            loss = step(batch)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            loss.item()


def train_teacher(model, rows, labels, tokenizer, epochs: int, batch_size: int, rate: float = 5e-5) -> None:
    """Stage 3 on one domain: cross-entropy."""

    def step(batch):
        return F.cross_entropy(run(model, batch).logits, batch["label"].to(model.device))

    loop(model, rows, labels, tokenizer, epochs, batch_size, rate, step)


def distil(
    student, teacher, rows, labels, tokenizer, epochs: int, batch_size: int, first_rate=1e-4, second_rate=5e-5
) -> None:
    """Stages 4 and 5, ``epochs`` each."""
    teacher.eval()
    depths = student.config.num_hidden_layers, teacher.config.num_hidden_layers
    widths = student.config.hidden_size, teacher.config.hidden_size
    projection = nn.Linear(*widths, bias=False) if widths[0] != widths[1] else nn.Identity()
    projection.to(student.device)

    def inner(batch):
        target, output = both(student, teacher, batch)
        loss = difference(projection(output.hidden_states[0]), target.hidden_states[0])
        for i, attention in enumerate(output.attentions):
            layer = (i + 1) * depths[1] // depths[0]
            loss = loss + difference(projection(output.hidden_states[i + 1]), target.hidden_states[layer])
            maps = target.attentions[layer - 1]
            if maps.shape[1] != attention.shape[1]:
                maps, attention = maps.mean(1), attention.mean(1)
            loss = loss + difference(attention, maps)
        return (expertise(target.logits, batch) * loss).mean()

    def predictions(batch):
        target, output = both(student, teacher, batch)
        loss = -(target.logits.softmax(-1) * output.logits.log_softmax(-1)).sum(-1)
        return (expertise(target.logits, batch) * loss).mean()

    further = list(projection.parameters())
    loop(student, rows, labels, tokenizer, epochs, batch_size, first_rate, inner, further)
    loop(student, rows, labels, tokenizer, epochs, batch_size, second_rate, predictions)


def both(student, teacher, batch):
    with torch.no_grad():
        target = run(teacher, batch)
    return target, run(student, batch)


def difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of each row, padding included: [B, ...], [B, ...] -> [B]."""
    return (a - b).square().flatten(1).mean(1)


def expertise(logits: torch.Tensor, batch) -> torch.Tensor:
    """Meta-KD's weight lambda of each row [B]."""
    error = 1 - certainty(logits, batch["label"].to(logits.device))
    return (1 + batch["weight"].to(logits.device)) / (error.square().exp() + 1)


def certainty(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Probability of each row's label [B]."""
    return logits.softmax(-1).gather(1, labels.to(logits.device)[:, None])[:, 0]


@torch.no_grad()
def accuracy(model, rows, labels, tokenizer, batch_size: int = 8) -> float:
    """Accuracy of a classifier."""
    model.eval()
    right = 0
    for batch in DataLoader(Texts(rows, labels, tokenizer), batch_size):
        right += int((run(model, batch).logits.argmax(-1).cpu() == batch["label"]).sum())
    return right / len(rows)


class Tasks(nn.Module):
    """Classifier with a head for each task; its original head is the target's."""

    def __init__(self, model, classes: dict[str, int], target: str):
        super().__init__()
        self.model = model
        heads = {name: nn.Linear(model.config.hidden_size, count) for name, count in classes.items()}
        self.heads = nn.ModuleDict(heads | {target: model.classifier}).to(model.device)

    def forward(self, batch, task: str):
        """Logits of a task, and the pooled state."""
        pooled = run(self.model.base_model, batch).pooler_output
        return self.heads[task](pooled), pooled


def curriculum(
    student, teacher, quiz: dict[str, list], labels: dict[str, dict[str, int]], target: str, dev, tokenizer,
    episodes: int, batch_size: int = 8, rate: float = 3e-5, policy_rate: float = 1e-3,
) -> None:  # fmt: skip
    """Stage 6, except that the student is updated at every step, as in ours, instead of once per episode.

    At each step of an episode the student trains on a random quiz batch of the task chosen by the policy; then both models
    score the step's batch of the target's quiz, for the reward. The student is scored on ``dev`` after every episode.
    Excludes the training of the meta-teacher on quiz.
    """
    classes = {name: len(of_task) for name, of_task in labels.items()}
    student, teacher = Tasks(student, classes, target), Tasks(teacher, classes, target).eval()
    texts = {name: Texts(rows, labels[name], tokenizer) for name, rows in quiz.items()}
    optimizer = torch.optim.AdamW(student.parameters(), lr=rate, foreach=False, fused=False)
    policy = Policy(student.model, list(quiz), policy_rate)
    for _ in range(episodes):
        rewards, task = [], random.choice(list(quiz))
        for measured in DataLoader(texts[target], batch_size, shuffle=True):
            student.train()
            rows = random.sample(range(len(texts[task])), min(batch_size, len(texts[task])))
            batch = default_collate([texts[task][i] for i in rows])
            student_loss(student, teacher, batch, task).backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            rewards.append(reward(student, teacher, measured, target) / len(texts[target]))
            task = policy.pick()
        policy.learn(rewards)
        accuracy(student.model, dev, labels[target], tokenizer, batch_size)


def student_loss(student: Tasks, teacher: Tasks, batch, task: str) -> torch.Tensor:
    """CE(S(x), y) - p_S(y) + p_T'(y | h_S); the teacher's head reads the student's state."""
    label = batch["label"].to(student.model.device)
    logits, pooled = student(batch, task)
    with torch.no_grad():
        meta_logits = teacher.heads[task](pooled)
    return F.cross_entropy(logits, label) - certainty(logits, label).mean() + certainty(meta_logits, label).mean()


@torch.no_grad()
def reward(student: Tasks, teacher: Tasks, batch, target: str) -> float:
    """Student's minus teacher's probability of the labels, summed over the batch."""
    student_certainty, teacher_certainty = (certainty(model(batch, target)[0], batch["label"]) for model in (student.eval(), teacher))
    return (student_certainty - teacher_certainty).sum().item()


class Policy:
    """Policy softmax(Linear(Linear(pooler weight))), trained by REINFORCE after each episode."""

    def __init__(self, model, tasks: list[str], rate: float):
        self.tasks, self.weight = tasks, model.base_model.pooler.dense.weight
        width = self.weight.shape[0]
        self.layers = nn.Sequential(nn.Linear(width, 1), nn.Flatten(0), nn.Linear(width, len(tasks))).to(model.device)
        self.optimizer = torch.optim.Adam(self.layers.parameters(), lr=rate)
        self.chosen: list[torch.Tensor] = []

    def pick(self) -> str:
        """Sample the task of the next step."""
        drawn = torch.distributions.Categorical(logits=self.layers(self.weight.detach().clone()))
        action = drawn.sample()
        self.chosen.append(drawn.log_prob(action))
        return self.tasks[action]

    def learn(self, rewards: list[float], gamma: float = 0.99) -> None:
        """Update on an episode's discounted rewards minus their mean."""
        discounted = torch.tensor([gamma**i * value for i, value in enumerate(rewards)])
        returns = discounted.flip(0).cumsum(0).flip(0)
        gain = ((returns - returns.mean()).to(self.chosen[0].device) * torch.stack(self.chosen)).mean()
        self.optimizer.zero_grad()
        (-gain).backward()
        self.optimizer.step()
        self.chosen = []
