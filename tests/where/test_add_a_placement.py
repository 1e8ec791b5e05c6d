"""A placement is added by an entry in `PLACEMENTS` and a row in `PRECISIONS`; nothing else is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from placement_contract import SIZE, PlacementContract, save_network

from icnet_deploy.calibration.placements.base import Pairs, Placement
from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.images import write_image
from icnet_deploy.precisions import PRECISIONS, Precision
from icnet_deploy.runtime.predictor import Predictor


class WeightsAlone(Placement):
    """Weights are 8 bits in the file; what is computed is float."""

    name = "toy"

    def pairs(self, graph, convolutions):
        return Pairs()


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(PLACEMENTS, "toy", WeightsAlone())
    row = Precision("toy", 8, 4, tie_margin=0.25, miou_points=0.3, calibrated=True)
    monkeypatch.setitem(PRECISIONS, "toy", row)


class TestItKeepsTheContract(PlacementContract):
    name = "toy"
    pairs = {}  # noqa: RUF012
    unknown = {"Tanh": 1, "Sigmoid": 1, "Mul": 1}  # noqa: RUF012


def test_it_is_written_and_opened_by_its_name(run, tmp_path):
    scenes = [draw_scene((9, index), SIZE).image for index in range(12)]
    for index, scene in enumerate(scenes):
        write_image(tmp_path / "photos" / f"{index:02}.png", scene)
    source = save_network(tmp_path / "small-fp32.onnx")
    done = run("quantize", source, "--images", tmp_path / "photos", "--placement", "toy")
    assert done.code == 0, done.err
    path = tmp_path / "small-toy.onnx"
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("DequantizeLinear") == 5
    assert "QuantizeLinear" not in kinds
    with Predictor.open(path, device="cpu") as ours, Predictor.open(source, device="cpu") as exact:
        assert ours.metadata.precision == "toy"
        same = [ours.predict(i).labels == exact.predict(i).labels for i in scenes]
    assert 0.95 < np.mean(same) < 1
    assert "toy is for any runtime" in " ".join(run("quantize", "--help").out.split())
    both = run("quantize", source, "--images", tmp_path / "photos", "-o", tmp_path / "all")
    assert both.code == 0, both.err
    assert {path.stem for path in (tmp_path / "all").glob("*.onnx")} == {
        f"small-{name}" for name in PLACEMENTS
    }
    known = run(
        "sensitivity", source, "--dataset", "scenes", "--data", tmp_path, "--placement", "x"
    )
    assert "toy" in known.err
