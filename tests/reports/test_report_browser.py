"""Tests of report.html in headless Chromium, at the widths of a desktop and a phone; skipped without Chromium."""

import json

import pytest
from browser import CHROMIUM, browser
from test_report import TEACHER_SAYS, write_data, write_predictions, write_results, write_run, write_stage

from teachback.reports.run_page import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome")

LONG = "a_domain_with_a_name_that_is_much_longer_than_any_column_and_has_no_place_to_break_it"
# JavaScript that lists texts of a figure that overlap clearly, and texts that extend beyond their figure.
CLASHES = """
(() => {
  const found = [];
  for (const svg of document.querySelectorAll('figure svg')) {
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
    texts.forEach(([word, box], i) => {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        found.push(word + ' leaves its figure');
      for (const [other, its] of texts.slice(i + 1)) {
        const width = Math.min(box.right, its.right) - Math.max(box.left, its.left);
        const height = Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top);
        if (width > 2 && height > 4) found.push(word + ' lies on ' + other);
      }
    });
  }
  return JSON.stringify(found);
})()
"""
# JavaScript that computes the lowest contrast (WCAG 2) between the text of an element and the page.
CONTRAST = """
(() => {
  const light = colour => {
    const [r, g, b] = colour.match(/[0-9.]+/g).map(Number).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const ratio = ink => (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
  const words = [...document.querySelectorAll('p, th, td, h1, h2, h3, h4, a, dt, dd, figcaption, summary')].map(e => getComputedStyle(e).color);
  const drawn = [...document.querySelectorAll('svg text')].map(e => getComputedStyle(e).fill);
  return Math.min(...[...words, ...drawn].map(light).map(ratio));
})()
"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Report with a long domain name, many domains and labels, and a long setting without blanks."""
    home = tmp_path_factory.mktemp("home")
    run = write_run(home, ("books", LONG, *(f"domain{i}" for i in range(9))))
    write_stage(run, "teacher-meta", {"teacher": "meta", "student_model": "x" * 300})
    labels = [f"label number {i}" for i in range(12)]
    rows = [(f"g{i}", LONG, labels[i % 12], labels[i * 5 % 12], 0.5) for i in range(40)]
    write_predictions(
        run,
        "teacher-meta",
        rows + [(f"books-{i}", "books", "", said, p) for i, (said, p) in enumerate(TEACHER_SAYS)],
        labels,
    )
    write_predictions(
        run, f"{LONG}/student_second", [(g, d, gold, labels[0], 0.9) for g, d, gold, _, _ in rows], labels
    )
    return write_report(run, home / "data/tiny")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_the_page_fits_its_window_without_overlaps_and_with_enough_contrast(tab, page, width, dark):
    tab.open(page, width, dark)
    assert tab.evaluate("document.documentElement.scrollWidth") == tab.evaluate("document.documentElement.clientWidth")
    assert tab.evaluate("document.documentElement.clientWidth") >= width - 20  # less the width of a scroll bar
    assert json.loads(tab.evaluate(CLASHES)) == []
    assert tab.evaluate(CONTRAST) > 4.5
    assert tab.addresses() == [page.as_uri()] and tab.problems() == []
    channel = int(tab.evaluate("getComputedStyle(document.body).backgroundColor").split("(")[1].split(",")[0])
    assert (channel < 60) == dark


def test_text_of_figures_is_large_enough_on_a_phone(tab, page):
    tab.open(page, 390)
    size = "parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.clientWidth / t.ownerSVGElement.viewBox.baseVal.width"
    shown = "[...document.querySelectorAll('figure svg text')].filter(t => t.ownerSVGElement.clientWidth)"
    assert tab.evaluate(f"Math.min(...{shown}.map(t => {size}))") > 8
    assert tab.evaluate("document.querySelectorAll('figure svg').length") > 10


@pytest.mark.parametrize(("width", "form"), [(1280, "wide"), (390, "narrow")])
def test_a_single_figure_has_the_full_width_and_is_drawn_wide_on_desktops_only(tab, page, width, form):
    tab.open(page, width)
    alone = "[...document.querySelectorAll('.alone:has(.wide) svg')].filter(e => e.clientWidth)"
    forms = json.loads(tab.evaluate(f"JSON.stringify({alone}.map(e => e.parentElement.className))"))
    assert forms == [form] * tab.evaluate("document.querySelectorAll('.alone:has(.wide)').length") and forms
    assert tab.evaluate(f"Math.max(...{alone}.map(e => Math.abs(e.clientWidth - e.closest('.figures').clientWidth)))") <= 1


def test_a_hint_that_tables_scroll_is_shown_on_phones_only(tab, page):
    hints = "[...document.querySelectorAll('.hint')].filter(e => e.checkVisibility()).length"
    tab.open(page, 390)
    assert tab.evaluate(hints) > 0
    tab.open(page, 1280)
    assert tab.evaluate(hints) == 0


def test_wide_tables_scroll_within_their_container(tab, page):
    tab.open(page, 390)
    wider = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
    assert tab.evaluate(wider) > 0
    assert tab.evaluate(
        "[...document.querySelectorAll('.scroll')].every(e => e.getBoundingClientRect().right <= innerWidth)"
    )


def test_print_is_light_complete_and_fits_the_paper(tab, page):
    tab.open(page, 794, dark=True, media="print")  # A4 at 96 dots per inch
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate("document.documentElement.scrollWidth") <= 794
    assert tab.evaluate(
        "[...document.querySelectorAll('details table')].every(t => t.checkVisibility({contentVisibilityAuto: true}))"
    )


def test_a_report_on_regression_fits_a_phone(tab, tmp_path):
    run = tmp_path / "outputs/tiny/seed42"
    write_data(tmp_path, ("sts",), task="regression")
    write_stage(run, "teacher-meta", {"teacher": "meta"})
    write_results(run, [("sts", "teacher-meta", "pearson+spearman", 0.8, 3)])
    path = write_report(run, tmp_path / "data/tiny")
    tab.open(path, 390)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    assert json.loads(tab.evaluate(CLASHES)) == []
