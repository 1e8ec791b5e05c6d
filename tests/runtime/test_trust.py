"""What a folder's artefacts, and what is kept of them, are held to before one is opened."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

pytest.importorskip("onnx", reason="an artefact with external data is written with onnx")

from icnet_deploy.errors import InputError
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.runtime import Predictor
from icnet_deploy.runtime.auto.candidates import Request, find_candidates
from icnet_deploy.runtime.auto.choice import open_fastest, remembered_choices
from icnet_deploy.runtime.auto.folder import digests, read_artefacts
from icnet_deploy.runtime.auto.verdicts import NAME, Entry, Verdicts, write_verdicts


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def verify(folder, *names, runtimes=("onnxruntime",)):
    """Writes what `icnet verify` would, of files that pass."""
    told = ("", 0.01, "2 images", "mIoU within 0.3 points", "2026-01-01T00:00:00+00:00", "a cpu")
    verdicts = [
        Entry(name, artefact_sha256(folder / name), runtime, "cpu", "within", *told)
        for name in names
        for runtime in runtimes
    ]
    write_verdicts(folder, Verdicts(tuple(verdicts)))


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A folder with a verified artefact, of version 0.1: without a digest of its own."""
    folder = tmp_path / "release"
    folder.mkdir()
    shutil.move(tiny_model(), folder / "a.onnx")
    verify(folder, "a.onnx")
    return folder


@pytest.fixture
def external(folder):
    """The folder, its artefact's weights in files beside it."""
    import onnx

    model = onnx.load(folder / "a.onnx")
    for tensor in model.graph.initializer:  # only raw data go into a file
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name)
        )
    (folder / "a.onnx").unlink()
    onnx.save(
        model, folder / "a.onnx", save_as_external_data=True, location="a.data", size_threshold=0
    )
    assert (folder / "a.data").stat().st_size > 100
    verify(folder, "a.onnx")
    return folder


def known(folder):
    return digests(folder, read_artefacts(folder, check=False))


def flip(path):
    """Changes one byte of a file, of an artefact one of its graph's name; puts its time back."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    at = content.index(b"tiny") if path.suffix != ".data" else len(content) // 2
    content[at] ^= 0x10
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def open_folder(folder, **options):
    with Predictor.from_folder(folder, **options) as predictor:
        return predictor.predict(np.zeros((64, 96, 3), np.uint8)).labels


@pytest.mark.parametrize("looked_before", [False, True])
@pytest.mark.parametrize("how", ["flipped", "gone", "cut", "of another file"])
def test_external_data_that_changed_are_not_verified(external, looked_before, how):
    if looked_before:
        assert open_folder(external).shape == (64, 96)
    data = external / "a.data"
    if how == "flipped":
        flip(data)
    elif how == "gone":
        data.unlink()
    elif how == "cut":
        data.write_bytes(data.read_bytes()[:-1])
    else:
        data.write_bytes(bytes(data.stat().st_size))
    with pytest.raises(InputError, match=r"changed after|external data .* are missing") as told:
        Predictor.from_folder(external)
    assert "a.onnx" in str(told.value)


def test_external_data_that_did_not_change_are_verified(external):
    assert open_folder(external).shape == (64, 96)
    assert open_folder(shutil.copytree(external, external.parent / "copy")).shape == (64, 96)


@pytest.mark.parametrize("way", ["in place", "renamed over"])
def test_a_change_that_keeps_size_and_time_is_found(folder, way):
    """As `cp -p` and `rsync` leave a file: they set its time, and cannot set its inode's."""
    known(folder)
    path = folder / "a.onnx"
    if way == "in place":
        flip(path)
    else:
        shutil.copy2(path, folder / "b")
        flip(folder / "b")
        os.replace(folder / "b", path)
    assert known(folder) == {"a.onnx": artefact_sha256(path)}


def test_a_wrong_digest_that_is_kept_lets_no_changed_file_pass(folder, cache):
    known(folder)
    [kept] = (cache / "digests").iterdir()
    before = json.loads(kept.read_text())["a.onnx"]["sha256"]
    flip(folder / "a.onnx")
    known(folder)
    value = json.loads(kept.read_text())
    value["a.onnx"]["sha256"] = before
    kept.write_text(json.dumps(value))
    assert known(folder) == {"a.onnx": before}
    with pytest.raises(InputError, match="changed after"):
        Predictor.from_folder(folder)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [1, 2, "a" * 64],  # of version 0.1
        {"files": {}, "sha256": "a" * 64},
        {"files": {"b.onnx": [1, 2, 3, 4]}, "sha256": "a" * 64},
        {"files": {"a.onnx": [1, 2, 3]}, "sha256": "a" * 64},
        {"files": {"a.onnx": None}, "sha256": "a" * 64},
        {"files": {"a.onnx": [1, 2, 3, "4"]}, "sha256": "a" * 64},
        {"sha256": "a" * 64},
    ],
    ids=str,
)
def test_a_kept_digest_that_is_none_is_not_used(folder, cache, entry):
    known(folder)
    [kept] = (cache / "digests").iterdir()
    kept.write_text(json.dumps({"a.onnx": entry}))
    assert known(folder) == {"a.onnx": artefact_sha256(folder / "a.onnx")}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_that_changes_while_it_is_opened_is_not_taken(folder, when):
    def change_and_open(one, cached=None):
        if when == "before":
            (folder / one.file).write_bytes((folder / one.file).read_bytes() + b"\x72\x00")
        predictor = Predictor.open(folder / one.file, one.runtime, one.device)
        if when == "after":
            (folder / one.file).touch()
        return predictor

    with pytest.raises(InputError, match=r"changed after|change while they are read"):
        open_fastest(folder, Request(), change_and_open)


LEFT = (".a.4242.tmp.onnx", ".icnet-0123456789abcdef.tmp", ".a.onnx", ".b.engine", "._a.onnx")


@pytest.mark.parametrize("name", LEFT)
@pytest.mark.parametrize("content", ["whole", "cut", "of another size"])
def test_what_a_killed_process_left_is_no_artefact(folder, tiny_model, name, content):
    whole = (folder / "a.onnx").read_bytes()
    if content == "of another size":
        whole = tiny_model(size=(96, 64)).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2] if content == "cut" else whole)
    found = find_candidates(folder, Request(unverified=True, runtime="onnxruntime"))
    assert [one.file for one in found.candidates] == ["a.onnx"]
    assert open_folder(folder).shape == (64, 96)


def test_a_folder_of_nothing_else_has_no_artefact(folder):
    (folder / "a.onnx").rename(folder / LEFT[0])
    with pytest.raises(InputError, match="no artefact in"):
        Predictor.from_folder(folder)


def test_a_record_that_is_not_as_it_is_written_opens_nothing(folder):
    record = folder / NAME
    record.write_text(record.read_text().replace('"passed": true', '"passed": "false"'))
    with pytest.raises(InputError, match=r'passed is "false", expected true or false'):
        Predictor.from_folder(folder)


@pytest.fixture
def remembered(folder, cache):
    """A choice of two candidates that is remembered: the file, and its JSON."""
    verify(folder, "a.onnx", runtimes=("onnxruntime", "openvino"))
    with Predictor.from_folder(folder) as predictor:
        assert not predictor.choice.remembered
    with Predictor.from_folder(folder) as predictor:
        assert predictor.choice.remembered
    [path] = (cache / "choices").iterdir()
    return path, json.loads(path.read_text())


@pytest.mark.parametrize(
    "fields",
    [
        {"median_ms": float("nan")},
        {"median_ms": float("inf")},
        {"median_ms": -1.0},
        {"median_ms": 0},
        {"median_ms": "1.0"},
        {"median_ms": True},
        {"median_ms": None},
        {"runs": "2"},
        {"runs": -1},
        {"runs": 0},
        {"runtime": "tensorflow"},
        {"device": None},
        {"device": "cuda"},
        {"sha256": "a" * 64},
        {"sha256": None},
        {"file": 1},
        {"precision": None},
    ],
    ids=str,
)
def test_a_choice_that_is_not_as_it_is_remembered_is_measured_anew(folder, remembered, fields):
    path, value = remembered
    value["choice"]["candidates"][0] |= fields
    path.write_text(json.dumps(value))
    with Predictor.from_folder(folder) as predictor:
        assert not predictor.choice.remembered
        assert predictor.choice.winner.median_ms > 0


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value | {"schema": True},
        lambda value: value | {"key": {}},
        lambda value: value | {"key": value["key"] | {"threads": 7}},
        lambda value: value | {"choice": None},
        lambda value: value | {"choice": value["choice"] | {"candidates": []}},
        lambda value: value | {"choice": value["choice"] | {"candidates": [None]}},
        lambda value: value | {"choice": value["choice"] | {"measured": None}},
        lambda value: value | {"choice": value["choice"] | {"left_out": "a text"}},
        lambda value: [],
    ],
)
def test_what_is_no_choice_is_measured_anew(folder, remembered, change):
    path, value = remembered
    path.write_text(json.dumps(change(value)))
    with Predictor.from_folder(folder) as predictor:
        assert not predictor.choice.remembered


def test_a_name_or_precision_that_was_changed_is_told_as_the_file_has_it(folder, remembered):
    path, value = remembered
    value["choice"]["candidates"][0] |= {"file": "../other.onnx", "precision": "int8"}
    path.write_text(json.dumps(value))
    with Predictor.from_folder(folder) as predictor:
        winner = predictor.choice.winner
    assert predictor.choice.remembered
    assert (winner.file, winner.precision) == ("a.onnx", "fp32")


def test_a_choice_that_is_being_written_is_none(remembered):
    path, _ = remembered
    path.rename(path.with_name(f".{path.stem}.4242.tmp.json"))
    assert list(remembered_choices()) == []
