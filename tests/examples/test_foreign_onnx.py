"""The example of another program's file: few steps of training, and all that follows.

It is run in this process, where the libraries are imported already; as it stands it is
`make long`'s.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

for package in ("torch", "onnx", "onnxsim", "onnxruntime"):
    pytest.importorskip(package, reason=f"the example needs {package}")

from quick_scenes import quick_scene  # noqa: E402

from icnet_deploy.cli import main  # noqa: E402
from icnet_deploy.data.scenes import dataset  # noqa: E402
from icnet_deploy.export import check  # noqa: E402
from icnet_deploy.metadata import read_onnx_metadata  # noqa: E402

FOLDER = Path(__file__).parents[2] / "examples" / "foreign_onnx"


def script(name):
    """A script of the example as a module."""
    spec = importlib.util.spec_from_file_location(f"foreign_onnx_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_foreign_file_becomes_8_bit_files_that_are_verified(
    tmp_path, monkeypatch, capsys, one_thread
):
    for module in (check, dataset):  # drawing takes longer than all the rest
        monkeypatch.setattr(module, "draw_scene", quick_scene)
    commands = []

    def here(program, *arguments):
        assert program == sys.executable
        words = [str(each) for each in arguments]
        commands.append(words[2] if words[0] == "-m" else Path(words[0]).name)
        if words[0] == "-m":
            assert main(words[2:]) == 0
        else:
            monkeypatch.setattr(sys, "argv", words)
            foreign = script("foreign")
            monkeypatch.setattr(foreign, "draw_scene", quick_scene)
            foreign.main()

    run = script("run")
    monkeypatch.setattr(run, "run", here)
    monkeypatch.setattr(run, "draw_scene", quick_scene)
    few = "--steps 6 --scenes 10 --size 64x64 --drop 60"
    monkeypatch.setattr(sys, "argv", ["run.py", *few.split(), "--out", str(tmp_path)])
    run.main()
    assert commands == ["foreign.py", "adopt", "quantize", "verify", "predict"]
    out = capsys.readouterr().out
    assert "after the logits: Resize, ArgMax (removed; the label map is the same)" in out
    assert "net-fp32.onnx: made from foreign.onnx, which another program wrote" in out
    assert out.splitlines()[-2].startswith("  release/net-int8.onnx: ")
    for name in ("fp32", "int8", "int8-ort"):
        metadata = read_onnx_metadata(tmp_path / "release" / f"net-{name}.onnx")
        assert (metadata.upsampling, metadata.stride) == ("half-pixel", 4)
        assert metadata.network["file"] == "foreign.onnx"
    assert list((tmp_path / "pictures").iterdir())
