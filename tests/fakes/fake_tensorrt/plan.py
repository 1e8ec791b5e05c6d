"""The plan that a fake builder writes: TensorRT's own header, then what the fake needs.

The header is as `trtexec --getPlanVersionOnly` reads it: "ftrt", a version of the layout, and at
byte 24 the version of TensorRT in four bytes.
"""

from __future__ import annotations

import json
import struct

MAGIC = b"ftrt"
_HEADER = struct.Struct("<4sI16x4B4xQ")


def numbers(version):
    """`10.16.1.11` as the four bytes of a header."""
    return tuple(int(part) & 0xFF for part in version.split("."))


def write_plan(version, about, model):
    """The bytes of a plan; `about` is JSON, `model` an ONNX file."""
    text = json.dumps(about).encode()
    return _HEADER.pack(MAGIC, 0, *numbers(version), len(text)) + text + model


def read_plan(data):
    """(version in four numbers, about, ONNX file); ValueError where it is no whole plan."""
    data = bytes(data)
    if len(data) < _HEADER.size or data[:4] != MAGIC:
        raise ValueError("Magic tag does not match")
    _, _, *version, length = _HEADER.unpack_from(data)
    if len(data) < _HEADER.size + length:
        raise ValueError("the plan is cut off")
    text = data[_HEADER.size : _HEADER.size + length]
    return tuple(version), json.loads(text), data[_HEADER.size + length :]
