"""`python -P with_nncf.py JOB`: one file of NNCF, in an environment of its own.

See `with_onnxruntime.py`; besides `images` the job has `validation`, a .npy of other images that
neither ranges nor scores are taken from. Its settings:

    backend     onnx, or openvino: the file is then OpenVINO's own, an .xml with a .bin beside it
    preset      performance or mixed
    bias        fast, full or none: how biases are corrected
    ranges      a name of RangeEstimatorParametersSet, for activations
    device      a name of TargetDevice
    model       a name of ModelType
    smooth      alpha of SmoothQuant, of convolutions and matrix products
    max_drop    accuracy control: the most that the share of labels alike with float32 may fall
"""

import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

import nncf  # type: ignore[import-not-found]
import numpy as np
import onnx
import onnxruntime
import openvino
from nncf.quantization.advanced_parameters import (  # type: ignore[import-not-found]
    AdvancedSmoothQuantParameters,
)
from nncf.quantization.range_estimator import (  # type: ignore[import-not-found]
    RangeEstimatorParametersSet,
)

Run = Callable[[Any], Any]


def _options(settings: dict[str, Any]) -> dict[str, Any]:
    advanced: dict[str, Any] = {"disable_bias_correction": settings.get("bias") == "none"}
    if "ranges" in settings:
        ranges = getattr(RangeEstimatorParametersSet, settings["ranges"])
        advanced["activations_range_estimator_params"] = ranges
    if "smooth" in settings:
        alpha = settings["smooth"]
        advanced["smooth_quant_alphas"] = AdvancedSmoothQuantParameters(
            convolution=alpha, matmul=alpha
        )
    options: dict[str, Any] = {
        "fast_bias_correction": settings.get("bias", "fast") == "fast",
        "advanced_parameters": nncf.AdvancedQuantizationParameters(**advanced),
    }
    if "preset" in settings:
        options["preset"] = nncf.QuantizationPreset(settings["preset"])
    if "device" in settings:
        options["target_device"] = nncf.TargetDevice[settings["device"]]
    if "model" in settings:
        options["model_type"] = nncf.ModelType[settings["model"]]
    return options


def _runner(model: Any) -> Run:
    """What runs a model of either backend, as accuracy control hands it over."""
    if isinstance(model, onnx.ModelProto):
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return lambda feed: session.run(None, feed)[0]
    compiled = model if not isinstance(model, openvino.Model) else openvino.compile_model(model)
    return lambda feed: compiled(feed)[0]


def _validation(model: Any, images: Any) -> tuple[Any, Any]:
    """Images with the labels that float32 gives them, and what counts those that are alike."""
    run = _runner(model)
    items = [(image[None], run({"image": image[None]}).argmax(1)) for image in images]

    def alike(other: Any, data: Iterable[Any]) -> tuple[float, list[float]]:
        run = _runner(other)
        shares = [float(np.mean(run({"image": x}).argmax(1) == labels)) for x, labels in data]
        return float(np.mean(shares)), shares

    return nncf.Dataset(items, lambda item: {"image": item[0]}), alike


def make(job: dict[str, Any]) -> None:
    """Writes the file."""
    settings = job["settings"]
    own = settings.get("backend") == "openvino"
    model = openvino.Core().read_model(job["model"]) if own else onnx.load(job["model"])
    images = np.load(job["images"])
    data = nncf.Dataset(list(images), lambda image: {"image": image[None]})
    options = _options(settings) | {"subset_size": len(images)}
    if "max_drop" in settings:
        options["advanced_quantization_parameters"] = options.pop("advanced_parameters")
        result = nncf.quantize_with_accuracy_control(
            model,
            data,
            *_validation(model, np.load(job["validation"])),
            max_drop=settings["max_drop"],
            **options,
        )
    else:
        result = nncf.quantize(model, data, **options)
    if own:
        openvino.save_model(result, job["out"], compress_to_fp16=False)
    else:
        onnx.save(result, job["out"])


if __name__ == "__main__":
    make(json.loads(sys.argv[1]))
