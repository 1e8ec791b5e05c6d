"""ONNX Runtime on the device against PyTorch float32 on the CPU, by the code of `icnet parity`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from icnet_deploy.evaluation.pairing import Pair, open_pair
from tools.gpu_check.scenes import has_opencv
from tools.gpu_check.setting import Setting


def parity(setting: Setting) -> dict[str, Any]:
    """A row for each artefact, float32 ones with TF32 off and on; refusals in their own words."""
    from icnet_deploy.metadata import read_onnx_metadata

    rows = setting.kept("parity")
    for path in setting.onnx_files():
        precision = read_onnx_metadata(path).precision
        for tf32 in (False, True) if precision == "fp32" and setting.cuda else (False,):
            name = path.name + " with TF32" * tf32
            if setting.late:
                rows.setdefault(name, {"left_out": "the time was up"})
            elif setting.cuda and precision.startswith("int8"):
                rows[f"{name}, made to run"] = _forced(setting, path)
            else:
                rows[name] = parity_of(setting, Pair(path, "onnxruntime", setting.device, tf32))
            setting.results["parity"] = rows
            setting.save()
    return rows or {"left_out": "no artefact: name a folder with --artefacts"}


def parity_of(setting: Setting, pair: Pair) -> dict[str, Any]:
    """What `icnet parity` says of one artefact, or the message of its error.

    Without OpenCV, which counts regions, only which pixels agree.
    """
    try:
        if not has_opencv():
            return _agreement(setting, pair)
        from icnet_deploy.evaluation.parity.result import to_dict
        from icnet_deploy.evaluation.parity.run import compare

        rows, _ = compare([pair], setting.scenes(setting.images))
        return dict(to_dict(rows))
    except Exception as error:  # whatever a library raises here is the finding
        return {"error": f"{type(error).__name__}: {error}"}


def _agreement(setting: Setting, pair: Pair) -> dict[str, Any]:
    """Agreeing pixels, and how far apart the reference's best two logits are where they differ."""
    pixels, margins = 0, [np.zeros(0)]
    with open_pair(pair) as predictor:
        for sample in setting.scenes(setting.images):
            answer = setting.reference.answer(sample.image)
            labels = predictor.predict(sample.image).labels
            pixels += labels.size
            margins.append(answer.margins(*np.nonzero(labels != answer.labels)))
    margin = np.concatenate(margins)
    return {
        "agreement": 1 - len(margin) / pixels,
        "pixels": pixels,
        "differ": len(margin),
        "largest_margin": float(margin.max(initial=0)),
    }


def _forced(setting: Setting, path: Path) -> dict[str, Any]:
    """Runs an INT8 file on CUDA past the refusal: it opens, or says why not, and how it labels.

    ONNX Runtime has no integer convolution there: that it does not open is no failure.
    """
    try:
        from icnet_deploy.metadata import read_onnx_metadata
        from icnet_deploy.runtime.backends.registry import open_backend
        from icnet_deploy.runtime.predictor import Predictor

        image = setting.scenes(1)[0].image
        backend = open_backend("onnxruntime", path, "cuda", None)
        with Predictor(backend, read_onnx_metadata(path), device="cuda") as predictor:
            predictor.warmup()
            labels = predictor.predict(image).labels
            times = [predictor.predict(image).timings_ms["total"] for _ in range(5)]
        wanted = setting.reference.labels(image)
        return {"agreement": float(np.mean(labels == wanted)), "host_to_host_ms": times}
    except Exception as error:  # as above
        return {"refused": f"{type(error).__name__}: {error}"}
