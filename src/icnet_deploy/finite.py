"""Whether all numbers of a network are numbers: one check and one text, for whatever holds them.

A weight that is not a number gives an answer all the same: a class that can never win, or one label
for every pixel. Some runtimes hide it besides (OpenVINO's ReLU makes a zero of NaN). So whoever
reads, writes or converts weights calls this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import IcnetError, ModelError
from icnet_deploy.integrity import tensors
from icnet_deploy.protobuf import BYTES, Field, fields_of, varints

_NAMED = 4  # tensors that a message names

# Of a TensorProto in onnx.proto.
_TYPE, _FLOATS, _INTEGERS, _NAME, _RAW, _DOUBLES = 2, 4, 5, 8, 9, 10
_FLOAT, _FLOAT16, _DOUBLE, _BFLOAT16 = 1, 10, 11, 16
_KINDS = {_FLOAT: "<f4", _FLOAT16: "<f2", _DOUBLE: "<f8", _BFLOAT16: "<u2"}


def require_finite(
    arrays: Iterable[tuple[str, npt.NDArray[Any]]],
    whose: str,
    advice: str,
    error: type[IcnetError] = ModelError,
) -> None:
    """Refuses tensors that hold a value which is infinite or not a number.

    Args:
        arrays: names and values, floats of any shape.
        whose: what they are of, for the message: a file, a network.
        advice: what the user can do, for the end of the message.
        error: what is raised.

    Raises:
        ModelError, or `error`: a value is not finite; the message names the tensors, and of each
            how many values.
    """
    broken = []
    for name, values in arrays:
        count = values.size - int(np.count_nonzero(np.isfinite(values)))
        if count:
            broken.append(f"{name} ({count} of {values.size} values)")
    if broken:
        more = f" and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        raise error(
            f"{whose} holds numbers that are infinite or not numbers, in "
            f"{', '.join(broken[:_NAMED])}{more}: {advice}"
        )


def require_finite_graph(
    content: bytes, whose: str, advice: str, error: type[IcnetError] = ModelError
) -> None:
    """`require_finite` of all float constants in an ONNX file, wherever in the graph they stand.

    It needs no package but NumPy. Constants whose data lie in another file are not looked at.

    Args:
        content: the file's bytes.
        whose, advice, error: as for `require_finite`.

    Raises:
        ModelError, or `error`: a value is not finite.
        EOFError, ValueError: this is no ONNX file.
    """
    arrays = (array for tensor in tensors(content) for array in _float_tensor(tensor))
    require_finite(arrays, whose, advice, error)


def _float_tensor(message: bytes) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """A TensorProto's name and values; nothing if they are no floats."""
    kind, name, parts, integers = 0, "a constant without a name", list[bytes](), list[Field]()
    for field in fields_of(message, (_FLOATS, _INTEGERS, _NAME, _RAW, _DOUBLES)):
        if field.number == _TYPE:
            kind = field.value
        elif field.number == _NAME:
            name = field.data.decode("utf-8", "replace") or name
        elif field.number in (_FLOATS, _RAW, _DOUBLES):
            parts.append(field.data)
        elif field.number == _INTEGERS:
            integers.append(field)
    if kind not in _KINDS:
        return
    for field in integers:  # 16 bits each, packed or one by one
        bits = varints(field.data) if field.wire == BYTES else [field.value]
        parts.append(np.array(bits, "<u2").tobytes())
    values = np.frombuffer(b"".join(parts), _KINDS[kind])
    if kind == _BFLOAT16:  # the upper half of a float32
        values = (values.astype("<u4") << 16).view("<f4")
    yield name, values
