"""The record of the example's networks of others: what is kept of them, and the table of it."""

from __future__ import annotations

import json

import pytest
from tiny_model import build_model

torch = pytest.importorskip("torch", reason="the weights' files are torch's")

from tools import own_networks  # noqa: E402
from tools.result_tables import with_tables  # noqa: E402

POINTS = {"value": -0.004, "low": -0.01, "high": 0.002, "groups": 40, "effective_images": 40}


def verified(precision, runtime, alike):
    return {
        "artefact": f"runs/net-{precision}.onnx",
        "sha256": "ab" * 32,
        "size": [64, 128],
        "precision": precision,
        "runtime": runtime,
        "verdict": "within",
        "findings": [],
        "score": {"miou_percent": 40.0},
        "miou_difference_points": POINTS,
        "agreeing_percent": alike,
        "ties": 3,
        "flips": 0,
        "protocol": {"images": 40},
    }


def test_what_verify_said_becomes_a_line_a_network(tmp_path):
    (tmp_path / "net").mkdir()
    build_model(tmp_path / "net" / "net-fp32.onnx", size=(64, 96))
    torch.save({"steps": 60, "classes_in_map": 6}, tmp_path / "net.pth")
    rows = [
        verified("fp32", "onnxruntime", 100.0),
        verified("fp32", "openvino", 99.9999),
        verified("fp16", "rounded", 99.97),
    ]
    (tmp_path / "net.json").write_text(json.dumps({"parity": {"rows": rows}}))
    result = tmp_path / "result.json"
    assert own_networks.main([str(tmp_path), "--json", str(result)]) == 0
    recorded = json.loads(result.read_text())
    assert [row["file"] for row in recorded["rows"]] == [
        "net-fp32.onnx",
        "net-fp32.onnx",
        "net-fp16.onnx",
    ]
    page = with_tables("<!-- results: own_networks -->\n<!-- end -->", [recorded])
    cells = page.splitlines()[4].strip("| ").split(" | ")
    assert cells[:6] == ["net", "60", "6", "within", "99.9999", "99.9700"]
    assert cells[6].startswith("-0.004 [-0.010, +0.002]")
    assert recorded["engines"]["net-fp32.onnx"]


def test_an_empty_folder_is_refused(tmp_path, capsys):
    assert own_networks.main([str(tmp_path), "--json", str(tmp_path / "out.json")]) == 2
    assert "run.py" in capsys.readouterr().err
