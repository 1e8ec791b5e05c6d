"""The HTML report of measurements: whole, escaped, and with every sample."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from icnet_deploy.benchmarks.measurement import SCOPES, write_measurements
from icnet_deploy.benchmarks.measurement_report import report_page

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
NASTY = "a<i onclick=x>&'\"b"


@pytest.fixture
def found(timed):
    """Two latencies, a bare one, and a start."""
    start = timed("s", [900.0] * 6, kind="start", scope="process", setting={"cache": "cold"})
    start.values["operators"] = [{"name": NASTY, "kind": "Conv", "runs": 3, "median_ms": 1.5}]
    return [
        timed("slow", [20.0, 21.0, 40.0] * 3),
        timed(NASTY, [10.0] * 9),
        timed("bare", [9.0] * 9, scope="network"),
        start,
    ]


def test_it_has_the_headline_the_tables_and_all_samples(found):
    page = report_page({"": found})
    assert page.startswith("<!doctype html>")
    assert "<b>10.0 ms</b>" in page
    assert "<b>100.0</b>" in page
    assert "<b>0.48</b>" in page  # of the time of the first
    assert "<b>900 ms</b>" in page
    for scope in ("image-to-labels", "network", "process"):
        assert f"Covers ({scope}): {SCOPES[scope]}." in page.replace("&#x27;", "'")
    assert page.count("<circle") == 27  # every latency sample, of both scopes
    assert "cache: cold" in page
    assert "a cpu" in page


def test_it_is_escaped_and_fetches_nothing(found):
    page = report_page({"": found})
    assert "<i onclick" not in page
    assert "a&lt;i onclick=x&gt;" in page
    assert not re.search(r"<(script|link|iframe|img)|url\(|@import", page)
    body = page.partition("<body>")[2].partition("</body>")[0]
    ElementTree.fromstring(body)  # elements nest


def test_several_files_stand_apart(found, run, tmp_path):
    for name in ("a", "b"):
        write_measurements(tmp_path / f"{name}.jsonl", found)
    files, out = (tmp_path / "a.jsonl", tmp_path / "b.jsonl"), tmp_path / "report.html"
    assert run("benchmark", "report", *files, "-o", out).code == 0
    page = out.read_text()
    assert "<h2>a.jsonl</h2>" in page
    assert "<h2>b.jsonl</h2>" in page
    assert "of the time of" not in page  # no ratio of what was not taken in turn


def test_recorded_latencies_and_scores_make_the_paper_s_figure(run, tmp_path):
    out = tmp_path / "report.html"
    scores = RESULTS / "parity-scenes-1024x2048.json"
    done = run("benchmark", "report", *RESULTS.glob("latency-*.jsonl"), "--miou", scores, "-o", out)
    assert done.code == 0, done.err
    assert "Frames a second against mIoU" in out.read_text()
    assert run("benchmark", "report", scores, "-o", out).code == 2
