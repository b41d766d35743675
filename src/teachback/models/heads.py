"""Heads on the pooled state of an encoder, and the modules that are trained beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from teachback.data.schema import Domain, class_count, output_names
from teachback.models.layers import final_layer, token_fields
from teachback.models.positions import most_tokens, require_positions

# The logit of a class that a head does not have: far below any other, yet finite, so that 0 * log(0) never appears.
ABSENT_CLASS = -1e4



@dataclass
class Outputs:
    """What a classifier says of a batch: logits [B, C], pooled [S, H], hidden states [S, L, H] (embeddings first).

    S = B sequences, but where rows are questions with several choices. ``places`` [S]: which token a decoder classifies
    from; None: the first, [CLS].
    """

    logits: torch.Tensor
    pooled: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] = ()
    places: torch.Tensor | None = None

    def cls(self, layers: Sequence[int]) -> torch.Tensor:
        """States after the given layers of the token that stands for its sequence, [CLS] or a decoder's last: [S, K, H]."""
        if self.places is None:
            return torch.stack([self.hidden_states[layer][:, 0] for layer in layers], 1)
        sequences = torch.arange(len(self.places), device=self.places.device)
        return torch.stack([self.hidden_states[layer][sequences, self.places] for layer in layers], 1)


def fold(values: torch.Tensor, sequences: torch.Tensor, width: int, fill: float = 0.0) -> torch.Tensor:
    """Values of each row's sequences side by side: [S, ...], [B] -> [B, width, ...], ``fill`` where there are fewer."""
    count = torch.arange(len(values), device=values.device)
    row = per_sequence(count[: len(sequences)], sequences, len(values))
    place = count - per_sequence(sequences.cumsum(0) - sequences, sequences, len(values))
    return values.new_full((len(sequences), width, *values.shape[1:]), fill).index_put((row, place), values)


def per_row(values: torch.Tensor, sequences: torch.Tensor | None) -> torch.Tensor:
    """Mean over each row's sequences: [S, ...], [B] -> [B, ...]; without ``sequences`` every row is one."""
    if sequences is None:
        return values
    # No row has more sequences than this; the largest number itself is on the device, and asking for it would wait.
    widest = len(values) - len(sequences) + 1
    count = sequences.view(-1, *(1 for _ in values.shape[1:]))
    return fold(values, sequences, widest).sum(1) / count


def per_sequence(values: torch.Tensor, sequences: torch.Tensor | None, total: int | None = None) -> torch.Tensor:
    """A row's value for each of its sequences: [B, ...], [B] -> [S, ...]. ``total`` = S saves waiting for a GPU."""
    return values if sequences is None else values.repeat_interleave(sequences, 0, output_size=total)


class Classifier(nn.Module):
    """A Hugging Face classifier, its *pooled* representation, and further heads on it.

    ``heads`` names the heads in order; the model's own final layer serves the first of them. Logits of a row come
    from the head that ``head`` [B] names; classes that this head lacks get ``ABSENT_CLASS``. A head for choices has one
    output, and a row's logits are those of its sequences side by side.
    """

    def __init__(self, model, heads: dict[str, Domain]):
        super().__init__()
        self.model = model
        self.heads = dict(heads)
        sizes = [len(output_names(domain)) for domain in heads.values()]
        width = final_layer(model).in_features
        others = [nn.Linear(width, size) for size in sizes[1:]]
        for layer in others:
            nn.init.normal_(layer.weight, std=getattr(model.config, "initializer_range", 0.02))
            nn.init.zeros_(layer.bias)
        self.other_heads = nn.ModuleList(others)
        self.classes = max(map(class_count, heads.values()))
        self._choices = [domain.kind == "choices" for domain in heads.values()]
        self._pooled: torch.Tensor | None = None
        self._fields = token_fields(model)
        most_tokens(model)  # asked once here, so that no forward pass has to try it
        final_layer(model).register_forward_pre_hook(self._remember_pooled)

    def _remember_pooled(self, module, inputs) -> None:
        self._pooled = inputs[0]

    def forward(self, batch: dict, head: torch.Tensor | None = None, hidden_states: bool = False) -> Outputs:
        """Run the model on a padded batch. ``head`` [B] is needed only where there is more than one."""
        inputs = {name: batch[name] for name in self._fields if name in batch}
        require_positions(self.model, inputs["input_ids"].shape[1])
        result = self.model(**inputs, output_hidden_states=hidden_states, return_dict=True)
        pooled, self._pooled = self._pooled, None
        assert pooled is not None  # the final layer's hook has just kept it
        places = None
        if pooled.ndim == 3:  # of a decoder, whose final layer reads every token
            places = last_places(batch["input_ids"], self.model.config.pad_token_id)
            pooled = pooled[torch.arange(len(places), device=places.device), places]
        logits = self._by_row(result.logits, pooled, head, batch.get("sequences"))
        return Outputs(logits, pooled, result.hidden_states or (), places)

    def head_logits(
        self, pooled: torch.Tensor, head: torch.Tensor | None = None, sequences: torch.Tensor | None = None
    ):
        """What `forward` says, from pooled states alone: [S, H], [B], [B] -> logits [B, C]."""
        layer = final_layer(self.model)
        first = nn.functional.linear(pooled, layer.weight, layer.bias)  # not called, as its hook would keep the states
        return self._by_row(first, pooled, head, sequences)

    def _by_row(self, first: torch.Tensor, pooled: torch.Tensor, head, sequences) -> torch.Tensor:
        """Logits of each row's own head [B, C], from the first head's by sequence and pooled states for the others."""
        if not self.other_heads:
            plain = sequences is None and not self._choices[0]
            return first if plain else self._padded(first, self._choices[0], sequences)
        every = [first, *(layer(pooled) for layer in self.other_heads)]
        padded = [self._padded(logits, choices, sequences) for logits, choices in zip(every, self._choices)]
        return torch.stack(padded, 1)[torch.arange(len(head), device=head.device), head]

    def _padded(self, logits: torch.Tensor, choices: bool, sequences: torch.Tensor | None) -> torch.Tensor:
        """One head's logits by row, with absent classes: [S, c] -> [B, C]. Those of other heads' rows mean nothing."""
        logits = logits.float()
        if sequences is not None and choices:
            return fold(logits[:, 0], sequences, self.classes, ABSENT_CLASS)
        if sequences is not None:
            logits = logits[sequences.cumsum(0) - sequences]
        return nn.functional.pad(logits, (0, self.classes - logits.shape[1]), value=ABSENT_CLASS)


def last_places(input_ids: torch.Tensor, pad_token_id: int) -> torch.Tensor:
    """Place of each sequence's last token that is no padding, which Hugging Face's decoders classify: [S, L] -> [S]."""
    places = torch.arange(input_ids.shape[1], device=input_ids.device)
    return (places * (input_ids != pad_token_id)).argmax(-1)


def mean_over_tokens(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of token states over real tokens: [B, L, H], [B, L] -> [B, H]."""
    mask = mask.unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1)


class TransferableKnowledge(nn.Module):
    """h_d before its tanh: W(E_D[k] + h) + b with E_D a learned domain embedding (Meta-KD, section 3).

    Without ``domains`` there is no E_D, and h_d knows of the domain what h tells.
    """

    def __init__(self, width: int, domains: int):
        super().__init__()
        self.domain_embedding = nn.Embedding(domains, width) if domains else None
        self.dense = nn.Linear(width, width)
        if self.domain_embedding is not None:
            nn.init.normal_(self.domain_embedding.weight, std=0.02)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def add_mean_domain(self) -> None:
        """One more domain, whose embedding is the mean of the others."""
        if self.domain_embedding is None:
            return
        known = self.domain_embedding.weight.detach()
        self.domain_embedding = nn.Embedding.from_pretrained(
            torch.cat([known, known.mean(0, keepdim=True)]), freeze=False
        )

    def forward(self, last_hidden: torch.Tensor, mask: torch.Tensor, domain: torch.Tensor) -> torch.Tensor:
        """[B, L, H], [B, L], [B] -> [B, H], before the tanh."""
        return self.of_mean(mean_over_tokens(last_hidden, mask), domain)

    def of_mean(self, mean: torch.Tensor, domain: torch.Tensor) -> torch.Tensor:
        """From token states that are averaged already: [B, H], [B] -> [B, H], before the tanh."""
        return self.dense(mean if self.domain_embedding is None else self.domain_embedding(domain) + mean)
