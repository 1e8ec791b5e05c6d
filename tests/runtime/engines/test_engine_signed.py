"""An engine is a program: TensorRT sees no byte of one that the key did not sign."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from icnet_deploy.engine_sidecar import sidecar_path
from icnet_deploy.errors import ModelError
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime import Predictor, predictor
from icnet_deploy.runtime.predict.command import main
from icnet_deploy.runtime.signing.signature import sign_folder


@pytest.fixture
def engine(desk, batched, keys):
    """A signed engine with its sidecar, and an image's labels by it."""
    path = batched()
    sign_folder(path.parent, keys[0])
    return path


@pytest.fixture
def unseen(desk, monkeypatch):
    """A function after which TensorRT must not be asked to load anything."""
    return lambda: monkeypatch.setattr(desk.trt.Runtime, "deserialize_cuda_engine", None)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_signed_engine_is_opened(desk, engine, keys, blocks):
    image = blocks((64, 96))
    with desk.open(engine) as opened:
        wanted = opened.predict(image).labels
    for trust in (
        {"trusted_key": keys[1]},
        {"sha256": sha256(engine)},
        {"trusted_key": keys[1], "require_manifest": True},
    ):
        with desk.open(engine, **trust) as opened:
            np.testing.assert_array_equal(opened.predict(image).labels, wanted)
            assert opened.metadata.precision == "fp32"
            # What TensorRT fails with later names the file that was asked for.
            assert str(engine) in opened.backend._engine.name


@pytest.mark.parametrize("where", ["first", "middle", "last", "cut", "added"])
def test_an_engine_that_was_changed_with_its_sidecar(desk, engine, keys, unseen, where):
    before = sha256(engine)
    data = bytearray(engine.read_bytes())
    if where == "cut":
        data = data[:-1]
    elif where == "added":
        data += b"\0"
    else:
        data[{"first": 0, "middle": len(data) // 2, "last": -1}[where]] ^= 1
    engine.write_bytes(data)
    desk.describe(engine, engine.with_suffix(".onnx"))  # the attacker writes one that fits
    unseen()
    with pytest.raises(ModelError, match=r"\.engine is not the file that was signed"):
        desk.open(engine, trusted_key=keys[1])
    with pytest.raises(ModelError, match=rf"its SHA-256 is {sha256(engine)}, expected {before}"):
        desk.open(engine, sha256=before)


def test_a_sidecar_that_was_changed_says_other_classes(desk, engine, keys, unseen):
    onnx = engine.with_suffix(".onnx")
    metadata = read_onnx_metadata(onnx)
    known = metadata.label_set
    turned = replace(known, names=known.names[::-1])
    desk.describe(engine, onnx, metadata=replace(metadata, label_set=turned))
    with desk.open(engine, sha256=sha256(engine)) as opened:  # as the guide says: of the plan
        assert opened.metadata.label_set.names == turned.names
    unseen()
    with pytest.raises(ModelError, match=r"\.engine\.json is not the file that was signed"):
        desk.open(engine, trusted_key=keys[1])


def test_a_sidecar_that_was_taken_away_or_added(desk, engine, keys, unseen):
    sidecar = sidecar_path(engine)
    value = json.loads(sidecar.read_text())
    sidecar.unlink()
    unseen()
    with pytest.raises(ModelError, match=r"cannot read .*\.engine\.json: No such file"):
        desk.open(engine, trusted_key=keys[1])
    sign_folder(engine.parent, keys[0])
    sidecar.write_text(json.dumps(value))
    with pytest.raises(ModelError, match=r"were not signed: .*\.engine\.json"):
        desk.open(engine, trusted_key=keys[1])
    sidecar.unlink()
    sidecar.symlink_to("nowhere")
    with pytest.raises(ModelError, match=r"cannot read .*\.engine\.json"):
        desk.open(engine, trusted_key=keys[1])


def test_an_engine_by_any_name_has_its_sidecar(desk, engine, keys, unseen):
    """`from_engine` takes a file of any ending: left out, its sidecar would not be missed."""
    named = engine.with_suffix(".bin")
    engine.rename(named)
    desk.describe(named, engine.with_suffix(".onnx"))
    sidecar_path(engine).unlink()
    sign_folder(named.parent, keys[0])
    with desk.open(named, trusted_key=keys[1], require_manifest=True) as opened:
        assert opened.metadata.precision == "fp32"
    desk.describe(named, engine.with_suffix(".onnx"), version="9.9")
    unseen()
    with pytest.raises(ModelError, match=r"\.bin\.json is not the file that was signed"):
        desk.open(named, trusted_key=keys[1])


def test_an_engine_in_the_name_of_another_that_was_signed(desk, batched, keys, unseen):
    first, second = batched(), batched(head="labels")
    sign_folder(first.parent, keys[0])
    for ending in ("", ".json"):
        shutil.copy(f"{second}{ending}", f"{first}{ending}")
    unseen()
    with pytest.raises(
        ModelError, match=r"is not the file that was signed: its SHA-256 is .* says "
    ):
        desk.open(first, trusted_key=keys[1])


def test_what_tensorrt_gets_is_what_was_verified(desk, engine, keys, blocks, monkeypatch):
    image = blocks((64, 96))
    with desk.open(engine) as opened:
        wanted = opened.predict(image).labels
    load = predictor.load_engine

    def swap(copy, *args, **options):
        engine.write_bytes(b"another program")
        sidecar_path(engine).unlink()
        return load(copy, *args, **options)

    monkeypatch.setattr(predictor, "load_engine", swap)
    with desk.open(engine, trusted_key=keys[1]) as opened:
        np.testing.assert_array_equal(opened.predict(image).labels, wanted)


def test_predict_and_open_hand_the_key_on(desk, engine, keys, tmp_path, capsys, unseen):
    engine.write_bytes(engine.read_bytes() + b"\0")
    unseen()
    with pytest.raises(ModelError, match="is not the file that was signed"):
        Predictor.open(engine, trusted_key=keys[1])
    with pytest.raises(ModelError, match="is not the file that you asked for"):
        Predictor.open(engine, sha256="0" * 64)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"")
    words = [tmp_path / "in", "--model", engine, "-o", tmp_path / "out", "--trusted-key", keys[1]]
    assert main([str(word) for word in words]) == 2
    assert "is not the file that was signed" in capsys.readouterr().err
