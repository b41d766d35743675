"""The rows of a loader in the tokens of a model whose tokenizer did not make them.

A loader yields tokens of one tokenizer. Where its data set keeps the texts, as those of `text_loaders` do, a row of a
batch is recognised by its tokens, and its text is read by the model's own tokenizer, each text once.
"""

from dataclasses import dataclass, replace

import torch

from teachback.core.errors import TeachbackError
from teachback.data.encoding import Collator, EncodedRows, encode
from teachback.loader_batches import keys_of, row_keys
from teachback.loaders import TokenDataset


def token_datasets(loader) -> list[TokenDataset]:
    """The data sets with texts that a loader draws from, also through PyTorch's Subset and ConcatDataset; else none."""
    found, left = [], [getattr(loader, "dataset", None)]
    while left:
        dataset = left.pop()
        if isinstance(dataset, TokenDataset):
            found.append(dataset)
        else:
            left += getattr(dataset, "datasets", [getattr(dataset, "dataset", None)] if dataset is not None else [])
    return found


def tokenizer_of(loader, otherwise):
    """What made a loader's tokens, as far as its data set tells."""
    found = token_datasets(loader)
    return found[0].tokenizer if found else otherwise


def alike(one, other) -> bool:
    """Whether two tokenizers number the same tokens alike."""
    return one is other or one.get_vocab() == other.get_vocab()


@dataclass(frozen=True)
class OwnTokens:
    """Rows by the hash of a loader's tokens, in a model's own tokens. ``name`` is what errors call the loader."""

    name: str
    numbers: dict[bytes, int]
    rows: EncodedRows
    pad_token_id: int

    @classmethod
    def of(cls, loader, name: str, tokenizer, assumed) -> "OwnTokens | None":
        """None where the loader's tokens are the model's. ``assumed``: what made them, if its data set does not tell."""
        datasets = token_datasets(loader)
        if all(alike(dataset.tokenizer, tokenizer) for dataset in datasets):
            if datasets or alike(assumed, tokenizer):
                return None
            raise TeachbackError(
                f"teacher and student have different tokenizers, and {name} yields the tokens of one without the texts; "
                "make it with create_simple_dataloader or load_superglue_dataset, or choose models of one vocabulary"
            )
        parts = [encode(part.rows, tokenizer, part.max_length, part.domains) for part in datasets]
        keys = [key for part in datasets for key in keys_of(part.encoded)]
        return cls(name, {key: i for i, key in enumerate(keys)}, EncodedRows.joined(parts), tokenizer.pad_token_id)

    def encoded(self, rows: EncodedRows) -> EncodedRows:
        """Rows of the loader's tokens in the model's."""
        return replace(self.rows.chosen(self._places(keys_of(rows))), columns=rows.columns)

    def batch(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A batch of the loader's tokens in the model's."""
        items = [self.rows[place] for place in self._places(row_keys(batch))]
        kept = {name: batch[name] for name in ("label", "domain", "weight")}
        tokens = Collator(self.pad_token_id)(items)
        tokens.pop("index")
        return kept | tokens

    def _places(self, keys: list[bytes]) -> list[int]:
        unknown = [key for key in keys if key not in self.numbers]
        if unknown:
            raise TeachbackError(
                f"{self.name}: the tokens of {len(unknown)} of {len(keys)} rows are none of its data set's, so their texts "
                "are not known; where teacher and student have different tokenizers, a collate_fn may not change tokens"
            )
        return [self.numbers[key] for key in keys]
