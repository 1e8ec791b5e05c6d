"""What callers give to `predict`, `predict_batch`, `predict_tiles` and `stream`."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from icnet_deploy.errors import ImageError
from tests.fakes.tiny_model import build_model
from tools.fuzz.mutate.tree import changed_json, loads
from tools.fuzz.target import Run, Target

_MOST, _LARGEST = 1 << 20, 1 << 26
"""Values of an array; of one that repeats a single value."""
_CALLS = ("predict", "predict_batch", "predict_tiles", "stream")


def _seeds() -> list[bytes]:
    rows = [
        {"call": call, "dtype": "uint8", "shape": shape, "how": how, "model": model}
        for call in _CALLS
        for model in (0, 1, 2)
        for shape, how in (([32, 48, 3], "plain"), ([7, 200, 3], "reversed"))
    ]
    strange: list[dict[str, Any]] = [
        {"call": "predict", "dtype": dtype, "shape": [8, 8, 3], "how": how, "model": 0}
        for dtype in ("float32", "int64", "bool", "object", "U3", "complex64", "float16")
        for how in ("plain", "list", "masked", "transposed", "readonly", "subclass")
    ]
    broad = {"call": "predict", "dtype": "uint8", "shape": [1, 60_000, 3], "how": "one value"}
    return [json.dumps(row).encode() for row in [*rows, *strange, {**broad, "model": 0}]]


def _array(case: dict[str, Any]) -> Any:
    """What is given; ImageError where a case asks for no array at all."""
    try:
        shape = tuple(int(side) for side in case["shape"])
        how = str(case["how"])
        if how == "one value":  # of any size, in a byte of memory
            sides = [min(side, 70_000) for side in shape[:4]]
            if math.prod(sides) > _LARGEST:
                raise ValueError("too large for a case")
            return np.broadcast_to(np.zeros((), case["dtype"]), sides)
        count = int(np.prod([float(side) for side in shape]))
        if not 0 <= count <= _MOST or len(shape) > 6:
            raise ValueError("too large for a case")
        array = np.zeros(shape, case["dtype"])
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise ImageError(f"a case that describes no array: {error!r:.80}") from error
    ways: dict[str, Callable[[], Any]] = {
        "reversed": lambda: array[::-1] if array.ndim else array,
        "transposed": lambda: array.swapaxes(0, -1) if array.ndim else array,
        "list": array.tolist,
        "masked": lambda: np.ma.masked_array(array),
        "subclass": lambda: array.view(np.recarray),
        "bytes": array.tobytes,
        "none": lambda: None,
    }
    if how == "readonly":
        array.flags.writeable = False
    return ways[how]() if how in ways else array


def _prepare(folder: Path) -> Run:
    from icnet_deploy.runtime import Predictor

    files = [
        build_model(folder / "fixed.onnx", (32, 48)),
        build_model(folder / "free.onnx", None, describe={"min_side": 1}),
        build_model(folder / "letterbox.onnx", (32, 48), describe={"fit": "letterbox"}),
    ]
    models = [Predictor.from_onnx(file, "onnxruntime", "cpu", 1) for file in files]

    def run(data: bytes) -> Iterator[str]:
        try:
            case = dict(loads(data))
        except (ValueError, TypeError, RecursionError) as error:
            raise ImageError(f"a case that is no document: {error!r:.80}") from error
        given = _array(case)
        predictor = models[case["model"] % 3 if type(case.get("model")) is int else 0]
        call = case.get("call")
        if call == "predict_batch":
            answers = predictor.predict_batch([given, given])
        elif call == "stream":
            answers = list(predictor.stream([given, given]))
        elif call == "predict_tiles":
            answers = [predictor.predict_tiles(given)]
        else:
            answers = [predictor.predict(given)]
        for answer in answers:
            assert answer.labels.shape == given.shape[:2]
        yield "labelled"

    return run


TARGETS = (
    Target(
        "arrays",
        "arrays given to `predict`, `predict_batch`, `predict_tiles` and `stream`",
        _seeds,
        changed_json,
        _prepare,
        60_000,
    ),
)
