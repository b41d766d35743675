"""Classifiers with several heads, reductions over sequences and tokens, and Meta-KD's transferable knowledge."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from teachback.data.schema import Domain, class_count, output_names
from teachback.models.layers import final_layer, token_fields
from teachback.models.positions import most_tokens, require_positions

# Logit of a class that a head lacks: far below any other, yet finite, so that 0 * log(0) never occurs.
ABSENT_CLASS = -1e4


@dataclass
class Outputs:
    """Outputs of a classifier: logits [B, C], pooled states [S, H], hidden states [S, L, H] (embeddings first).

    S = B unless rows are questions with several choices. ``places`` [S]: position of the token that a decoder classifies
    from; None for the first token, [CLS].
    """

    logits: torch.Tensor
    pooled: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] = ()
    places: torch.Tensor | None = None

    def cls(self, layers: Sequence[int]) -> torch.Tensor:
        """States of the classification token, [CLS] or a decoder's last, after K given layers: [S, K, H]."""
        if self.places is None:
            return torch.stack([self.hidden_states[layer][:, 0] for layer in layers], 1)
        sequences = torch.arange(len(self.places), device=self.places.device)
        return torch.stack([self.hidden_states[layer][sequences, self.places] for layer in layers], 1)


def fold(values: torch.Tensor, sequences: torch.Tensor, width: int, fill: float = 0.0) -> torch.Tensor:
    """Group values by row: [S, ...], [B] -> [B, width, ...], padded with ``fill``."""
    count = torch.arange(len(values), device=values.device)
    row = per_sequence(count[: len(sequences)], sequences, len(values))
    place = count - per_sequence(sequences.cumsum(0) - sequences, sequences, len(values))
    return values.new_full((len(sequences), width, *values.shape[1:]), fill).index_put((row, place), values)


def per_row(values: torch.Tensor, sequences: torch.Tensor | None) -> torch.Tensor:
    """Mean over each row's sequences: [S, ...], [B] -> [B, ...]; the identity if ``sequences`` is None."""
    if sequences is None:
        return values
    # An upper bound on a row's sequences; reading the exact maximum would synchronise with the device.
    widest = len(values) - len(sequences) + 1
    count = sequences.view(-1, *(1 for _ in values.shape[1:]))
    return fold(values, sequences, widest).sum(1) / count


def per_sequence(values: torch.Tensor, sequences: torch.Tensor | None, total: int | None = None) -> torch.Tensor:
    """Repeat a row's value for each of its sequences: [B, ...], [B] -> [S, ...]. ``total`` = S avoids a GPU sync."""
    return values if sequences is None else values.repeat_interleave(sequences, 0, output_size=total)


class Classifier(nn.Module):
    """Hugging Face classifier with further heads on its pooled state.

    ``heads`` names the heads in order; the model's final layer is the first. The logits of a row come from its head,
    ``head`` [B]; classes that this head lacks get `ABSENT_CLASS`. A head for choices has one output, and a row's logits
    are the outputs for its sequences.
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
        most_tokens(model)  # cached here, so that no training step has to probe it
        final_layer(model).register_forward_pre_hook(self._remember_pooled)

    def _remember_pooled(self, module, inputs) -> None:
        self._pooled = inputs[0]

    def forward(self, batch: dict, head: torch.Tensor | None = None, hidden_states: bool = False) -> Outputs:
        """Run the model on a padded batch. ``head`` [B]: head index of each row, needed only if there are several."""
        inputs = {name: batch[name] for name in self._fields if name in batch}
        require_positions(self.model, inputs["input_ids"].shape[1])
        result = self.model(**inputs, output_hidden_states=hidden_states, return_dict=True)
        pooled, self._pooled = self._pooled, None
        assert pooled is not None  # set by the hook of the final layer
        places = None
        if pooled.ndim == 3:  # a decoder, whose final layer reads every token
            places = last_places(batch["input_ids"], self.model.config.pad_token_id)
            pooled = pooled[torch.arange(len(places), device=places.device), places]
        logits = self._by_row(result.logits, pooled, head, batch.get("sequences"))
        return Outputs(logits, pooled, result.hidden_states or (), places)

    def head_logits(
        self, pooled: torch.Tensor, head: torch.Tensor | None = None, sequences: torch.Tensor | None = None
    ):
        """Logits from pooled states: [S, H], [B], [B] -> [B, C], as in `forward`."""
        layer = final_layer(self.model)
        first = nn.functional.linear(pooled, layer.weight, layer.bias)  # calling the layer would run its hook
        return self._by_row(first, pooled, head, sequences)

    def _by_row(self, first: torch.Tensor, pooled: torch.Tensor, head, sequences) -> torch.Tensor:
        """Logits of each row's head [B, C], given the first head's outputs [S, c] and the pooled states [S, H]."""
        if not self.other_heads:
            plain = sequences is None and not self._choices[0]
            return first if plain else self._padded(first, self._choices[0], sequences)
        every = [first, *(layer(pooled) for layer in self.other_heads)]
        padded = [self._padded(logits, choices, sequences) for logits, choices in zip(every, self._choices)]
        return torch.stack(padded, 1)[torch.arange(len(head), device=head.device), head]

    def _padded(self, logits: torch.Tensor, choices: bool, sequences: torch.Tensor | None) -> torch.Tensor:
        """Logits of a head by row, padded with absent classes: [S, c] -> [B, C]. Rows of other heads are meaningless."""
        logits = logits.float()
        if sequences is not None and choices:
            return fold(logits[:, 0], sequences, self.classes, ABSENT_CLASS)
        if sequences is not None:
            logits = logits[sequences.cumsum(0) - sequences]
        return nn.functional.pad(logits, (0, self.classes - logits.shape[1]), value=ABSENT_CLASS)


def last_places(input_ids: torch.Tensor, pad_token_id: int) -> torch.Tensor:
    """Position of each sequence's last non-padding token, from which decoders classify: [S, L] -> [S]."""
    places = torch.arange(input_ids.shape[1], device=input_ids.device)
    return (places * (input_ids != pad_token_id)).argmax(-1)


def mean_over_tokens(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of token states over non-padding tokens: [B, L, H], [B, L] -> [B, H]."""
    mask = mask.unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1)


class TransferableKnowledge(nn.Module):
    """Transferable knowledge h_d before its tanh: W(E_D[k] + h) + b, E_D a learned domain embedding (Meta-KD, section 3).

    Without ``domains`` there is no E_D.
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
        """Append a domain whose embedding is the mean of the others."""
        if self.domain_embedding is None:
            return
        known = self.domain_embedding.weight.detach()
        self.domain_embedding = nn.Embedding.from_pretrained(
            torch.cat([known, known.mean(0, keepdim=True)]), freeze=False
        )

    def forward(self, last_hidden: torch.Tensor, batch: dict) -> torch.Tensor:
        """h_d before the tanh from token states, averaged over a row's sequences: [S, L, H] -> [B, H]."""
        return self.of_means(mean_over_tokens(last_hidden, batch["attention_mask"]), batch)

    def of_means(self, means: torch.Tensor, batch: dict) -> torch.Tensor:
        """h_d before the tanh from token states averaged per sequence: [S, H] -> [B, H]."""
        sequences = batch.get("sequences")
        if self.domain_embedding is not None:
            means = self.domain_embedding(per_sequence(batch["domain"], sequences, len(means))) + means
        return per_row(self.dense(means), sequences)
