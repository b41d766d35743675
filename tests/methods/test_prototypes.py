"""Prototype scores by hand in two dimensions, embeddings over real tokens only, and independence of both from the chunk size."""

import struct

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain, Row, Suite
from teachback.methods.prototypes import (
    StoredEmbeddings,
    _score_range,
    class_of,
    describe_scores,
    embed,
    plot_scores,
    prototype_scores,
    write_embeddings,
)
from teachback.models.loading import load_encoder

# Two classes in three domains: two rows in (a, +), whose mean is (1, 1), none in (c, -), one in each other pair.
ROWS = np.array([[2.0, 0.0], [0.0, 2.0], [0.0, 3.0], [-1.0, 0.0], [0.0, -1.0], [1.0, 0.0]])
DOMAINS = ["a", "a", "b", "c", "a", "b"]
LABELS = ["+", "+", "+", "+", "-", "-"]
ROOT = np.sqrt(0.5)


def test_paper_form_by_hand():
    # Class + has the prototypes a (1, 1), b (0, 3), c (-1, 0); class - has a (0, -1), b (1, 0), and none in c.
    alpha = 0.6
    expected = [
        alpha * ROOT + 0.4 * (0 + -1) / 2,  # (2, 0): own a, then b and c
        alpha * ROOT + 0.4 * (1 + 0) / 2,  # (0, 2)
        alpha * 1 + 0.4 * (ROOT + 0) / 2,  # (0, 3): own b, then a and c
        alpha * 1 + 0.4 * (-ROOT + 0) / 2,  # (-1, 0): own c, then a and b
        alpha * 1 + 0.4 * 0,  # (0, -1): own a, then b alone
        alpha * 1 + 0.4 * 0,
    ]
    np.testing.assert_allclose(prototype_scores(ROWS, LABELS, DOMAINS, "paper", alpha), expected, atol=1e-12)


def test_code_form_by_hand():
    # Centroids over all classes: a (2, 1)/3, b (1, 3)/2, c (-1, 0); of the others the mean, for a (b + c)/2 = (-1/4, 3/4).
    a, b, c = np.array([2 / 3, 1 / 3]), np.array([0.5, 1.5]), np.array([-1.0, 0.0])
    cos = lambda x, y: x @ y / np.linalg.norm(x) / np.linalg.norm(y)  # noqa: E731
    own, others = {"a": a, "b": b, "c": c}, {"a": (b + c) / 2, "b": (a + c) / 2, "c": (a + b) / 2}
    expected = [0.5 * cos(own[d], h) + 0.5 * cos(others[d], h) for d, h in zip(DOMAINS, ROWS)]
    np.testing.assert_allclose(prototype_scores(ROWS, LABELS, DOMAINS, "code"), expected, atol=1e-12)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_scores_of_a_single_domain_are_cosines_with_its_centroid(form):
    rows = np.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(prototype_scores(rows, ["+", "+"], ["a", "a"], form), [ROOT, ROOT])


def test_alpha_interpolates_between_own_and_other_domains():
    own = prototype_scores(ROWS, LABELS, DOMAINS, "paper", 1.0)
    others = prototype_scores(ROWS, LABELS, DOMAINS, "paper", 0.0)
    np.testing.assert_allclose(prototype_scores(ROWS, LABELS, DOMAINS, "paper", 0.3), 0.3 * own + 0.7 * others)


def test_defaults_are_the_paper_form_and_alpha_one_half():
    expected = prototype_scores(ROWS, LABELS, DOMAINS, "paper", 0.5)
    np.testing.assert_array_equal(prototype_scores(ROWS, LABELS, DOMAINS), expected)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_other_centroid_of_two_domains_is_that_of_the_other_domain(form):
    rows = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 5.0]])
    found = prototype_scores(rows, ["+"] * 3, ["a", "b", "b"], form, 0.25)  # centroids (2, 0) and (0.5, 3)
    to_b = [x @ np.array([0.5, 3]) / np.linalg.norm(x) / np.sqrt(9.25) for x in rows]
    np.testing.assert_allclose(found, [0.25 + 0.75 * to_b[0], 0.25 * to_b[1] + 0.75 * ROOT, 0.25 * to_b[2]])


@pytest.mark.parametrize("form", ["paper", "code"])
def test_zero_embedding_has_score_zero(form):
    rows = np.array([[0.0, 0.0], [3.0, 4.0], [0.6, 0.8]])
    np.testing.assert_allclose(prototype_scores(rows, ["+"] * 3, ["a", "b", "b"], form, 0.5), [0, 0.5, 0.5])


@pytest.mark.parametrize(
    ("options", "message"),
    [(("papers", 0.5), "PROTOTYPE=papers: use one of paper, code"), (("paper", 1.5), "ALPHA=1.5: use a number from 0 to 1"),
     (("code", -0.1), "ALPHA=-0.1: use a number from 0 to 1")],
)  # fmt: skip
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(TeachbackError, match=f"^{message}$"):
        prototype_scores(ROWS, LABELS, DOMAINS, *options)


@pytest.mark.parametrize("counts", [(5, 6, 6), (6, 5, 6), (6, 6, 5)])
def test_every_embedding_needs_a_label_and_a_domain(counts):
    parts = (part[:count] for part, count in zip((ROWS, LABELS, DOMAINS), counts))
    with pytest.raises(ValueError, match="^{} embeddings, {} labels and {} domains$".format(*counts)):
        prototype_scores(*parts)


@pytest.mark.parametrize("place", [0, 4])
def test_non_finite_embeddings_are_rejected_in_any_chunk(place):
    spoilt = ROWS.copy()
    spoilt[place, 1] = np.nan
    message = "^the embeddings contain numbers that are not finite; set PRECISION=fp32, or use another EMBEDDING_MODEL$"
    with pytest.raises(TeachbackError, match=message):
        prototype_scores(spoilt, LABELS, DOMAINS, chunk=2)


def random_suite(count: int = 103) -> tuple[np.ndarray, list[str], list[str]]:
    """Random embeddings, labels and domains: domain ``single`` has one row, and class ``z`` occurs in domain ``a`` only."""
    random = np.random.default_rng(5)
    labels = random.choice(["x", "y", "z"], count).tolist()
    domains = ["a" if label == "z" else str(random.choice(["a", "b", "c"])) for label in labels]
    labels[50], domains[50] = "x", "single"
    return random.normal(size=(count, 7)).astype(np.float32), labels, domains


def reference_scores(rows: np.ndarray, labels: list[str], domains: list[str], form: str, alpha: float) -> list[float]:
    """Prototype scores computed row by row from the definition."""
    rows = rows.astype(np.float64)
    if form == "code":
        labels = [""] * len(labels)
    cos = lambda x, y: x @ y / np.linalg.norm(x) / np.linalg.norm(y)  # noqa: E731
    found = []
    for row, label, own in zip(rows, labels, domains):
        centroids = {
            domain: rows[[(pair == (label, domain)) for pair in zip(labels, domains)]].mean(0)
            for domain in set(domains)
            if (label, domain) in zip(labels, domains)
        }
        rest = [centroid for domain, centroid in centroids.items() if domain != own]
        if rest and form == "code":
            other = cos(np.mean(rest, 0), row)
        elif rest:
            other = np.mean([cos(centroid, row) for centroid in rest])
        else:
            other = cos(centroids[own], row)
        found.append(alpha * cos(centroids[own], row) + (1 - alpha) * other)
    return found


@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize("chunk", [1, 2, 50, 51, 102, 103, 1000])
def test_scores_do_not_depend_on_the_chunk_size(form, chunk):
    suite = random_suite()
    found = prototype_scores(*suite, form, 0.3, chunk=chunk)
    np.testing.assert_allclose(found, reference_scores(*suite, form, 0.3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_single_row_has_score_one_and_empty_input_has_no_scores(form):
    np.testing.assert_allclose(prototype_scores(np.array([[3.0, 4.0]]), ["+"], ["a"], form), [1.0])
    assert prototype_scores(np.empty((0, 2)), [], [], form).shape == (0,)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_scores_from_a_file_equal_those_from_the_array(tmp_path, form):
    rows, labels, domains = random_suite()
    write_embeddings(tmp_path / "e.npy", np.array_split(rows, 4), rows.shape)
    np.save(tmp_path / "numpy.npy", rows, allow_pickle=False)
    assert (tmp_path / "e.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    stored = StoredEmbeddings(tmp_path / "e.npy")
    assert len(stored) == len(rows) and stored.shape == rows.shape
    found = prototype_scores(stored, labels, domains, form, chunk=10)
    np.testing.assert_array_equal(found, prototype_scores(rows, labels, domains, form, chunk=10))


def test_stored_embeddings_are_memory_mapped_and_pickles_are_rejected(tmp_path):
    np.save(tmp_path / "e.npy", ROWS, allow_pickle=False)
    rows = StoredEmbeddings(tmp_path / "e.npy")[2:4]
    assert isinstance(rows, np.memmap) and not rows.flags.writeable
    np.testing.assert_array_equal(rows, ROWS[2:4])
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError):
        StoredEmbeddings(tmp_path / "objects.npy")


def test_stored_embeddings_can_be_restricted_to_given_rows(tmp_path):
    np.save(tmp_path / "e.npy", ROWS, allow_pickle=False)
    stored = StoredEmbeddings(tmp_path / "e.npy", [1, 3, 4])
    assert len(stored) == 3 and stored.shape == (3, 2)
    np.testing.assert_array_equal(stored[1:3], ROWS[[3, 4]])
    empty = StoredEmbeddings(tmp_path / "e.npy", [])
    assert len(empty) == 0 and empty[0:1].shape == (0, 2)


def test_classes_differ_between_heads_and_a_regression_has_one_class():
    labels = ("yes", "no")
    domains = [
        Domain("a", "shared", labels), Domain("b", "shared", labels), Domain("c", "own", labels),
        Domain("d", "number", ("score",), task="regression"),
    ]  # fmt: skip
    suite = Suite("made", {domain.name: domain for domain in domains})

    def named(domain: str, label: str) -> str:
        return class_of(Row("0", "a text", "", label, domain), suite)

    assert named("a", "yes") is named("b", "yes") != named("a", "no")
    assert named("a", "yes") != named("c", "yes")
    assert named("d", "1.5") == named("d", "4") != named("a", "yes")


@pytest.mark.parametrize("form", ["paper", "code"])
def test_scores_are_computed_in_double_precision(form):
    """A class far from the origin, whose spread would be lost in single-precision sums."""
    rows = (np.array([[1.0, 0.0], [1.0, 1e-3], [1.0, -1e-3]]) + 1e-4).astype(np.float32)
    found = prototype_scores(rows, ["+"] * 3, ["a", "a", "b"], form)
    assert found.dtype == np.float64
    expected = reference_scores(rows, ["+"] * 3, ["a", "a", "b"], form, 0.5)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)


def rows_then_error(rows: np.ndarray):
    """Yield the first half of the rows, then raise an error."""
    yield rows[: len(rows) // 2]
    raise InterruptedError


def test_embeddings_are_stored_in_single_precision(tmp_path):
    write_embeddings(tmp_path / "e.npy", [ROWS[:4], ROWS[4:].astype(np.float32)], ROWS.shape)
    stored = np.load(tmp_path / "e.npy", allow_pickle=False)
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, ROWS.astype(np.float32))


def test_failed_write_of_embeddings_leaves_the_folder_unchanged(tmp_path):
    rows, path = random_suite()[0], tmp_path / "e.npy"
    for _ in range(2):
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        with pytest.raises(InterruptedError):
            write_embeddings(path, rows_then_error(rows), rows.shape)
        with pytest.raises(ValueError, match="52 embeddings for 103 rows"):
            write_embeddings(path, [rows[:52]], rows.shape)
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
        write_embeddings(path, [rows], rows.shape)
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), rows)


@pytest.fixture(scope="module")
def encoder():
    texts = ["a good book", "a bad film with a long name", "good", "film and book and film"] * 3
    return load_encoder("scratch:tiny", texts, 0)


def rows(*texts: str) -> list[Row]:
    return [Row(str(i), text, "", "+", "a") for i, text in enumerate(texts)]


def embedded(encoder, *texts: str, batch_size: int = 8, **options) -> np.ndarray:
    model, tokenizer = encoder
    return np.concatenate(
        list(embed(rows(*texts), model, tokenizer, 32, batch_size, "fp32", torch.device("cpu"), **options))
    )


def test_embeddings_do_not_depend_on_padding_or_order(encoder):
    texts = ("good", "a bad film with a long name and a book and a film", "a good book")
    together = embedded(encoder, *texts, batch_size=3)
    alone = embedded(encoder, *texts, batch_size=1)
    assert together.dtype == np.float32 and together.shape == (3, encoder[0].config.hidden_size)
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 5, 6, 100])
def test_embeddings_are_yielded_in_chunks_in_row_order(encoder, chunk):
    texts = ["film " * length for length in (1, 7, 3, 9, 2, 5)]
    np.testing.assert_allclose(
        embedded(encoder, *texts, batch_size=2, chunk=chunk), embedded(encoder, *texts, batch_size=2), atol=1e-5
    )
    model, tokenizer = encoder
    sizes = [len(part) for part in embed(rows(*texts), model, tokenizer, 32, 2, "fp32", torch.device("cpu"), chunk)]
    assert sum(sizes) == 6 and max(sizes) == min(chunk, 6)


def test_embedding_is_the_mean_of_the_token_states(encoder):
    model, tokenizer = encoder
    found = embedded(encoder, "a good book")
    with torch.inference_mode():
        states = model(**tokenizer("a good book", return_tensors="pt")).last_hidden_state
    np.testing.assert_allclose(found[0], states[0].mean(0).numpy(), atol=1e-6)


@pytest.mark.parametrize(("precision", "gap"), [("fp32", 1e-6), ("bf16", 0.1)])
def test_embeddings_are_computed_in_the_requested_precision(encoder, precision, gap):
    model, tokenizer = encoder
    model.train()  # embed must not depend on the encoder's mode
    device = torch.device("cpu")
    (found,) = embed(rows("a good film", "bad"), model, tokenizer, 32, 8, precision, device)
    exact = embedded(encoder, "a good film", "bad")
    assert found.dtype == np.float32 and np.abs(found - exact).max() < gap
    assert (precision == "fp32") == np.allclose(found, exact, atol=1e-6)


def test_texts_are_truncated_to_the_maximum_length(encoder):
    model, tokenizer = encoder
    cut, whole = (
        next(embed(rows("film and book and film"), model, tokenizer, length, 8, "fp32", torch.device("cpu")))
        for length in (4, 32)
    )
    np.testing.assert_allclose(cut, embedded(encoder, "film and"), atol=1e-6)
    assert not np.allclose(cut, whole, atol=1e-3)


SCORED = ["b", "b", "a", "a", "a", "a", "a"], np.array([0.5, 0.7, 0.1, 0.2, 0.3, 0.4, 1.0])


def test_score_distribution_is_described_by_domain():
    head, *lines = describe_scores(*SCORED).splitlines()
    assert head.split() == "prototype scores rows min 25 % median 75 % max mean".split()
    assert [line.split() for line in lines] == [
        ["a", "5", "0.1000", "0.2000", "0.3000", "0.4000", "1.0000", "0.4000"],
        ["b", "2", "0.5000", "0.5500", "0.6000", "0.6500", "0.7000", "0.6000"],
    ]
    assert {len(line) for line in (head, *lines)} == {len(head)}  # aligned columns


class KeptFigure(Figure):
    """Figure that stays accessible after it has been saved."""

    saved: list["KeptFigure"] = []

    def savefig(self, *args, **options):
        self.saved.append(self)
        super().savefig(*args, **options)


def test_score_distribution_is_plotted_as_one_outline_per_domain(tmp_path, monkeypatch):
    monkeypatch.setattr("matplotlib.figure.Figure", KeptFigure)
    plot_scores(*SCORED, tmp_path / "scores.png")
    png = (tmp_path / "scores.png").read_bytes()
    assert png.startswith(b"\x89PNG") and struct.unpack(">II", png[16:24]) == (840, 480)
    figure = KeptFigure.saved.pop()
    (axes,) = figure.axes
    assert type(figure.get_layout_engine()).__name__ == "ConstrainedLayoutEngine"  # so that no label is cut off
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("prototype score", "density")
    assert axes.get_title() == "Prototype scores of the train rows"
    assert sorted(text.get_text() for text in axes.get_legend().get_texts()) == ["a", "b"]
    for outline in axes.patches:
        assert not outline.get_fill()
        places, heights = outline.get_xy().T
        np.testing.assert_allclose(np.unique(places), np.linspace(0.1, 1.0, 41))  # all domains share the bin edges
        assert heights[1:-1:2].sum() * 0.9 / 40 == pytest.approx(1)  # integrates to one
    assert len(axes.patches) == 2


@pytest.mark.parametrize(
    "scores, expected",
    [([0.5, 0.5], (0.499, 0.501)), ([-0.5, -0.1], (-0.5, -0.1)), ([0.0, 1e-3], (-1e-3, 2e-3)), ([0.2, 0.3, 0.7], (0.2, 0.7))],
)  # fmt: skip
def test_range_of_the_histogram_is_that_of_the_scores_unless_they_are_alike(scores, expected):
    assert _score_range(np.array(scores)) == pytest.approx(expected, abs=1e-12)


def test_scores_that_differ_only_by_rounding_can_be_plotted(tmp_path, caplog):
    scores = np.array([0.97, 0.97 + 2e-16, 0.97 - 1e-16])
    plot_scores(["a"] * 3, scores, tmp_path / "scores.png")
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG") and not caplog.text
