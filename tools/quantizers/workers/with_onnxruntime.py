"""`python -P with_onnxruntime.py JOB`: one file of ONNX Runtime's own quantizer.

It is a process of its own, and imports nothing of ours, so that what it does is the peer's alone.
JOB is JSON: `model`, `images` (a .npy of uint8 N x H x W x 3, RGB), `out`, `work` (a folder where
ranges are kept from one job to the next), and `settings`, of which each may be left out:

    ranges       MinMax, Percentile or Entropy
    percentile   of Percentile
    operators    types to quantize; left out: all that it can
    activations  QUInt8 or QInt8
    prepare      whether `quant_pre_process` comes first
    per_channel  whether weights have a step for each channel
    extra        its `extra_options`

Without any, `quantize_static` is called with what it asks for and nothing else.
"""

import json
import sys
from os.path import exists
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime import quantization as q
from onnxruntime.quantization.shape_inference import quant_pre_process

_AT_ONCE = 4
"""Images whose activations are in memory at once; of a street at 720x960 they take 0.5 GB each."""


class _Images(q.CalibrationDataReader):  # type: ignore[misc]
    """Feeds images, a part of them if it is told so."""

    def __init__(self, images: Any) -> None:
        self.images = images
        self.set_range(0, len(images))

    def __len__(self) -> int:
        return len(self.images)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.feeds = ({"image": image[None]} for image in self.images[start_index:end_index])

    def get_next(self) -> dict[str, Any] | None:
        return next(self.feeds, None)


def _prepared(model: Path, work: Path) -> Path:
    prepared = work / "prepared.onnx"
    if not exists(prepared):
        try:
            quant_pre_process(str(model), str(prepared))
        except Exception:  # its symbolic shape inference gives up on some graphs: without it, then
            quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    return prepared


def make(job: dict[str, Any]) -> None:
    """Writes the file."""
    settings, work, model = job["settings"], Path(job["work"]), Path(job["model"])
    images = _Images(np.load(job["images"], mmap_mode="r"))
    options: dict[str, Any] = {"calibrate_method": q.CalibrationMethod.MinMax}
    extra: dict[str, Any] = dict(settings.get("extra", {}))
    kept = [settings.get("ranges", "MinMax")]
    if settings.get("prepare"):
        model = _prepared(model, work)
        kept.append("prepared")
    if "ranges" in settings:
        options["calibrate_method"] = getattr(q.CalibrationMethod, settings["ranges"])
    if "percentile" in settings:
        extra["CalibPercentile"] = settings["percentile"]
        kept.append(str(settings["percentile"]))
    # Whatever the method: so many images are merged before the next are run.
    at_once = next(n for n in range(_AT_ONCE, 0, -1) if len(images) % n == 0)
    extra["CalibStridedMinMax"] = at_once
    if "activations" in settings:
        options["activation_type"] = getattr(q.QuantType, settings["activations"])
        options["weight_type"] = q.QuantType.QInt8
    ranges = work / f"{'-'.join(kept)}.json"
    if "operators" in settings:
        options["op_types_to_quantize"] = settings["operators"]
        if not exists(ranges):  # of all operators: they hold those that any need
            ranges = work / f"{'-'.join([*kept, *settings['operators']])}.json"
    q.quantize_static(
        model,
        job["out"],
        images,
        quant_format=q.QuantFormat.QDQ,
        per_channel=settings.get("per_channel", False),
        extra_options=extra,
        calibration_cache_path=ranges,
        **options,
    )


if __name__ == "__main__":
    make(json.loads(sys.argv[1]))
