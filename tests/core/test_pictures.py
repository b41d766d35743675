"""Pictures that cannot be drawn are left out with a warning; errors of the disk are raised."""

import errno

import pytest

from teachback.core.errors import TeachbackError
from teachback.core.pictures import plot_failure_as_warning, save_png
from teachback.reports.figures import picture


def impossible(axes):
    raise ValueError("Too many bins for data range")


def test_a_picture_that_cannot_be_drawn_is_left_out_with_a_warning(tmp_path, caplog):
    save_png(impossible, tmp_path / "scores.png", "Scores")
    assert not list(tmp_path.iterdir())
    assert f"{tmp_path / 'scores.png'} is left out because it could not be drawn: ValueError: Too many bins" in caplog.text


def test_a_page_shows_a_notice_in_place_of_a_picture_that_fails(caplog):
    figure = picture("Scores", impossible, "Bar chart", "All are one.")
    assert "could not be drawn" in figure.svg and figure.reading == "All are one." and "Scores is left out" in caplog.text
    assert picture("Scores", lambda axes: axes.plot([1, 2]), "Line chart", "It rises.").svg.startswith("<svg")


@pytest.mark.filterwarnings("error")
def test_labels_are_not_parsed_as_formulas_and_missing_glyphs_are_accepted(tmp_path, caplog):
    save_png(lambda axes: axes.plot([1, 2], label="$\\frac{$ x^ \u4e2d"), tmp_path / "a.png", r"$\nonsense{$")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG") and not caplog.text


def test_errors_that_the_user_can_fix_are_raised(tmp_path):
    with pytest.raises(TeachbackError), plot_failure_as_warning("x"):
        raise TeachbackError("mend it")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as refused:
        save_png(lambda axes: axes.plot([1, 2]), tmp_path / "file" / "a.png", "Title")
    assert refused.value.errno in (errno.ENOTDIR, errno.EEXIST)
