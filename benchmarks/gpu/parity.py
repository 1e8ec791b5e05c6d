"""ONNX Runtime on the device against PyTorch float32 on the CPU, by the code of `icnet parity`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from icnet_deploy.benchmarks.gpu.setting import Setting

__all__ = ["parity", "parity_of"]


def parity(setting: Setting) -> dict[str, Any]:
    """A row for each artefact, float32 ones with TF32 off and on; refusals in their own words."""
    from icnet_deploy.metadata import read_onnx_metadata

    rows: dict[str, Any] = {}
    for path in setting.onnx_files():
        precision = read_onnx_metadata(path).precision
        for tf32 in (False, True) if precision == "fp32" and setting.cuda else (False,):
            name = path.name + " with TF32" * tf32
            if setting.late:
                rows[name] = {"left_out": "the time was up"}
                continue
            rows[name] = parity_of(setting, path, "onnxruntime", tf32)
            if setting.cuda and precision.startswith("int8"):
                rows[f"{name}, made to run"] = _forced(setting, path)
            setting.results["parity"] = rows
            setting.save()
    return rows or {"left_out": "no artefact: name a folder with --artefacts"}


def parity_of(setting: Setting, path: Path, runtime: str, tf32: bool = False) -> dict[str, Any]:
    """What `icnet parity` says of one artefact, or the message of its error."""
    try:
        from icnet_deploy.benchmarks.compare import compare
        from icnet_deploy.benchmarks.drawn import drawn_scenes
        from icnet_deploy.benchmarks.pairing import Pair
        from icnet_deploy.benchmarks.parity_result import to_dict

        with _tf32(tf32):
            scenes = drawn_scenes(setting.images, setting.size)
            rows, _ = compare([Pair(path, runtime, setting.device)], scenes)
        return dict(to_dict(rows))
    except Exception as error:  # whatever a library raises here is the finding
        return {"error": f"{type(error).__name__}: {error}"}


@contextmanager
def _tf32(on: bool) -> Iterator[None]:
    """`open_pair` knows no TF32, so the provider's own setting is turned."""
    from icnet_deploy.runtime.predictor import Predictor

    plain = Predictor.from_onnx
    with ExitStack() as stack:
        if on:
            turned = staticmethod(lambda *given, **named: plain(*given, **named, tf32=True))
            stack.enter_context(mock.patch.object(Predictor, "from_onnx", turned))
        yield


def _forced(setting: Setting, path: Path) -> dict[str, Any]:
    """Runs an INT8 file on CUDA past the refusal: it opens, or says why not, and how it labels."""
    try:
        import numpy as np

        from icnet_deploy.benchmarks.drawn import drawn_scenes
        from icnet_deploy.metadata import read_onnx_metadata
        from icnet_deploy.runtime.backends import open_backend
        from icnet_deploy.runtime.predictor import Predictor

        image = drawn_scenes(1, setting.size)[0].image
        backend = open_backend("onnxruntime", path, "cuda", None)
        with Predictor(backend, read_onnx_metadata(path), device="cuda") as predictor:
            predictor.warmup()
            labels = predictor.predict(image).labels
            times = [predictor.predict(image).timings_ms["total"] for _ in range(5)]
        from icnet_deploy.benchmarks.reference import Reference, shipped_checkpoint

        wanted = Reference(shipped_checkpoint(), None).labels(image)
        return {"agreement": float(np.mean(labels == wanted)), "host_to_host_ms": times}
    except Exception as error:  # as above
        return {"error": f"{type(error).__name__}: {error}"}
