"""One table, in a terminal, in HTML and in Markdown."""

from unittest.mock import Mock

import pytest
from report_page import Reader

from icnet_deploy.report.html import tag
from icnet_deploy.report.tables import Table, number, signed

TABLE = Table(
    ["name", "kind", "n"], [["a", "x", "1"], ["bcdef", "yy", "22"]], 2, ["A note.", "Another."]
)


def test_numbers_are_shown_to_so_many_decimals_and_what_is_none_is_a_dash():
    assert number(None) == number(float("nan")) == signed(None) == signed(float("nan")) == "-"
    assert number(1.005, 1) == "1.0"
    assert [number(value) for value in (0, -0.5, 1234.567)] == ["0.00", "-0.50", "1234.57"]
    assert [signed(v) for v in (0.0, -0.0, -0.0001, 0.5, -0.5)] == [
        *["0.000"] * 3,
        *("+0.500", "-0.500"),
    ]


def test_in_a_terminal_words_stand_left_and_numbers_right():
    assert TABLE.text().splitlines() == [
        "name   kind   n",
        "-----  ----  --",
        "a      x      1",
        "bcdef  yy    22",
        "A note.",
        "Another.",
    ]
    one = Table(["name", "n"], [["a", "1"], ["bcdef", "22"]])
    assert one.text().splitlines() == ["name    n", "-----  --", "a       1", "bcdef  22"]
    assert Table(["name", "n"], []).text().splitlines() == ["name  n", "----  -"]


def test_what_is_wider_than_the_terminal_is_folded_and_every_part_says_what_a_row_is_of():
    wide = Table(
        ["file", "on", "a", "b", "c"],
        [["x", "cpu", "1", "22", "333"], ["y", "gpu", "4", "5", "6"]],
        left=2,
        keys=2,
        notes=["A note."],
    )
    assert wide.text(21) == wide.text()  # pytest's output is no terminal
    assert wide.text(20).splitlines() == [
        *("file  on   a   b", "----  ---  -  --", "x     cpu  1  22", "y     gpu  4   5", ""),
        *("file  on     c", "----  ---  ---", "x     cpu  333", "y     gpu    6"),
        "A note.",
    ]
    assert wide.text(1).count("file") == 3  # a column a part, where nothing has room


def test_the_terminal_says_how_wide_it_is(monkeypatch):
    monkeypatch.setattr("sys.stdout", Mock(isatty=lambda: True))
    monkeypatch.setenv("COLUMNS", "8")
    assert TABLE.text() == TABLE.text(8) != TABLE.text(80)


def test_a_row_that_is_too_short_is_an_error():
    with pytest.raises((ValueError, IndexError)):
        Table(["a", "b"], [["1"]]).text()


def test_in_html_it_scrolls_its_numbers_stand_right_and_text_is_escaped():
    badge = tag("b", "ok")
    shown = Table(["<name>", "n"], [["a&b", badge]], notes=["not here"]).html()
    reader = Reader(shown)
    assert reader.elements[0] == ("div", {"class": "scroll"})
    assert [one for one in reader.elements if one[0] in ("th", "td")] == [
        ("th", {}),
        ("th", {"class": "n"}),
        ("td", {}),
        ("td", {"class": "n"}),
    ]
    assert reader.text == ["<name>", "n", "a&b", "ok"]
    assert badge in shown


def test_in_markdown_a_row_is_a_line():
    assert TABLE.markdown() == (
        "| name | kind | n |\n| --- | --- | --- |\n| a | x | 1 |\n| bcdef | yy | 22 |\n"
    )
    assert TABLE.markdown(right=True).splitlines()[1] == "| --- | --- | ---: |"


def test_columns_are_left_out_by_their_names():
    without = TABLE.without({"kind", "unknown"})
    assert without == Table(
        ["name", "n"], [["a", "1"], ["bcdef", "22"]], 1, ["A note.", "Another."]
    )
    assert TABLE.without(["n"]).left == 2
    assert TABLE.without([]) == TABLE
