"""Latency: in turn, with a scope, and percentiles of raw samples."""

from __future__ import annotations

import json

import numpy as np
import pytest

from icnet_deploy.benchmarks.latency import measure
from icnet_deploy.benchmarks.pairing import Pair
from icnet_deploy.cli import main
from icnet_deploy.errors import BackendError, CheckFailed
from icnet_deploy.runtime.predictor import Predictor


def test_models_are_timed_in_turn(artefact, tmp_path, monkeypatch, capsys):
    order = []
    plain = Predictor.predict

    def seen(self, image):
        order.append(self.runtime)
        return plain(self, image)

    monkeypatch.setattr(Predictor, "predict", seen)
    out = tmp_path / "latency.json"
    argv = ["benchmark", "latency", str(artefact), "--rounds", "4", "--size", "96x128"]
    assert main([*argv, "--json", str(out)]) == 0
    assert order == ["onnxruntime"] * 3 + ["openvino"] * 3 + ["onnxruntime", "openvino"] * 4
    result = json.loads(out.read_text())
    assert [row["runtime"] for row in result["results"]] == ["onnxruntime", "openvino"]
    for row in result["results"]:
        samples = row["stages"]["total"]["samples_ms"]
        assert len(samples) == 4
        assert row["stages"]["total"]["median_ms"] == pytest.approx(np.median(samples), abs=0.01)
        parts = sum(np.array(row["stages"][s]["samples_ms"]) for s in row["stages"] if s != "total")
        assert np.allclose(parts, samples, atol=0.01)
    assert "label map in memory" in result["scope"]
    assert "in turn" in capsys.readouterr().out


def test_a_model_that_fails_is_named(artefact, monkeypatch):
    plain, calls = Predictor.predict, []

    def fails(self, image):
        calls.append(1)
        if len(calls) > 4:
            raise BackendError("out of memory")
        return plain(self, image)

    monkeypatch.setattr(Predictor, "predict", fails)
    with pytest.raises(CheckFailed, match="onnxruntime: out of memory"):
        measure([Pair(artefact, "onnxruntime", "cpu")], [np.zeros((96, 128, 3), np.uint8)], 3)


def test_a_missing_file_is_one_line(tmp_path, capsys):
    assert main(["benchmark", "latency", str(tmp_path / "no.onnx")]) == 2
    assert "there is no" in capsys.readouterr().err
