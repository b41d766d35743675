from dataclasses import replace

import pytest
from tiny import BOOKS, CAUSE, WORDS, tokenizer

from teachback.core.errors import TeachbackError
from teachback.data.encoding import encode
from teachback.data.schema import Domain, Row
from teachback.data.windows import further_windows

PAIR, PASSAGE = Domain("pair", "pair", ("no", "yes"), kind="pair"), Domain("passage", "passage", ("no", "yes"), kind="pair", truncate="text_a")
DOMAINS = {domain.name: domain for domain in (BOOKS, CAUSE, PAIR, PASSAGE)}
LONG = [f"word{i}" for i in range(40)]  # one token each


def row(text_a, text_b="", domain="books"):
    return Row("long", text_a, text_b, "positive" if domain == "books" else "yes", domain, 0.3)


def windows(one, most, length=14, tokens=None):
    """Further windows of a row; 14 tokens have room for 12 words, each of one token."""
    return further_windows([one], DOMAINS, tokens or tokenizer(), length, most)


def words(rows, column="text_a"):
    return [getattr(one, column).split() for one in rows]


def test_enough_windows_cover_the_text_and_overlap_by_at_least_a_quarter():
    found = words(windows(row(" ".join(LONG)), 9))
    assert found == [LONG[start : start + 12] for start in (7, 14, 21, 28)]  # the last window ends where the text ends


def test_few_windows_are_evenly_spaced_and_the_last_is_at_the_end():
    text = " ".join(LONG)
    assert words(windows(row(text), 2)) == [LONG[14:26], LONG[28:]]
    assert words(windows(row(text), 1)) == [LONG[28:]] and windows(row(text), 0) == []


def test_windows_have_no_label_a_weight_of_one_and_their_own_guids():
    found = windows(row(" ".join(LONG)), 2)
    assert [(one.guid, one.label, one.domain, one.weight) for one in found] == [
        ("long-window-1", "", "books", 1.0), ("long-window-2", "", "books", 1.0),
    ]  # fmt: skip


@pytest.mark.parametrize(("count", "expected"), [(12, 0), (14, 0), (15, 1), (21, 1), (22, 2)])
def test_texts_slightly_longer_than_a_window_have_no_further_window(count, expected):
    assert len(windows(row(" ".join(LONG[:count])), 9)) == expected


def test_windows_are_encoded_without_truncation():
    known = [WORDS[i % 13] for i in range(40)]
    found = windows(row(" ".join(known)), 9)
    ids = encode(found, tokenizer(), 14, DOMAINS).inputs["input_ids"]
    assert [ids[i].tolist()[1:-1] for i in range(4)] == [tokenizer().convert_tokens_to_ids(one) for one in words(found)]


def test_with_left_truncation_the_further_windows_precede_the_end():
    tokens = tokenizer()
    tokens.truncation_side = "left"
    assert words(windows(row(" ".join(LONG)), 2, tokens=tokens)) == [LONG[:12], LONG[14:26]]


def test_windows_of_a_pair_move_over_the_truncated_text_only():
    second = windows(row("good plot", " ".join(LONG), "pair"), 1)
    assert words(second) == [["good", "plot"]] and words(second, "text_b") == [LONG[-9:]]  # 14 tokens, less 3 special tokens and 2 words
    first = windows(row(" ".join(LONG), "good plot", "pair"), 2)
    assert words(first)[-1] == LONG[-9:] and words(first, "text_b") == [["good", "plot"]] * 2
    passage = windows(row(" ".join(LONG), "good plot", "passage"), 1)
    assert words(passage) == [LONG[-9:]]


def test_windows_move_over_a_passage_even_if_its_question_is_longer():
    """Only the passage is truncated, even if the question takes more room."""
    one = row(" ".join(LONG), " ".join(LONG[:6]), "passage")
    found = windows(one, 2)
    assert words(found) == [LONG[18:23], LONG[35:]] and words(found, "text_b") == [LONG[:6]] * 2
    (ids,) = encode([one], tokenizer(), 14, DOMAINS).inputs["input_ids"]
    assert ids.tolist().index(tokenizer().sep_token_id) == 6  # [CLS] and 5 words, as many as a window has


def test_a_pair_of_two_long_texts_has_no_windows():
    assert windows(row(" ".join(LONG), " ".join(LONG[:6]), "pair"), 3) == []
    assert windows(row(" ".join(LONG[:6]), " ".join(LONG), "passage"), 3) == []  # windows never move over a question


def test_windows_consist_of_whole_words():
    text = " ".join(["goodplot"] * 20)  # each word is one unknown token
    tokens = tokenizer()
    assert set(windows(row(text), 3)[0].text_a.split()) == {"goodplot"}
    found = windows(row("good-plot " * 20), 2, 13, tokens)  # three tokens per word, and room for 11 tokens
    assert {word for one in words(found) for word in one} == {"good-plot"}


def test_a_text_without_blanks_is_divided_between_tokens():
    found = windows(row("good-plot-" * 20), 1, 13)
    assert found[0].text_a.endswith("-plot-") and len(found[0].text_a) < 60


def test_questions_with_choices_and_marked_spans_are_refused():
    with pytest.raises(TeachbackError, match="TRANSFER_WINDOWS=1: the rows of cause are questions with choices"):
        windows(Row("0", "good", "bad ||| plot", "first", "cause"), 1)
    marked = {"books": replace(BOOKS, marks=("*",))}
    with pytest.raises(TeachbackError, match="the rows of books have marked spans"):
        further_windows([row("good")], marked, tokenizer(), 14, 1)


def test_the_settings_of_the_tokenizer_are_left_unchanged():
    tokens = tokenizer()
    tokens("good plot", truncation=True, max_length=5)
    before = tokens.backend_tokenizer.to_str()
    windows(row(" ".join(LONG)), 2, tokens=tokens)
    assert tokens.backend_tokenizer.to_str() == before
