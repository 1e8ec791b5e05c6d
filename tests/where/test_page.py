"""The page that says where to change what names files that are there, and a test for each row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (an? [\w -]+?) \| (.+) \|$", PAGE, re.MULTILINE | re.IGNORECASE)


def paths(text):
    """The files and folders that a row names; `NAME` stands for a new one."""
    found = [each for each in re.findall(r"`([\w./-]+)`", text) if "/" in each]
    return [each.split("NAME")[0] for each in found]


@pytest.mark.parametrize(("what", "row"), ROWS)
def test_a_row_names_what_is_there_and_the_test_that_does_it(what, row):
    named = paths(row)
    assert len(named) >= 3
    assert [each for each in named if not (ROOT / each).exists()] == []
    (test,) = [each for each in named if each.startswith("tests/where/")]
    assert re.search(r"^def test_", (ROOT / test).read_text(encoding="utf-8"), re.MULTILINE)


def test_every_test_of_this_folder_has_a_row():
    tests = {f"tests/where/{f.name}" for f in (ROOT / "tests" / "where").glob("test_add_*.py")}
    assert tests == set(re.findall(r"tests/where/test_add_\w+\.py", PAGE))
    assert len(ROWS) == len(tests)


def test_a_path_that_is_gone_is_found():
    assert paths("`data/gone.py`, a row in `runtime/`, `Table` in `report/NAME.py`") == [
        "data/gone.py",
        "runtime/",
        "report/",
    ]
