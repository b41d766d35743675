from dataclasses import replace

import pytest
from tiny import BOOKS, CAUSE, WORDS, tokenizer

from teachback.core.errors import TeachbackError
from teachback.data.encoding import encode
from teachback.data.schema import Domain, Row
from teachback.data.windows import further_windows

PAIR, PASSAGE = Domain("pair", "pair", ("no", "yes"), kind="pair"), Domain("passage", "passage", ("no", "yes"), kind="pair", truncate="text_a")
DOMAINS = {domain.name: domain for domain in (BOOKS, CAUSE, PAIR, PASSAGE)}
LONG = [f"word{i}" for i in range(40)]  # each one token


def row(text_a, text_b="", domain="books"):
    return Row("long", text_a, text_b, "positive" if domain == "books" else "yes", domain, 0.3)


def windows(one, most, length=14, tokens=None):
    """Windows of a row; 14 tokens leave room for 12 words."""
    return further_windows([one], DOMAINS, tokens or tokenizer(), length, most)


def words(rows, column="text_a"):
    return [getattr(one, column).split() for one in rows]


def test_enough_windows_cover_the_whole_text_and_overlap_by_a_quarter():
    found = words(windows(row(" ".join(LONG)), 9))
    assert found == [LONG[start : start + 12] for start in (7, 14, 21, 28)]  # the last ends where the text does


def test_few_windows_lie_evenly_and_one_is_the_end():
    text = " ".join(LONG)
    assert words(windows(row(text), 2)) == [LONG[14:26], LONG[28:]]
    assert words(windows(row(text), 1)) == [LONG[28:]] and windows(row(text), 0) == []


def test_windows_have_no_label_a_weight_of_one_and_names_of_their_own():
    found = windows(row(" ".join(LONG)), 2)
    assert [(one.guid, one.label, one.domain, one.weight) for one in found] == [
        ("long-window-1", "", "books", 1.0), ("long-window-2", "", "books", 1.0),
    ]  # fmt: skip


@pytest.mark.parametrize(("count", "expected"), [(12, 0), (14, 0), (15, 1), (21, 1), (22, 2)])
def test_texts_that_are_hardly_longer_have_no_window(count, expected):
    assert len(windows(row(" ".join(LONG[:count])), 9)) == expected


def test_the_model_reads_a_window_whole():
    known = [WORDS[i % 13] for i in range(40)]
    found = windows(row(" ".join(known)), 9)
    ids = encode(found, tokenizer(), 14, DOMAINS).inputs["input_ids"]
    assert [ids[i].tolist()[1:-1] for i in range(4)] == [tokenizer().convert_tokens_to_ids(one) for one in words(found)]


def test_a_tokenizer_that_keeps_the_end_of_a_text_gets_the_windows_before_it():
    tokens = tokenizer()
    tokens.truncation_side = "left"
    assert words(windows(row(" ".join(LONG)), 2, tokens=tokens)) == [LONG[:12], LONG[14:26]]


def test_of_a_pair_the_text_that_is_cut_moves_and_the_other_stays():
    second = windows(row("good plot", " ".join(LONG), "pair"), 1)
    assert words(second) == [["good", "plot"]] and words(second, "text_b") == [LONG[-9:]]  # 3 special tokens, 2 words
    first = windows(row(" ".join(LONG), "good plot", "pair"), 2)
    assert words(first)[-1] == LONG[-9:] and words(first, "text_b") == [["good", "plot"]] * 2
    passage = windows(row(" ".join(LONG), "good plot", "passage"), 1)
    assert words(passage) == [LONG[-9:]]


def test_a_passage_moves_however_long_its_question_is():
    """A passage alone is cut, also where the question takes more room than it."""
    one = row(" ".join(LONG), " ".join(LONG[:6]), "passage")
    found = windows(one, 2)
    assert words(found) == [LONG[18:23], LONG[35:]] and words(found, "text_b") == [LONG[:6]] * 2
    (ids,) = encode([one], tokenizer(), 14, DOMAINS).inputs["input_ids"]
    assert ids.tolist().index(tokenizer().sep_token_id) == 6  # [CLS] and the 5 words that a window has


def test_a_pair_of_two_long_texts_has_no_windows():
    assert windows(row(" ".join(LONG), " ".join(LONG[:6]), "pair"), 3) == []
    assert windows(row(" ".join(LONG[:6]), " ".join(LONG), "passage"), 3) == []  # text_b is never cut


def test_windows_end_at_words():
    text = " ".join(["goodplot"] * 20)  # unknown as a whole, so that a word is one token
    tokens = tokenizer()
    assert set(windows(row(text), 3)[0].text_a.split()) == {"goodplot"}
    found = windows(row("good-plot " * 20), 2, 13, tokens)  # three tokens a word, and room for 11
    assert {word for one in words(found) for word in one} == {"good-plot"}


def test_a_text_without_blanks_is_cut_between_tokens():
    found = windows(row("good-plot-" * 20), 1, 13)
    assert found[0].text_a.endswith("-plot-") and len(found[0].text_a) < 60


def test_questions_with_choices_and_marked_spans_are_refused():
    with pytest.raises(TeachbackError, match="TRANSFER_WINDOWS=1: the rows of cause are questions with choices"):
        windows(Row("0", "good", "bad ||| plot", "first", "cause"), 1)
    marked = {"books": replace(BOOKS, marks=("*",))}
    with pytest.raises(TeachbackError, match="the rows of books have marked spans"):
        further_windows([row("good")], marked, tokenizer(), 14, 1)


def test_the_tokenizer_stays_as_it_was():
    tokens = tokenizer()
    tokens("good plot", truncation=True, max_length=5)
    before = tokens.backend_tokenizer.to_str()
    windows(row(" ".join(LONG)), 2, tokens=tokens)
    assert tokens.backend_tokenizer.to_str() == before
