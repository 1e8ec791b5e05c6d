"""TensorRT-RTX, and TensorRT where it is: engines for this GPU, their parity, speed and tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from icnet_deploy.benchmarks.gpu.parity import parity_of
from icnet_deploy.benchmarks.gpu.setting import Setting
from icnet_deploy.benchmarks.gpu.speed import time_all
from icnet_deploy.benchmarks.gpu.subjects import open_engine

__all__ = ["engines", "run_tests"]

_PRECISIONS = ("fp32", "fp16", "int8")


def engines(setting: Setting) -> dict[str, Any]:
    """Flavour -> file -> what came of it; then the tests that need TensorRT or a GPU."""
    if not setting.cuda:
        return {"left_out": "a rehearsal builds no engine"}
    from icnet_deploy.errors import MissingPackage
    from icnet_deploy.export.build_engine import PACKAGES, load_tensorrt
    from icnet_deploy.metadata import read_onnx_metadata

    told: dict[str, Any] = {}
    for flavour in reversed(PACKAGES):
        try:
            trt = load_tensorrt(flavour)
        except MissingPackage as error:
            told[flavour] = {"left_out": str(error)}
            continue
        rows = told[flavour] = {"version": trt.__version__}
        for path in setting.onnx_files():
            if setting.late or read_onnx_metadata(path).precision not in _PRECISIONS:
                continue
            rows[path.name] = _one(setting, trt, path)
            setting.results["engines"] = told
            setting.save()
    told["tests"] = run_tests(["-m", "tensorrt or gpu"], Path(__file__).parents[2])
    return told


def _one(setting: Setting, trt: Any, path: Path) -> dict[str, Any]:
    """Builds for this GPU as `icnet build-engine` without targets does; that is CURRENT in RTX."""
    from icnet_deploy.benchmarks.drawn import drawn_scenes
    from icnet_deploy.export.build_engine import build_engine
    from icnet_deploy.runtime.predictor import Predictor

    told: dict[str, Any] = {}
    try:
        with TemporaryDirectory() as folder:
            out = Path(folder) / f"{path.stem}.engine"
            built = build_engine(path, out, trt)
            told |= {"bytes": out.stat().st_size, "layers": built.sidecar.precisions}
            told["parity"] = parity_of(setting, out, "tensorrt")
            frames = np.stack([drawn_scenes(1, setting.size)[0].image])
            with Predictor.from_engine(out) as predictor:
                failures: dict[str, str] = {}
                subjects = open_engine(path, predictor, frames)
                told |= {"speed": time_all(setting, subjects, failures, 1), "failures": failures}
    except Exception as error:  # whatever TensorRT raises here is the finding
        told["error"] = f"{type(error).__name__}: {error}"
    return told


def run_tests(arguments: list[str], root: Path, limit: float = 600) -> dict[str, Any]:
    """Runs pytest in the repository.

    Returns:
        Its exit status, its closing line, and the lines of what failed.
    """
    command = [sys.executable, "-m", "pytest", "-q", *arguments]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"pytest took more than {limit:.0f} s"}
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"exit": done.returncode, "closing": lines[-1] if lines else "", "failed": failed}
