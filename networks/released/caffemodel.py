"""Reads the layers of a Caffe file, a protobuf message NetParameter, without Caffe or protobuf.

Field numbers are those of BVLC's `caffe.proto`. The layers' types are not looked at: the authors'
own build of Caffe names them differently from the published definition.
"""

import math
from typing import NamedTuple

import numpy as np

from icnet_deploy.networks.released.layer import Array, Layer, Unusable
from icnet_deploy.protobuf import BYTES, VARINT, fields_of, varints


class _Message(NamedTuple):
    """Where a kind of layer keeps its name and its blobs."""

    name: int
    blobs: int


_LAYERS = {
    100: _Message(name=1, blobs=7),  # NetParameter.layer: LayerParameter
    2: _Message(name=4, blobs=6),  # NetParameter.layers: V1LayerParameter, until 2014
}
_HIGHEST = 100  # of NetParameter's numbers
_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8  # BlobProto
_OLD_SHAPE = (1, 2, 3, 4)  # num, channels, height, width, until 2014
_DIM = 1  # BlobShape


def caffe_layers(content: bytes) -> list[Layer]:
    """Reads every layer that holds a blob, in the file's order.

    Raises:
        Unusable: it holds no weights.
        EOFError, ValueError: it is cut off, or of another kind.
    """
    layers: dict[str, Layer] = {}
    count = 0
    for field in fields_of(content, _LAYERS):
        if field.number > _HIGHEST:
            raise ValueError(f"no field has number {field.number}")
        if field.number == 1 and field.wire == VARINT:
            raise Unusable("is the state of a solver: give the .caffemodel of the same iteration")
        if field.number not in _LAYERS or field.wire != BYTES:
            continue
        count += 1
        layer = _layer(field.data, _LAYERS[field.number])
        if layer.name in layers and layer.blobs:
            raise ValueError(f"two layers are called {layer.name!r}")
        if layer.blobs:
            layers[layer.name] = layer
    if not layers:
        raise Unusable(
            f"holds {count} layers and no weights: give a .caffemodel, which training wrote"
        )
    return list(layers.values())


def _layer(message: bytes, numbers: _Message) -> Layer:
    name, blobs = "", []
    for field in fields_of(message, numbers):
        if field.wire == BYTES and field.number == numbers.name:
            name = field.data.decode("utf-8", "replace")
        elif field.wire == BYTES and field.number == numbers.blobs:
            blobs.append(field.data)
    return Layer(name, {str(i): _blob(blob, name) for i, blob in enumerate(blobs)})


def _blob(message: bytes, layer: str) -> Array:
    """A BlobProto; its numbers may be packed into one field, or have a field each."""
    shape: list[int] | None = None
    old = dict.fromkeys(_OLD_SHAPE, 0)
    single, double = bytearray(), bytearray()
    for field in fields_of(message, (_DATA, _SHAPE, _DOUBLE_DATA)):
        if field.number == _DATA:
            single += field.data
        elif field.number == _DOUBLE_DATA:
            double += field.data
        elif field.number == _SHAPE:
            shape = _shape(field.data)
        elif field.number in old:
            old[field.number] = field.value
    if shape is None:
        shape = list(old.values())
    data = np.frombuffer(single, "<f4") if single else np.frombuffer(double, "<f8")
    if math.prod(shape) != data.size:
        raise ValueError(f"a blob of {layer!r} has the shape {shape}, but {data.size} numbers")
    with np.errstate(over="ignore"):  # a double too large for float32 becomes infinite, and shows
        return data.astype(np.float32).reshape(shape)


def _shape(message: bytes) -> list[int]:
    """A BlobShape, packed or not."""
    shape = []
    for field in fields_of(message, (_DIM,)):
        if field.number == _DIM and field.wire == VARINT:
            shape.append(field.value)
        elif field.number == _DIM:
            shape += varints(field.data)
    return shape
