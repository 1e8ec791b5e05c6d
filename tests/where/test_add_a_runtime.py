"""A runtime is added by a module of its own and a row in `RUNTIMES`; nothing else is touched."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
from backend_contract import SIZE, BackendContract
from tiny_model import build_model, draw_blocks

from icnet_deploy.cli import main
from icnet_deploy.errors import DeviceError, InputError
from icnet_deploy.images import read_grey, write_image
from icnet_deploy.runtime import RUNTIMES, Predictor, choose, open_backend
from icnet_deploy.runtime.backends.registry import Runtime

MODULE = '''
"""A runtime of NumPy: each pixel is the class whose colour in the label set is nearest."""

import numpy as np

from icnet_deploy.errors import BackendError
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime.backends.base import TensorSpec, check_feed

__version__ = "0.7"


class ToyBackend:
    def __init__(self, metadata):
        height, width = metadata.size
        self._palette = np.array(metadata.label_set.palette, np.float32)
        self._closed = False
        self.inputs = (TensorSpec("image", (None, height, width, 3), np.dtype(np.uint8)),)
        grid = (None, len(metadata.label_set), -(-height // 4), -(-width // 4))
        self.outputs = (TensorSpec("logits", grid, np.dtype(np.float32)),)

    def run(self, feed):
        if self._closed:
            raise BackendError("the model was closed")
        check_feed(self.inputs, feed)
        pixels = feed["image"][:, None, ::4, ::4].astype(np.float32)
        distance = np.square(pixels - self._palette[:, None, None]).sum(axis=-1)
        return {"logits": -distance / 255}

    def close(self):
        self._closed = True


def open_model(path, device, threads):
    return ToyBackend(read_onnx_metadata(path))


def probe(package):
    return {"version": package.__version__, "devices": {"CPU": "NumPy"}}
'''

ROW = Runtime("toy_runtime", "toy_runtime", {"cpu": "toy"})


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The row, and the module that it names; both are gone after the test."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "toy_runtime.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(RUNTIMES, "toy", ROW)
    yield
    sys.modules.pop("toy_runtime", None)


@pytest.fixture
def model(tmp_path):
    return build_model(tmp_path / "tiny.onnx")


@pytest.fixture
def blocks():
    return draw_blocks


class TestToy(BackendContract):
    """It keeps the contract of backends."""

    @pytest.fixture
    def opened(self, toy, model):
        return open_backend("toy", model, "cpu")


def test_a_predictor_opens_it(toy, model):
    image = draw_blocks(SIZE, 3)
    with Predictor.open(model, "toy") as predictor:
        assert (predictor.runtime, predictor.device) == ("toy", "cpu")
        labels = predictor.predict(image).labels
    with Predictor.open(model, "onnxruntime", "cpu") as predictor:
        assert (labels == predictor.predict(image).labels).mean() > 0.999


def test_predict_takes_it(toy, model, tmp_path, capsys):
    write_image(tmp_path / "street.png", draw_blocks((80, 100)))
    out = tmp_path / "out"
    words = [str(tmp_path / "street.png"), "--model", str(model), "-o", str(out)]
    assert main(["predict", *words, "--runtime", "toy"]) == 0
    assert "labelled with toy on cpu" in capsys.readouterr().out
    assert read_grey(out / "street_labels.png").shape == (80, 100)


def test_the_fastest_of_a_folder_may_be_on_it(toy, model):
    with Predictor.open(model.parent, "toy", unverified=True) as predictor:
        assert (predictor.choice.winner.runtime, predictor.runtime) == ("toy", "toy")
        assert predictor.predict(draw_blocks(SIZE)).labels.shape == SIZE


def test_doctor_shows_it(toy, tmp_path, capsys):
    assert main(["doctor", "--json", str(tmp_path / "machine.json")]) == 0
    assert "toy                0.7: CPU (NumPy)" in capsys.readouterr().out
    found = json.loads((tmp_path / "machine.json").read_text())["runtimes"]["toy"]
    assert found == {"version": "0.7", "devices": {"CPU": "NumPy"}}


def test_what_its_row_does_not_say_it_cannot(toy, model):
    assert choose("auto", "cpu")[0] != "toy"  # it has no `auto_rank`
    with pytest.raises(DeviceError, match="'toy' runs on cpu here, not on 'cuda'"):
        Predictor.open(model, "toy", "cuda")
    with pytest.raises(InputError, match="2 streams on 'cpu'"):
        Predictor.open(model, "toy", streams=2)
    with pytest.raises(InputError, match="TF32 is for runtime 'onnxruntime'"):
        Predictor.open(model, "toy", tf32=True)
    with pytest.raises(InputError, match=r"known: auto, onnxruntime, openvino, .*, toy"):
        Predictor.open(model, "tensorflow")


def test_a_rank_lets_auto_take_it(toy, model, monkeypatch):
    monkeypatch.setitem(RUNTIMES, "toy", replace(ROW, auto_rank=-1))
    with Predictor.open(model, device="cpu") as predictor:
        assert predictor.runtime == "toy"


def test_where_its_package_is_missing_its_extra_is_named(model, monkeypatch, capsys):
    monkeypatch.setitem(RUNTIMES, "toy", ROW)
    with pytest.raises(InputError, match=r'pip install "icnet-deploy\[toy\]"'):
        Predictor.open(model, "toy")
    assert main(["doctor"]) == 0
    assert "toy                not installed" in capsys.readouterr().out
