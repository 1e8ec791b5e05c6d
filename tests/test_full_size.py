"""Parity at the sizes that the product is made for, with the shipped checkpoint."""

from __future__ import annotations

import json

import pytest

for package in ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "openvino"):
    pytest.importorskip(package, reason=f"parity over all runtimes needs {package}")

from icnet_deploy.cli import main  # noqa: E402
from icnet_deploy.data.scenes import write_scenes  # noqa: E402


@pytest.mark.parametrize("size", [(1024, 2048), (1025, 2049)])
def test_float32_is_one_model_on_every_runtime_with_either_head(tmp_path, size, capsys):
    write_scenes(tmp_path / "scenes", 1, size, 11, progress=False)
    files = []
    for head in ("logits", "labels"):
        files.append(tmp_path / f"{head}.onnx")
        text = f"{size[0]}x{size[1]}"
        assert main(["export", "--size", text, "--head", head, "-o", str(files[-1])]) == 0
    argv = ["parity", *map(str, files), "--dataset", "scenes", "--data", str(tmp_path / "scenes")]
    code = main([*argv, "--json", str(tmp_path / "parity.json")])
    assert code == 0, capsys.readouterr().out
    rows = json.loads((tmp_path / "parity.json").read_text())["rows"]
    assert {(r["runtime"], r["head"]) for r in rows} == {
        (runtime, head) for runtime in ("onnxruntime", "openvino") for head in ("logits", "labels")
    }
    for row in rows:
        assert row["pixels"] == size[0] * size[1]
        assert row["agreeing_percent"] >= 99.99
        assert row["flips"] == 0
