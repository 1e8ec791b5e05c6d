"""The record of `icnet verify`: what stays in it, and that it is read as it was written."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest

from icnet_deploy.errors import InputError
from icnet_deploy.runtime.auto.verdicts import (
    NAME,
    Entry,
    Verdicts,
    read_verdicts,
    write_verdicts,
)

A = Entry(
    "a.onnx",
    "a" * 64,
    "openvino",
    "cpu",
    "within",
    "",
    0.01,
    "2 images of scenes val, 64x96",
    "mIoU within 0.3 points",
    "2026-01-01T00:00:00+00:00",
    "a processor",
    {"openvino": "2026.4.1"},
    ("avx2", "avx512_vnni"),
    miou_difference_points={
        "value": 0.01,
        "low": -0.1,
        "high": 0.12,
        "groups": 40,
        "effective_images": 39.5,
    },
)


def test_the_record_keeps_what_was_found_elsewhere(tmp_path):
    on_gpu = replace(A, device="cuda")
    gone = replace(A, file="b.onnx", sha256="b" * 64)
    everywhere = replace(A, runtime=None, device=None, verdict="past")
    old = (on_gpu, replace(A, verdict="past"), everywhere, gone)
    new = Verdicts(old).renewed([A], [A.sha256])
    assert new.entries == (on_gpu, A)
    write_verdicts(tmp_path, new)
    assert read_verdicts(tmp_path) == new


FAILED = replace(A, verdict="past", reason="mIoU -2.0 points, at most 0.3 points lower")
UNSURE = replace(A, verdict="undecided", undecided="bus -0.9 points [-1.7, -0.1]")

NOT_A_VERDICT = [
    {"passed": "false"},
    {"passed": "true"},
    {"passed": 1},
    {"passed": None},
    {"passed": []},
    {"sha256": "a" * 63},
    {"sha256": "A" * 64},
    {"sha256": None},
    {"file": None},
    {"runtime": "OpenVINO"},
    {"runtime": ["openvino"]},
    {"device": "gpu"},
    {"device": 0},
    {"miou_points": "0.01"},
    {"miou_points": True},
    {"miou_points": float("nan")},
    {"miou_points": float("inf")},
    {"reason": None},
    {"cpu_flags": "avx2"},
    {"cpu_flags": [1]},
    {"versions": {"openvino": None}},
    {"versions": []},
    {"verdict": "passed"},
    {"verdict": None},
    {"undecided": None},
    {"miou_difference_points": 0.01},
    {"miou_difference_points": {"value": 0.01}},
    {"miou_difference_points": A.miou_difference_points | {"low": "0"}},
    {"miou_difference_points": A.miou_difference_points | {"value": 0.02}},
    {"miou_difference_points": A.miou_difference_points | {"low": 0.1}},
    # past, and contradicts itself
    {"verdict": "within"},
    {"verdict": "undecided", "undecided": "bus"},
    {"undecided": "bus"},
    # passed, and contradicts itself
    {"passed": True, "runtime": None},
    {"passed": True, "device": None},
    {"passed": True, "miou_points": None},
    {"passed": True, "reason": "mIoU differs"},
    {"passed": True, "verdict": "past"},
    {"passed": True, "verdict": "undecided"},
    {"passed": True, "undecided": "bus"},
    {"passed": True, "verdict": "undecided", "undecided": "bus", "miou_points": None},
    {"passed": True, "verdict": "undecided", "undecided": "bus", "runtime": None},
    {"passed": True, "verdict": "undecided", "undecided": "bus", "reason": "mIoU differs"},
]


@pytest.mark.parametrize("fields", NOT_A_VERDICT, ids=str)
def test_what_is_not_as_it_is_written_is_refused(tmp_path, fields):
    write_verdicts(tmp_path, Verdicts((A, FAILED)))
    path = tmp_path / NAME
    value = json.loads(path.read_text())
    value["verdicts"][0 if fields.get("passed") is True else 1] |= fields
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=f"{NAME} is not a record of `icnet verify"):
        read_verdicts(tmp_path)


YOUNGER = ("cpu_flags", "verdict", "undecided", "miou_difference_points")
NEEDED = [name for name in Entry.__dataclass_fields__ if name not in YOUNGER]


@pytest.mark.parametrize("name", [*NEEDED, "passed"])
def test_a_field_that_is_missing_is_refused(tmp_path, name):
    write_verdicts(tmp_path, Verdicts((A,)))
    path = tmp_path / NAME
    value = json.loads(path.read_text())
    del value["verdicts"][0][name]
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=f"{name} is missing"):
        read_verdicts(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        '"text"',
        "{}",
        '{"schema": "1", "kind": "verified", "verdicts": []}',
        '{"schema": true, "kind": "verified", "verdicts": []}',
        '{"schema": 1.0, "kind": "verified", "verdicts": []}',
        '{"schema": 1, "kind": "parity", "verdicts": []}',
        '{"schema": 1, "kind": "verified", "verdicts": {}}',
        '{"schema": 1, "kind": "verified", "verdicts": [null]}',
        '{"schema": 1, "kind": "verified", "verdicts": [[]]}',
        '{"schema": 1, "kind": "verified", "verdicts": [], "verdicts": []}',
        "[" * 100_000,
        "\ud800",
    ],
    ids=lambda text: text[:60],
)
def test_what_is_no_record_is_refused(tmp_path, text):
    (tmp_path / NAME).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=f"{NAME} is not a record"):
        read_verdicts(tmp_path)


def test_a_name_that_stands_twice_is_refused(tmp_path):
    write_verdicts(tmp_path, Verdicts((FAILED,)))
    path = tmp_path / NAME
    path.write_text(path.read_text().replace('"passed": false', '"passed": false, "passed": true'))
    with pytest.raises(InputError, match="a name stands twice"):
        read_verdicts(tmp_path)


def test_a_record_of_an_earlier_version_is_read(tmp_path):
    """The first of version 0.1 were without flags, and those until 0.2 knew no undecided."""
    write_verdicts(tmp_path, Verdicts((A, FAILED)))
    path = tmp_path / NAME
    value = json.loads(path.read_text())
    for entry in value["verdicts"]:
        for name in YOUNGER:
            del entry[name]
        entry["of a later version"] = 1
    path.write_text(json.dumps(value))
    unknown = {"cpu_flags": (), "miou_difference_points": None}
    assert read_verdicts(tmp_path).entries == (replace(A, **unknown), replace(FAILED, **unknown))


def test_an_earlier_version_reads_what_is_undecided_as_passed(tmp_path):
    """It knew: passed is true, and then there is a place, a difference and no reason."""
    write_verdicts(tmp_path, Verdicts((UNSURE,)))
    assert read_verdicts(tmp_path).entries == (UNSURE,)
    value = json.loads((tmp_path / NAME).read_text())
    (entry,) = value["verdicts"]
    assert (value["schema"], entry["passed"], entry["reason"]) == (1, True, "")
    assert None not in (entry["runtime"], entry["device"], entry["miou_points"])


def test_of_several_verdicts_of_one_file_the_worst_counts():
    for order in itertools.permutations((A, UNSURE, FAILED)):
        assert Verdicts(order).of(A.sha256, "openvino", "cpu") == FAILED
        passed = tuple(entry for entry in order if entry.passed)
        assert Verdicts(passed).of(A.sha256, "openvino", "cpu") == UNSURE
