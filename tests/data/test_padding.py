"""Share of padding in batches: its count, its report at the start of training, and its value on real data."""

from pathlib import Path

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from tiny import BOOKS, CAUSE, tokenizer
from torch import nn
from torch.utils.data import BatchSampler

from teachback.core.training_arguments import OptimizerArguments
from teachback.data.bad_rows import Problems
from teachback.data.download import unpack
from teachback.data.encoding import Collator, EncodedRows, LengthBucketSampler, count_padding, encode
from teachback.data.schema import Row, join_choices
from teachback.data.slices import Slices
from teachback.data.suites import SUITES
from teachback.data.suites.definition import ReadSettings
from teachback.models.loading import load_tokenizer
from teachback.training.module import TrainingModule
from teachback.training.trainer import batches_of_all_processes, train

SHARED = Path(__file__).parents[3] / "shared/data"


def rows_of_lengths(*lengths) -> EncodedRows:
    columns = {"label": torch.zeros(len(lengths), dtype=torch.long)}
    return EncodedRows({"input_ids": Slices.of_lists([[7] * n for n in lengths])}, columns)


def batches_of(encoded: EncodedRows, size: int) -> BatchSampler:
    return BatchSampler(LengthBucketSampler(encoded.lengths, size, seed=3), size, drop_last=False)


def collated_counts(encoded: EncodedRows, batches, multiple: int) -> tuple[int, int]:
    """Number of tokens, and of padding among them, in the collated batches."""
    masks = [Collator(0, multiple)([encoded[i] for i in rows])["attention_mask"] for rows in batches]
    return sum(mask.numel() for mask in masks), sum(int((mask == 0).sum()) for mask in masks)


def test_count_padding_matches_values_computed_by_hand():
    found = count_padding(rows_of_lengths(3, 5, 9), [[0, 1], [2]], 1)
    assert (found.batches, found.tokens, found.padding) == (2, 19, 2) and found.share == 2 / 19
    found = count_padding(rows_of_lengths(3, 5, 9), [[0, 1], [2]], 8)
    assert (found.batches, found.tokens, found.padding) == (2, 32, 15)
    assert str(count_padding(rows_of_lengths(900, 1000), [[0, 1]], 1)) == "padding: 5.0 % of 2,000 tokens in 1 batches"


@pytest.mark.parametrize("multiple", [1, 8])
def test_counted_padding_equals_that_of_the_collated_batches(multiple):
    texts = ["good " * (1 + i * 7 % 11) for i in range(25)]
    rows = [Row(str(i), text, "", "positive", "books") for i, text in enumerate(texts)]
    rows[::3] = [Row(r.guid, "bad", join_choices([r.text_a.strip(), "loud"]), "first", "cause") for r in rows[::3]]
    encoded = encode(rows, tokenizer(), 16, {"books": BOOKS, "cause": CAUSE})
    batches = list(batches_of(encoded, 4))
    found = count_padding(encoded, batches, multiple)
    assert (found.tokens, found.padding) == collated_counts(encoded, batches, multiple) and found.batches == 7


@pytest.mark.parametrize("processes", [2, 3])
def test_batches_of_all_processes_are_those_of_every_shard(processes):
    batches = BatchSampler(LengthBucketSampler(list(range(1, 52)), 4 * processes, seed=3), 4, drop_last=False)
    shards = [BatchSamplerShard(batches, processes, i) for i in range(processes)]
    expected = [rows for shard in shards for rows in shard]
    assert {row for rows in expected for row in rows} == set(range(51))
    for shard in shards:
        assert list(batches_of_all_processes(shard)) == expected
    assert list(batches_of_all_processes(batches)) == list(batches)


class PaddingCounter(TrainingModule):
    """Model of one parameter that counts the tokens and the padding of its training batches."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.tokens = self.padding = 0

    def forward(self, input_ids, attention_mask, **rest):
        if self.training:
            self.tokens += attention_mask.numel()
            self.padding += int((attention_mask == 0).sum())
        return {"loss": (self.weight - 1).square() + 0 * input_ids.sum()}


def run(module, folder, last=None, epochs=1.0):
    args = OptimizerArguments(per_device_train_batch_size=4, num_train_epochs=epochs).training_arguments("cpu", "fp32")
    rows = rows_of_lengths(*(1 + i * 7 % 23 for i in range(30)))
    return train(module, rows, rows_of_lengths(4, 2), args, folder, last, 0)


def test_padding_reported_before_the_first_step_is_that_of_the_first_epoch(tmp_path, capsys):
    module = PaddingCounter()
    history = run(module, tmp_path).state.log_history
    share = module.padding / module.tokens
    assert history[0]["padding_share"] == share > 0 and history[0]["step"] == 0
    said = f"padding: {100 * share:.1f} % of {module.tokens:,} tokens in 8 batches"
    assert capsys.readouterr().out.count(said) == 1


def test_a_resumed_run_does_not_report_the_padding_again(tmp_path, capsys):
    run(PaddingCounter(), tmp_path)
    capsys.readouterr()
    history = run(PaddingCounter(), tmp_path, str(tmp_path / "checkpoint-8"), epochs=2.0).state.log_history
    assert ["padding_share" in entry for entry in history].count(True) == 1
    assert "padding:" not in capsys.readouterr().out


# Real data


def real_rows(suite, domains, folder):
    """Domains and train rows as stage 2 reads them, before a quiz is cut from train."""
    for archive in suite.archives_of(domains):
        path = SHARED / suite.name / archive.name
        if not path.is_file():
            pytest.skip(f"{path} is not here")
        unpack(path, folder / archive.folder)
    parsed = suite.read(folder, ReadSettings(domains=domains), Problems())
    return parsed.domains, parsed.rows["train"]


@pytest.fixture(scope="module", params=["amazon", "superglue BoolQ CB"])
def real(request, tmp_path_factory):
    name, _, domains = request.param.partition(" ")
    known, rows = real_rows(SUITES[name], domains, tmp_path_factory.mktemp(name))
    texts = [text for row in rows for text in (row.text_a, row.text_b) if text]
    return encode(rows, load_tokenizer("scratch:tiny", texts=texts[::4]), 128, known)


@pytest.mark.parametrize("multiple", [1, 8], ids=["CPU", "GPU"])
@pytest.mark.parametrize("batch_size", [8, 32])
def test_padding_is_less_than_five_percent_on_real_data(real, batch_size, multiple):
    for seed in range(3):
        sampler = LengthBucketSampler(real.lengths, batch_size, seed)
        batches = BatchSampler(sampler, batch_size, drop_last=False)
        assert count_padding(real, batches, multiple).share < 0.05
        in_random_order = BatchSampler(torch.randperm(len(real)).tolist(), batch_size, drop_last=False)
        assert count_padding(real, in_random_order, multiple).share > 0.05
