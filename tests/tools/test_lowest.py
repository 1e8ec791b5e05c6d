"""What the lowest versions are, and what the tests say of them."""

from __future__ import annotations

import json

import pytest

from icnet_deploy.errors import CheckFailed
from tools import lowest

PINS = "numpy==1.26.0\ntorch==2.10.0 ; sys_platform == 'linux'\n"


@pytest.fixture
def asked(monkeypatch):
    """What uv and pytest would be asked, and what they answer."""
    calls = []

    def uv(*words):
        calls.append(words)
        return PINS

    monkeypatch.setattr(lowest, "_uv", uv)
    return calls


def test_the_lowest_and_the_newest_are_asked_for_from_wheels_alone(asked):
    assert lowest.resolved("3.11", lowest=True) == {"numpy": "1.26.0", "torch": "2.10.0"}
    assert lowest.resolved("3.14") == {"numpy": "1.26.0", "torch": "2.10.0"}
    first, second = (" ".join(words) for words in asked)
    assert "--resolution lowest-direct" in first
    assert "--resolution" not in second
    assert all(
        "--only-binary :all:" in words and "--extra train" in words for words in (first, second)
    )


@pytest.mark.parametrize(
    ("output", "line", "failed"),
    [
        ("..\n2 passed in 0.01s\n", "2 passed in 0.01s", []),
        (
            "FAILED tests/a.py::b - x\nERROR tests/c.py - y\n"
            "1 failed, 3 passed, 1 warning, 1 error in 61.02s (0:01:01)\n",
            "1 failed, 3 passed, 1 warning, 1 error in 61.02s (0:01:01)",
            ["tests/a.py::b", "tests/c.py"],
        ),
        ("===== 5 passed, 2 skipped in 1.00s =====\n", "5 passed, 2 skipped in 1.00s", []),
    ],
)
def test_the_closing_line_is_pytests_own(output, line, failed):
    assert lowest.closing(output) == (line, failed)


def test_tests_that_did_not_come_to_their_end_are_no_result():
    with pytest.raises(CheckFailed, match="did not finish"):
        lowest.closing("Segmentation fault\n")


def test_a_run_is_recorded_and_a_failure_is_no_success(asked, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(lowest, "_tests", lambda *_: ("1 failed in 2.00s", ["tests/a.py::b"]))
    argv = ["--folder", str(tmp_path / "env"), "--json", str(tmp_path / "lowest.json")]
    assert lowest.main(argv) == 1
    assert "failed with the lowest versions: tests/a.py::b" in capsys.readouterr().err
    found = json.loads((tmp_path / "lowest.json").read_text())
    assert found["failed"] == ["tests/a.py::b"]
    assert set(found["wheels"]) == {"3.12", "3.13", "3.14"}
    monkeypatch.setattr(lowest, "_tests", lambda *_: ("9 passed in 2.00s", []))
    assert lowest.main(argv) == 0


def test_uv_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(lowest.sys, "executable", "false")
    with pytest.raises(CheckFailed, match="uv pip compile"):
        lowest._uv("pip", "compile", "pyproject.toml")
