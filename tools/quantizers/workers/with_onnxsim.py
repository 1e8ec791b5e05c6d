"""`python -P with_onnxsim.py JOB`: one file of onnxsim's own quantizer, `quantize_static`.

See `with_onnxruntime.py`. Its settings:

    method      how ranges are chosen: minmax, percentile, entropy, mse or auto
    full_graph  pairs on every tensor, not only on what is multiplied by weights
    simplify    `onnxsim.simplify` first
    equalize    `cross_layer_equalize` first
    smooth      `apply_smoothquant_cpp` first
    adaquant    `apply_adaquant_cpp` on the result
    correct     `correct_bias` on the result
    exclude     types of operators that a full graph leaves in float
"""

import json
import sys
from typing import Any

import numpy as np
import onnx
import onnxsim


def make(job: dict[str, Any]) -> None:
    """Writes the file."""
    settings = dict(job["settings"])
    images = [{"image": image[None]} for image in np.load(job["images"])]
    steps = {
        name: settings.pop(name, False)
        for name in ("simplify", "equalize", "smooth", "adaquant", "correct")
    }
    if "exclude" in settings:
        settings["op_types_to_exclude"] = settings.pop("exclude")
    model = onnx.load(job["model"])
    if steps["simplify"]:
        model, _ = onnxsim.simplify(model)
    if steps["equalize"]:
        model = onnxsim.cross_layer_equalize(model)
    if steps["smooth"]:
        model = onnxsim.apply_smoothquant_cpp(model, images)
    result = onnxsim.quantize_static(model, images, **settings)
    if steps["adaquant"]:
        result = onnxsim.apply_adaquant_cpp(model, result, images)
    if steps["correct"]:
        result = onnxsim.correct_bias(model, result, images)
    onnx.save(result, job["out"])


if __name__ == "__main__":
    make(json.loads(sys.argv[1]))
