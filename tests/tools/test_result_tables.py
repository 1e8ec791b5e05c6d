"""The README's tables are those of the recorded results."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from icnet_deploy.benchmarks.measurement import read_measurements, write_measurements
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.evaluate.records import RECORDS
from tools import result_tables
from tools.result_tables import main, with_tables

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def test_the_readme_is_up_to_date(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["--check"]) == 0


PAGES = [page for page in sorted(ROOT.glob("docs/**/*.md")) if "<!-- results: " in page.read_text()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_pages_are_up_to_date(page):
    own = ROOT / "docs" / "evidence" / page.stem  # of a page whose results would swell the README
    results = own if own.is_dir() else RESULTS
    assert main(["--check", "--readme", str(page), "--results", str(results)]) == 0


def test_recorded_results_name_no_path_of_a_machine():
    files = sorted(RESULTS.glob("*.json"))
    assert files
    for file in files:
        result = json.loads(file.read_text("utf-8"))
        assert result["schema"] in (1, 2, 3)
        rows = result.get("rows", [])
        model = [result["model"]] if "model" in result else [r.get("artefact", "") for r in rows]
        assert not any(Path(m).is_absolute() for m in model)
    for file in sorted(set(RESULTS.rglob("*.jsonl")) - {RESULTS / RECORDS.name}):
        for each in read_measurements(file):
            told = {**each.subject, **each.setting}.values()
            assert not any(isinstance(v, str) and Path(v).is_absolute() for v in told)


def test_a_changed_number_is_noticed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    text = Path("README.md").read_text("utf-8")
    start = text.index("<!-- results: speed -->")
    (tmp_path / "README.md").write_text(text[:start] + text[start:].replace("| ", "| 9", 9))
    assert main(["--check", "--readme", str(tmp_path / "README.md")]) == 1
    assert main(["--readme", str(tmp_path / "README.md")]) == 0
    assert (tmp_path / "README.md").read_text("utf-8") == text


def test_an_unknown_table_is_refused():
    with pytest.raises(InputError, match="no table"):
        with_tables("<!-- results: nosuch -->\n<!-- end -->", [])


def test_a_difference_is_shown_with_its_interval_if_it_was_recorded(tmp_path):
    """Results of before there were intervals are read, too; photos have no mIoU by labels."""
    rows = json.loads((RESULTS / "parity-scenes-1024x2048.json").read_text())["rows"]
    row = next(each for each in rows if each["precision"] == "int8")
    interval = {"value": -0.021, "low": -0.0519, "high": 0.009}
    results = [
        {"kind": "parity", "rows": [{**row, "miou_difference_points": points}], **more}
        for points, more in (
            (-0.021, {}),
            (interval, {"labelled": True}),
            (interval, {"labelled": False}),
        )
    ]
    page = with_tables("<!-- results: parity -->\n<!-- end -->", results)
    shown = [line.split(" | ")[3] for line in page.splitlines() if line.startswith("| int8")]
    assert shown == ["-0.021", "-0.021 [-0.052, +0.009]", "-"]


def test_a_table_says_what_was_measured_with_a_checkpoint_of_before(timed):
    """The README must not claim the numbers of a file that is no longer there."""
    (earlier,) = result_tables._EARLIER
    row = json.loads((RESULTS / "parity-scenes-1024x2048.json").read_text())["rows"][0]
    now, before = (
        {"kind": "parity", "rows": [row], "references": [{"weights_sha256": digest}]}
        for digest in ("f" * 64, earlier)
    )
    speed = replace(timed("old", [1.0] * 9), subject={"name": "old", "sha256": earlier})
    measured = {"kind": "measurements", "rows": [speed]}

    def page(table, *results):
        return with_tables(f"<!-- results: {table} -->\n<!-- end -->", results)

    line = "are of the checkpoint that was shipped"
    assert line not in page("parity", now)
    assert line not in page("parity", now, measured)  # it is no row of this table
    assert line in page("parity", now, before)
    assert line in page("parity", before)
    assert line in page("latency", measured)


def test_a_score_has_its_interval_where_images_were_counted():
    """Those of version 0.1 were not; the classes stand side by side for each size."""
    old = json.loads((ROOT / "docs/evidence/earlier/street-before-camvid-544x704.json").read_text())
    rng = np.random.default_rng(1)
    names = list(old["score"]["iou_percent"])
    images = []
    for place in range(12):
        truth = rng.integers(1000, 2000, len(names))
        right = truth - rng.integers(100, 500, len(names))
        counts = {"truth": truth, "right": right, "predicted": right}
        told = {"name": str(place), "group": str(place), "small_regions": 4, "small_right": 3.0}
        images.append(told | {key: value.tolist() for key, value in counts.items()})
    new = {**old, "images": images, "protocol": {**old["protocol"], "model_size": "9x9"}}

    page = with_tables("<!-- results: scores -->\n<!-- end -->", [old, new])
    before, now = (line.split(" | ")[2:] for line in page.splitlines()[-4:-2])
    assert before[0] == f"{old['score']['miou_percent']:.1f}"
    assert re.fullmatch(r"\d\d\.\d \[\d\d\.\d, \d\d\.\d\]", now[0])
    assert now[2].startswith("75.0 [75.0, 75.0]")

    page = with_tables("<!-- results: classes -->\n<!-- end -->", [old, new])
    assert re.search(r"\| camvid val: IoU % \| 9x9 \|", page)
    assert all(f"| {name} | " in page for name in names)


def test_each_kind_of_benchmark_has_its_tables_file_by_file(timed, tmp_path):
    kinds = ("latency", "throughput", "stages", "start", "memory", "paced")
    page = "".join(f"<!-- results: {kind} -->\n<!-- end -->\n" for kind in kinds)
    results = tmp_path / "results"
    write_measurements(results / "b.jsonl", [timed("second", [1.0] * 9)])
    found = [timed("first", [1.0] * 9), timed("paced", [1.0] * 9, kind="paced")]
    write_measurements(results / "a.jsonl", found)
    readme = tmp_path / "page.md"
    readme.write_text(page)
    argv = ["--readme", str(readme), "--results", str(results)]
    assert main(argv) == 0
    tables = dict(zip(kinds, readme.read_text().split("<!-- end -->"), strict=False))
    assert tables["latency"].index("| first |") < tables["latency"].index("| second |")
    assert tables["latency"].count("| 1.00 |") == 2  # each file has a first row of its own
    assert "| paced |" in tables["paced"]
    assert "|" not in tables["start"]
    assert main([*argv, "--check"]) == 0
