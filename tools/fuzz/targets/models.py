"""ONNX files, opened and run by each runtime; and those of other programs, adopted.

A file that was changed is refused by its digest, so most are stamped anew after they were changed.
"""

import io
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from icnet_deploy.errors import BackendError, IcnetError, InputError, LabelSetError, ModelError
from icnet_deploy.integrity import find_entry, with_entry
from icnet_deploy.labels import CITYSCAPES, LabelSet
from icnet_deploy.metadata import ArtefactMetadata, stamped
from tests.fakes.tiny_model import build_model
from tools.fuzz.mutate.raw import changed_bytes
from tools.fuzz.mutate.tree import changed_json
from tools.fuzz.mutate.wire import changed_message
from tools.fuzz.target import Run, Target

_RUNTIMES = ("onnxruntime", "openvino")
_LARGEST = 512
"""Of a side, in pixels: images of a size that a file asks for are made up to it."""

_OPERATORS = (
    *("Add", "Sub", "Mul", "Div", "Relu", "Sigmoid", "Softmax", "ArgMax", "Resize", "Conv", "Cast"),
    *("Transpose", "Reshape", "Concat", "Slice", "Gather", "Identity", "MaxPool", "AveragePool"),
    *(
        "QuantizeLinear",
        "DequantizeLinear",
        "Clip",
        "Pad",
        "Squeeze",
        "Unsqueeze",
        "Shape",
        "Where",
    ),
    *(
        "MatMul",
        "Gemm",
        "Expand",
        "Tile",
        "ReduceMean",
        "ConvTranspose",
        "If",
        "Loop",
        "NoSuchThing",
    ),
)
_SIDES = (0, 1, 2, 3, 16, 19, 32, 48, 64, -1)
_INTEGERS = (*_SIDES, 7, 255, 2**31 - 1, 2**31, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -0.0, 1.0, 0.5, -1.0, 1e30, 1e-30, float("inf"), float("nan"))


@cache
def _right() -> list[bytes]:
    return _seeds()


def _seeds() -> list[bytes]:
    two = LabelSet("two", ("a", "b"), ((0, 0, 0), (255, 0, 0)))
    kinds: list[dict[str, Any]] = [
        {},
        {"head": "labels"},
        {"size": None, "describe": {"min_side": 1}},
        {"half": "out"},
        {"half": "inside", "label_set": two},
        {"describe": {"fit": "letterbox", "preprocessing": {"mean": [1.0, 2.0, 3.0]}}},
        {"label_set": two, "describe": {"upsampling": "half-pixel", "stride": 4}},
        {"batch": 1, "head": "labels", "label_set": two},
    ]
    found = []
    with TemporaryDirectory() as folder:
        for kind in kinds:
            path = build_model(Path(folder) / "tiny.onnx", **{"size": (32, 48), **kind})
            found.append(path.read_bytes())
    return found


def changed_model(data: bytes, rng: Random) -> bytes:
    """Another graph or other metadata, mostly stamped anew."""
    if rng.random() < 0.5:  # what was changed often enough opens no more
        data = rng.choice(_right())
    way = rng.random()
    if way < 0.05:
        return changed_bytes(data, rng)
    if way < 0.15:
        return _stamped(changed_message(data, rng), rng)
    if way < 0.25:
        return _with_other_metadata(data, rng)
    if way < 0.65:
        return _stamped(changed_weights(data, rng), rng)
    return _stamped(changed_graph(data, rng), rng)


def _metadata_of(data: bytes) -> str | None:
    try:
        return find_entry(io.BytesIO(data), len(data)).text
    except (EOFError, ValueError):
        return None


def _stamped(data: bytes, rng: Random) -> bytes:
    """The file with its digest, if it still has metadata."""
    text = _metadata_of(data)
    if text is None or rng.random() < 0.05:
        return data
    with suppress(ModelError, EOFError, ValueError, UnicodeError):
        return stamped(data, ArtefactMetadata.from_json(text))
    return data


def _with_other_metadata(data: bytes, rng: Random) -> bytes:
    text = _metadata_of(data)
    if text is None:
        return changed_bytes(data, rng)
    other = changed_json(text.encode(), rng).decode("utf-8", "replace")
    with suppress(ModelError, LabelSetError):
        return stamped(data, ArtefactMetadata.from_json(other))
    return with_entry(data, other)


def _parsed(data: bytes) -> Any:
    """The model of a file; None if it is none."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return None
    return model


def changed_weights(data: bytes, rng: Random) -> bytes:
    """The same graph with other numbers in a tensor: of any bits, or of any size."""
    model = _parsed(data)
    if model is None:
        return changed_bytes(data, rng)
    tensors = [tensor for tensor in model.graph.initializer if tensor.raw_data]
    if not tensors:
        return changed_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 2, 8))):
        tensor = rng.choice(tensors)
        content = bytearray(tensor.raw_data)
        at = rng.randrange(0, len(content), 4)
        value = rng.choice((*_FLOATS, rng.uniform(-3, 3), None))
        content[at : at + 4] = (rng.randbytes(4) if value is None else np.float32(value).tobytes())[
            : len(content) - at
        ]
        tensor.raw_data = bytes(content)
    return bytes(model.SerializeToString())


def changed_graph(data: bytes, rng: Random) -> bytes:
    """The same file with one to three parts of its graph changed: nodes, shapes, types, tensors."""
    model = _parsed(data)
    if model is None:
        return changed_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(model.graph))
        if not places:
            break
        message, field = rng.choice(places)
        with suppress(ValueError, TypeError, OverflowError):  # what protobuf cannot hold
            _change(message, field, places, rng)
    return bytes(model.SerializeToString())


def _places(message: Any) -> Iterator[tuple[Any, Any]]:
    """Every (message, field) that is set."""
    for field, value in message.ListFields():
        yield message, field
        if field.type == field.TYPE_MESSAGE:
            for inner in value if field.is_repeated else (value,):
                yield from _places(inner)


def _change(message: Any, field: Any, places: list[tuple[Any, Any]], rng: Random) -> None:
    name = field.name
    value = getattr(message, name)
    if field.is_repeated:
        at = rng.randrange(len(value))
        way = rng.randrange(4)
        if way == 0:
            del value[at]
        elif way == 1:
            value.extend([value[at]] * rng.choice((1, 1, 40)))
        elif way == 2 and field.type != field.TYPE_MESSAGE:
            value[at] = _scalar(field, value[at], places, rng)
        elif field.type == field.TYPE_MESSAGE:
            value[at].CopyFrom(rng.choice(value))
    elif field.type == field.TYPE_MESSAGE:
        same = [m for m, _ in places if m.DESCRIPTOR is value.DESCRIPTOR]
        if same and rng.random() < 0.7:
            value.CopyFrom(rng.choice(same))
        else:
            message.ClearField(name)
    elif rng.random() < 0.1:
        message.ClearField(name)
    else:
        setattr(message, name, _scalar(field, value, places, rng))


def _scalar(field: Any, value: Any, places: list[tuple[Any, Any]], rng: Random) -> Any:
    """Another value of a field that is no message."""
    if isinstance(value, bytes):
        return changed_bytes(value, rng)
    if isinstance(value, str):
        if field.name == "op_type":
            return rng.choice(_OPERATORS)
        names = [m.name for m, f in places if f.name == "name"]
        texts = [t for m, f in places if f.name in ("input", "output") for t in getattr(m, f.name)]
        return rng.choice((*names, *texts, "", "x", value + "\0", "é" * 9, "location", "../../x"))
    if isinstance(value, float):
        return rng.choice((*_FLOATS, value * 2))
    return rng.choice((*_INTEGERS, value + 1, value - 1))


def _prepare(folder: Path) -> Run:
    path = folder / "model.onnx"

    def run(data: bytes) -> Iterator[str]:
        path.write_bytes(data)
        refused: IcnetError | None = None
        for runtime in _RUNTIMES:
            try:
                yield from _opened_and_run(path, runtime)
            except InputError as error:
                refused = refused or error
            except BackendError as error:
                refused = error
        if refused is not None:
            raise refused

    return run


def _opened_and_run(path: Path, runtime: str) -> Iterator[str]:
    from icnet_deploy.runtime import Predictor

    with Predictor.from_onnx(path, runtime, "cpu", 1) as predictor:
        yield f"opened by {runtime}"
        height, width = predictor.size_near((32, 48))
        if max(height, width) > _LARGEST:
            return
        for size in ((height, width), (33, 20)):
            prediction = predictor.predict(np.zeros((*size, 3), np.uint8))
            assert prediction.labels.shape == size
            assert int(prediction.labels.max(initial=0)) < len(prediction.label_set)
        yield f"run by {runtime}"


_FOREIGN = ("hand-resizes", "script-float16", "tensorflow-argmax", "paddle-softmax")


@cache
def _foreign() -> tuple[bytes, ...]:
    folder = Path("tests/export/adopt/files")
    return tuple((folder / f"{name}.onnx").read_bytes() for name in _FOREIGN)


def _prepare_adopted(folder: Path) -> Run:
    from icnet_deploy.export.adopt.adoption import adopt
    from icnet_deploy.export.adopt.request import Request
    from icnet_deploy.networks.preprocessing import load_preprocessing

    path, unit = folder / "foreign.onnx", load_preprocessing("unit")

    def run(data: bytes) -> Iterator[str]:
        path.write_bytes(data)
        for label_set in (LabelSet("f", tuple("abcde"), ((0, 0, 0),) * 5), CITYSCAPES):
            with suppress(LabelSetError):
                adopt(path, folder / "adopted.onnx", Request(label_set, unit))
                yield "adopted"
                return
        raise InputError("the file has neither 5 nor 19 classes; expected one of them")

    return run


def _changed_foreign(data: bytes, rng: Random) -> bytes:
    if rng.random() < 0.5:
        data = rng.choice(_foreign())
    way = rng.random()
    if way < 0.3:
        return changed_weights(data, rng)
    return changed_message(data, rng) if way < 0.5 else changed_graph(data, rng)


TARGETS = (
    Target(
        "models",
        "ONNX files, on ONNX Runtime and OpenVINO",
        _seeds,
        changed_model,
        _prepare,
        130_000,
        may_fail=True,
        seconds=60,
        megabytes=2048,
    ),
    Target(
        "adopted",
        "ONNX files of other programs, adopted",
        lambda: list(_foreign()),
        _changed_foreign,
        _prepare_adopted,
        2_000,
        may_fail=True,
        seconds=120,
        megabytes=2048,
    ),
)
