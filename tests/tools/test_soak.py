"""A soak says by how much a process grows, and how sure that is."""

import json

import numpy as np
import pytest
from tiny_model import build_model

from icnet_deploy.errors import CheckFailed
from icnet_deploy.runtime.predictor import Predictor
from tools.soak import Sample, main, require_level, result, slope, soak


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_model(tmp_path_factory.mktemp("soak") / "any.onnx", size=None)


def _samples(resident, threads=3, files=9):
    return [
        Sample(200 * (i + 1), int(resident(i) * 2**20), threads, files + (i > 400) * (files == 10))
        for i in range(500)
    ]


def test_a_line_is_found_with_its_interval():
    rng = np.random.default_rng(3)
    at = np.arange(0, 100_000, 200)
    covered = 0
    for _ in range(200):
        found = slope(at, 100 + 7e-5 * at + rng.normal(0, 2, at.size))
        covered += found.low <= 7 <= found.high
    assert 180 <= covered <= 198  # 95 %


def test_a_process_that_grows_is_refused_and_one_that_does_not_passes():
    level = result(_samples(lambda i: 100 + 3 * (i < 50) + (i % 7)))
    assert level["mib_in_100000"]["low"] < 0 < level["mib_in_100000"]["high"]
    require_level(level, 16.0)
    with pytest.raises(
        CheckFailed, match=r"memory grows by 50\.0 MiB \(at least 50\.0\) in 100,000 predictions"
    ):
        require_level(result(_samples(lambda i: 100 + 0.1 * i)), 16.0)
    with pytest.raises(CheckFailed, match="has 11 files; it had 10 after 10200 predictions"):
        require_level(result(_samples(lambda i: 100, files=10)), 16.0)


def test_labels_that_change_end_it(model):
    class Forgetful:
        def __init__(self, predictor):
            self.predictor, self.calls = predictor, 0

        def predict(self, image):
            self.calls += 1
            return self.predictor.predict(image if self.calls < 20 else 255 - image)

    with (
        Predictor.open(model, "onnxruntime", "cpu") as predictor,
        pytest.raises(CheckFailed, match="after 20 predictions the labels of an image differ"),
    ):
        soak(Forgetful(predictor), 100, 10, 0)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_short_soak_is_recorded(runtime, model, tmp_path, capsys):
    out = tmp_path / "soak.json"
    job = [str(model), "--runtime", runtime, "--predictions", "100", "--most", "1e6"]
    assert main([*job, "--json", str(out)]) in (0, 1)  # 1: threads begin after the first images
    assert "100 predictions on" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert (found["kind"], found["predictions"], len(found["samples"])) == ("soak", 100, 100)
    assert found["last"]["threads"] >= 1
    assert found["last"]["files"] > 3
    assert main([str(model), "--predictions", "99"]) == 2
