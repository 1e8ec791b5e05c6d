"""The record of `icnet verify`: what stays in it, and that it is read as it was written."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from icnet_deploy.errors import InputError
from icnet_deploy.runtime.auto.verdicts import (
    NAME,
    Verdict,
    Verdicts,
    read_verdicts,
    write_verdicts,
)

A = Verdict(
    "a.onnx",
    "a" * 64,
    "openvino",
    "cpu",
    True,
    "",
    0.01,
    "2 images of scenes val, 64x96",
    "mIoU within 0.3 points",
    "2026-01-01T00:00:00+00:00",
    "a processor",
    {"openvino": "2026.4.1"},
    ("avx2", "avx512_vnni"),
)


def test_the_record_keeps_what_was_found_elsewhere(tmp_path):
    on_gpu = replace(A, device="cuda")
    gone = replace(A, file="b.onnx", sha256="b" * 64)
    everywhere = replace(A, runtime=None, device=None, passed=False)
    old = (on_gpu, replace(A, passed=False), everywhere, gone)
    new = Verdicts(old).renewed([A], [A.sha256])
    assert new.verdicts == (on_gpu, A)
    write_verdicts(tmp_path, new)
    assert read_verdicts(tmp_path) == new


FAILED = replace(A, passed=False, reason="mIoU differs by +2.0 points, at most 0.3 may it")

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
    # passed, and contradicts itself
    {"passed": True, "runtime": None},
    {"passed": True, "device": None},
    {"passed": True, "miou_points": None},
    {"passed": True, "reason": "mIoU differs"},
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


@pytest.mark.parametrize("name", [n for n in Verdict.__dataclass_fields__ if n != "cpu_flags"])
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


def test_a_record_without_the_processors_flags_is_read(tmp_path):
    """As the first of version 0.1 were."""
    write_verdicts(tmp_path, Verdicts((A,)))
    path = tmp_path / NAME
    value = json.loads(path.read_text())
    del value["verdicts"][0]["cpu_flags"]
    value["verdicts"][0]["of a later version"] = 1
    path.write_text(json.dumps(value))
    assert read_verdicts(tmp_path).verdicts == (replace(A, cpu_flags=()),)


def test_of_two_verdicts_that_contradict_each_other_the_failure_counts():
    for order in ((A, FAILED), (FAILED, A)):
        assert Verdicts(order).of(A.sha256, "openvino", "cpu") == FAILED
