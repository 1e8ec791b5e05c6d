"""The example of networks of other libraries: 20 steps of training, a file, and what verify says.

All five, trained until their maps are of use, are `make long`'s.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from icnet_deploy.metadata import read_onnx_metadata

pytest.importorskip("torch", reason="the example trains a network")
pytest.importorskip("onnx", reason="the example exports one")

RUN = Path(__file__).parents[2] / "examples" / "own_network" / "run.py"
LIBRARIES = Path(sys.prefix) / "networks"


def test_a_network_goes_from_training_to_a_verified_file(tmp_path):
    if not LIBRARIES.is_dir():
        pytest.skip(f"{LIBRARIES} is missing: make {LIBRARIES.parent.name}/networks fills it")
    few = "--steps 20 --batch 2 --train 4 --val 2 --size 64x128 --networks lraspp"
    done = subprocess.run(
        [sys.executable, str(RUN), *few.split(), "--precisions", "fp32", "--out", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(LIBRARIES), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "lraspp/lraspp-fp32.onnx: " in done.stdout.splitlines()[-1]
    metadata = read_onnx_metadata(tmp_path / "lraspp" / "lraspp-fp32.onnx")
    assert (metadata.upsampling, metadata.stride, metadata.schema) == ("half-pixel", 8, 2)
    assert metadata.network["architecture"] == "my_networks:lraspp"
    assert metadata.label_set.names[0] == "road"
