"""Generated corpus: equal bytes for equal seeds, the raw format, and scores that rank domain-general rows higher."""

import tarfile

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from teachback.data.bad_rows import Problems
from teachback.data.suites import amazon, sample
from teachback.data.suites.definition import ReadSettings
from teachback.methods.prototypes import embed, prototype_scores
from teachback.models.loading import load_encoder


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    sample.generate(folder, seed=42)
    with tarfile.open(folder / sample.ARCHIVE.name) as archive:
        archive.extractall(folder / sample.ARCHIVE.folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def rows(generated):
    problems = Problems()
    parsed = amazon.read(generated, ReadSettings(), problems)
    assert not problems.found
    return parsed.rows


@pytest.fixture(scope="module")
def annotations(generated):
    """Side file of the corpus: for each guid, whether its label is noise and whether it is domain-general."""
    header, *lines = (generated / sample.SIDE_FILE).read_text().splitlines()
    return {line.split("\t")[0]: dict(zip(header.split("\t"), line.split("\t"))) for line in lines}


def test_equal_seeds_give_equal_archives(generated, tmp_path):
    sample.generate(tmp_path / "same", seed=42)
    sample.generate(tmp_path / "other", seed=43)
    archive = (generated / sample.ARCHIVE.name).read_bytes()
    assert (tmp_path / "same" / sample.ARCHIVE.name).read_bytes() == archive
    assert (tmp_path / "other" / sample.ARCHIVE.name).read_bytes() != archive


def test_the_sample_is_read_by_the_parser_of_amazon(generated, rows, annotations):
    assert all(count.expected == count.found for count in sample.SUITE.counts(generated))
    assert {row.guid for part in rows.values() for row in part} == set(annotations)
    assert {row.domain for row in rows["train"]} == set(amazon.FOLDERS)


def test_label_noise_general_share_and_lengths_are_within_their_ranges(rows, annotations):
    values = list(annotations.values())
    assert 0.02 < sum(int(v["label_noise"]) for v in values) / len(values) < 0.05
    assert 0.4 < sum(int(v["domain_general"]) for v in values) / len(values) < 0.6
    lengths = [len(row.text_a.split()) for row in rows["train"]]
    assert min(lengths) >= 8 and max(lengths) <= 45 and max(lengths) > 2 * min(lengths)


def test_domain_general_reviews_have_no_words_of_their_domain(rows, annotations):
    own = {d: set(" ".join([sample.TOPICS[d], *sample.PECULIAR[d].values()]).split()) for d in amazon.FOLDERS}
    for row in rows["train"]:
        words = set(row.text_a.lower().replace(".", " ").split())
        assert not (words & own[row.domain]) or annotations[row.guid]["domain_general"] == "0"


def test_prototype_scores_rank_domain_general_reviews_higher(rows, annotations):
    train = rows["train"]
    model, tokenizer = load_encoder("scratch:tiny", [row.text_a for row in train], 42)
    embeddings = np.concatenate(list(embed(train, model, tokenizer, 64, 64, "fp32", torch.device("cpu"))))
    scores = prototype_scores(embeddings, [row.label for row in train], [row.domain for row in train])
    assert roc_auc_score([int(annotations[row.guid]["domain_general"]) for row in train], scores) > 0.6
