"""Prototype scores by hand in two dimensions, and embeddings over real tokens only."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from teachback.errors import TeachbackError
from teachback.models import load_encoder
from teachback.prototypes import describe_scores, embed, plot_scores, prototype_scores
from teachback.suites.schema import Row

# Two classes in three domains, one row each, but two in (a, +): their mean is (1, 1).
ROWS = np.array([[2.0, 0.0], [0.0, 2.0], [0.0, 3.0], [-1.0, 0.0], [0.0, -1.0], [1.0, 0.0]])
DOMAINS = ["a", "a", "b", "c", "a", "b"]
LABELS = ["+", "+", "+", "+", "-", "-"]
ROOT = np.sqrt(0.5)


def test_the_papers_form_by_hand():
    # Class + has the prototypes a (1, 1), b (0, 3), c (-1, 0); class - has a (0, -1), b (1, 0), and none in c.
    alpha = 0.6
    expected = [
        alpha * ROOT + 0.4 * (0 + -1) / 2,  # (2, 0): own, then b and c
        alpha * ROOT + 0.4 * (1 + 0) / 2,  # (0, 2)
        alpha * 1 + 0.4 * (ROOT + 0) / 2,  # (0, 3): own b, then a and c
        alpha * 1 + 0.4 * (-ROOT + 0) / 2,  # (-1, 0): own c, then a and b
        alpha * 1 + 0.4 * 0,  # (0, -1): own a, then b alone
        alpha * 1 + 0.4 * 0,
    ]
    np.testing.assert_allclose(prototype_scores(ROWS, LABELS, DOMAINS, "paper", alpha), expected, atol=1e-12)


def test_the_codes_form_by_hand():
    # Centroids, classes aside: a (2, 1)/3, b (1, 3)/2, c (-1, 0); the others' means are b+c: (-1/4, 3/4), a+c, a+b.
    a, b, c = np.array([2 / 3, 1 / 3]), np.array([0.5, 1.5]), np.array([-1.0, 0.0])
    cos = lambda x, y: x @ y / np.linalg.norm(x) / np.linalg.norm(y)  # noqa: E731
    own, others = {"a": a, "b": b, "c": c}, {"a": (b + c) / 2, "b": (a + c) / 2, "c": (a + b) / 2}
    expected = [0.5 * cos(own[d], h) + 0.5 * cos(others[d], h) for d, h in zip(DOMAINS, ROWS)]
    np.testing.assert_allclose(prototype_scores(ROWS, LABELS, DOMAINS, "code"), expected, atol=1e-12)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_one_domain_alone_gives_the_cosine_with_its_own_centroid(form):
    rows = np.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(prototype_scores(rows, ["+", "+"], ["a", "a"], form), [ROOT, ROOT])


def test_alpha_weighs_own_and_other_domains():
    own = prototype_scores(ROWS, LABELS, DOMAINS, "paper", 1.0)
    others = prototype_scores(ROWS, LABELS, DOMAINS, "paper", 0.0)
    np.testing.assert_allclose(prototype_scores(ROWS, LABELS, DOMAINS, "paper", 0.3), 0.3 * own + 0.7 * others)


@pytest.mark.parametrize("options", [("papers", 0.5), ("paper", 1.5)])
def test_wrong_options_are_refused(options):
    with pytest.raises(TeachbackError, match="use"):
        prototype_scores(ROWS, LABELS, DOMAINS, *options)


def test_embeddings_that_are_not_finite_are_refused():
    with pytest.raises(TeachbackError, match="finite"):
        prototype_scores(np.array([[np.nan, 1.0]]), ["+"], ["a"])


@pytest.fixture(scope="module")
def encoder():
    texts = ["a good book", "a bad film with a long name", "good", "film and book and film"] * 3
    return load_encoder("scratch:tiny", texts, 0)


def rows(*texts: str) -> list[Row]:
    return [Row(str(i), text, "", "+", "a") for i, text in enumerate(texts)]


def test_embeddings_do_not_depend_on_padding_or_order(encoder):
    model, tokenizer = encoder
    texts = ("good", "a bad film with a long name and a book and a film", "a good book")
    options = dict(max_length=32, precision="fp32", device=torch.device("cpu"))
    together = embed(rows(*texts), model, tokenizer, batch_size=3, **options)
    alone = embed(rows(*texts), model, tokenizer, batch_size=1, **options)
    assert together.dtype == np.float32 and together.shape == (3, model.config.hidden_size)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_an_embedding_is_the_mean_of_the_token_states(encoder):
    model, tokenizer = encoder
    found = embed(rows("a good book"), model, tokenizer, 32, 8, "fp32", torch.device("cpu"))
    with torch.inference_mode():
        states = model(**tokenizer("a good book", return_tensors="pt")).last_hidden_state
    np.testing.assert_allclose(found[0], states[0].mean(0).numpy(), atol=1e-6)


def test_the_distribution_is_told_and_drawn_by_domain(tmp_path):
    weighted = [
        replace(row, weight=weight, domain=domain)
        for row, weight, domain in zip(rows("x", "y", "z"), (0.5, 0.7, 0.9), "bba")
    ]
    table = describe_scores(weighted).splitlines()
    assert [line.split()[:2] for line in table[1:]] == [["a", "1"], ["b", "2"]] and "0.6000" in table[2]
    plot_scores(weighted, tmp_path / "scores.png")
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")
