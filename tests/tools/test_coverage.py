"""Intervals cover as often as they say: in worlds of real counts, and in the recorded result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.coverage import Case, cases, coverage, faults, main, markdown, read_counts, worlds

RESULT = Path("benchmarks/results/coverage-camvid.json")


@pytest.mark.parametrize(
    ("case", "draws"),
    [
        (Case("all", 50), 250),
        (Case("bicyclist on 5", 50), 250),
        (Case("fence on 3", 10), 200),
        (Case("val", 101, 0.8), 80),
    ],
    ids=str,
)
def test_intervals_cover(case, draws):
    found = coverage(case, draws, seed=1)
    error = (95 * 5 / draws) ** 0.5  # of a share of 95 %
    assert faults(case, found, slack=3 * error) == []
    if case.correlation:
        # What is covered if frames are taken for independent: certainty that nobody has.
        assert found["mIoU, frames taken for independent"] < 65


def test_the_recorded_result_holds_every_bound():
    result = json.loads(RESULT.read_text())
    assert result["draws"] >= 2000
    assert result["date"]
    assert result["versions"]["numpy"]
    assert [one["drawn"] for one in result["cases"]] == [str(case) for case in cases()]
    for case, one in zip(cases(), result["cases"], strict=True):
        assert faults(case, one["percent"]) == []


def test_a_coverage_out_of_bounds_is_a_fault():
    few, many, drive = Case("val", 20), Case("val", 50), Case("val", 101, 0.8)
    looks = Case("val", 80, looks=True)
    assert faults(looks, {"mIoU": 95.0, "all classes": 99.5, "pixels alike": 90.0}) == []
    assert len(faults(looks, {"mIoU": 94.9, "all classes": 94.9, "pixels alike": 89.9})) == 3
    assert faults(many, {"mIoU": 92.9}) != []
    assert faults(many, {"mIoU": 97.1}) != []
    assert faults(few, {"mIoU": 90.0}) == []
    assert faults(few, {"mIoU": 89.9}) != []
    assert faults(drive, {"mIoU": 79.9}) != []
    assert faults(drive, {"mIoU": 80.0, "mIoU, frames taken for independent": 48.0}) == []


def test_worlds_are_of_real_frames_and_hold_rare_classes():
    counts = read_counts()
    assert len(counts.ours) == len(counts.theirs) == len(counts.alike) == 468
    for name, images in (("fence on 3", 3), ("bicyclist on 5", 5)):
        own = counts.classes.index(name.split(" ")[0])
        assert sum(counts.ours[i].truth[own] > 0 for i in worlds()[name]) == images
    assert {one.name for one in counts.ours}.isdisjoint({""})
    assert [one.name for one in counts.ours] == [one.name for one in counts.theirs]


def test_the_command_writes_its_result_and_its_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tools.coverage.cases", lambda: [Case("val", 10)])
    out = tmp_path / "coverage.json"
    assert main(["--draws", "5", "--jobs", "1", "-o", str(out)]) in (0, 1)
    result = json.loads(out.read_text())
    assert result["cases"][0]["drawn"] == "val, 10 independent images"
    assert "val, 10 independent images" in capsys.readouterr().out
    (row,) = [line for line in markdown([result]).splitlines() if "10 independent" in line]
    shares = result["cases"][0]["percent"].values()
    assert f"{min(shares):.0f} to {max(shares):.0f}" in row
