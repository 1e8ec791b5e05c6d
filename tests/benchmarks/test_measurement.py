"""Measurements: kept whole, and read back only if nothing is missing."""

from __future__ import annotations

import json

import pytest

from icnet_deploy.benchmarks.measurement import (
    SCOPES,
    Measurement,
    read_measurements,
    write_measurements,
)
from icnet_deploy.errors import InputError

HERE = {"machine": {"cpu": "a cpu", "cores": 2}, "versions": {"numpy": "2"}}


def one(**changes):
    told = {
        "kind": "latency",
        "scope": "network",
        "subject": {"name": "a", "runtime": "openvino"},
        "setting": {"size": [4, 8], "batch": 1},
        "values": {"median_ms": 7.0},
    }
    return Measurement(**{**told, **HERE, **changes})


def test_what_was_written_is_read(tmp_path):
    found = [one(), one(kind="memory", scope="process")]
    write_measurements(tmp_path / "a.jsonl", found)
    assert read_measurements(tmp_path / "a.jsonl") == found
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["covers"] for line in lines] == [SCOPES["network"], SCOPES["process"]]


def test_a_measurement_is_of_this_machine_unless_it_says_otherwise():
    here = Measurement("latency", "network", {"name": "a"}, {}, {})
    assert here.machine["cores"] >= 1
    assert "numpy" in here.versions


def test_an_unknown_scope_is_refused():
    with pytest.raises(ValueError, match="no scope 'everything'"):
        one(scope="everything")


def summary(**fields):
    return {"runs": 1, "median_ms": 1.0, "samples_ms": [1.0], **fields}


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.pop("machine"),  # or it would be said to be of this one
        lambda line: line.update(schema=1),
        lambda line: line.update(scope="everything"),
        lambda line: line.update(more=1),
        lambda line: line["subject"].pop("name"),
        lambda line: line.update(kind=None),
        lambda line: line.update(values=[]),
        lambda line: line.update(setting="16 threads"),
        lambda line: line["values"].update(total={"samples_ms": ["1.0"]}),
        lambda line: line["values"].update(rate=float("nan")),
        lambda line: line["values"].update(total=summary(samples_ms=[-1.0])),
        lambda line: line["values"].update(total=summary(samples_ms=[1.0, True])),
        lambda line: line["values"].update(total=summary(median_ms="1.0")),
        lambda line: line["values"].update(total=summary(median_ms=None)),
        lambda line: line["values"].update(total=summary(median_ms=0)),
        lambda line: line["values"].update(total=1.0),
        lambda line: line["values"].update(inference=1.0),
        lambda line: line["values"].update(rate="fast"),
        lambda line: line["values"].clear(),
        lambda line: line["setting"].pop("size"),
        lambda line: line["setting"].update(size=[96, 128, 3]),
        lambda line: line["setting"].pop("batch"),
    ],
)
def test_a_line_that_is_not_as_it_is_written_is_refused(tmp_path, change):
    line = one().to_dict()
    change(line)
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    refused = r"a\.jsonl, line 1, is not a measurement in the form that `icnet benchmark"
    with pytest.raises(InputError, match=refused):
        read_measurements(tmp_path / "a.jsonl")


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_what_is_no_such_file_is_one_line(tmp_path, text):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"a\.jsonl.* \(JSON Lines\)"):
        read_measurements(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="cannot read"):
        read_measurements(tmp_path / "no.jsonl")
