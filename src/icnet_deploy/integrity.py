"""That an artefact is the file that was written, by a digest, and that its numbers are numbers.

A flipped bit in a weight, a block of zeros from a bad disk or a resumed download leave a file that
loads and labels differently. So what is written is stamped with a SHA-256 over
    1. the file's outermost fields in their order, as they lie in it, but for the metadata's;
    2. the metadata's JSON with the digest's place empty;
    3. the name and the bytes of each file of external data, in the order of the names;
and every reader of the metadata checks it. This proves that nothing changed, not who wrote it.

A weight that is not a number gives an answer all the same: a class that can never win, or one label
for every pixel. Some runtimes hide it besides (OpenVINO's ReLU makes a zero of NaN). So whoever
reads, writes or converts weights calls `require_finite`: one check and one text.

The file is read as protobuf's wire format says, without the onnx package or any runtime. Field
numbers are those of onnx.proto.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from icnet_deploy.errors import IcnetError, ModelError
from icnet_deploy.files import open_file, sha256
from icnet_deploy.protobuf import BYTES, Field, fields, fields_of, varint, varints

if TYPE_CHECKING:
    import numpy.typing as npt

KEY = "icnet_deploy"
"""The name of the one entry in `metadata_props` that is ours."""

_GRAPH, _OPSETS, _METADATA_PROPS = 7, 8, 14
_NEWEST_OPSET = 1000
"""Versions of operators far beyond any: OpenVINO counts up to the one that a file names."""
_HIGHEST = 100
"""Higher than any field of a ModelProto: a file with such a field is no ONNX file."""

_BLOCK = 1 << 20
_MARK = b"location"  # a tensor whose data are external names the file by this key

# Message -> its fields that may hold tensors -> their message.
_INSIDE = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
}
_DEEPEST = 200
"""Messages in one another; protobuf's own readers take 100."""

_EXTERNAL_DATA = 13  # of a TensorProto, entries of key and value

_NAMED = 4  # tensors that a message names

# Of a TensorProto in onnx.proto.
_TYPE, _FLOATS, _INTEGERS, _NAME, _RAW, _DOUBLES = 2, 4, 5, 8, 9, 10
_FLOAT, _FLOAT16, _DOUBLE, _BFLOAT16 = 1, 10, 11, 16
_KINDS = {_FLOAT: "<f4", _FLOAT16: "<f2", _DOUBLE: "<f8", _BFLOAT16: "<u2"}


class Entry(NamedTuple):
    """Our entry of a file's `metadata_props`, and where it lies.

    Attributes:
        text: the metadata's JSON; None if the file has none of ours.
        start, end: the bytes from its tag on to its end; both the file's end if there is none.
        graph: whether the file holds a graph.
    """

    text: str | None
    start: int
    end: int
    graph: bool


def find_entry(file: BinaryIO, total: int) -> Entry:
    """Finds our entry, walking all outermost fields.

    Args:
        file: an ONNX file, at its first byte.
        total: its size in bytes.

    Raises:
        EOFError, ValueError: the file ends inside a field, or is not of this format.
    """
    text: str | None = None
    start = end = total
    graph, begin = False, 0
    for field in fields(file, total, (_OPSETS, _METADATA_PROPS), _HIGHEST):
        if field.number == _OPSETS:
            opset = max((f.value for f in fields_of(field.data, ()) if f.number == 2), default=0)
            if opset > _NEWEST_OPSET:
                raise ValueError(f"it names version {opset} of the operators, which there is not")
        graph = graph or (field.number == _GRAPH and field.wire == BYTES)
        if field.number == _METADATA_PROPS:
            pair = {f.number: f.data for f in fields_of(field.data, (1, 2))}
            if pair.get(1) == KEY.encode():
                if text is not None:
                    raise ValueError(f"it holds the metadata {KEY!r} twice")
                text = pair.get(2, b"").decode("utf-8", "replace")
                start, end = begin, file.tell()
        begin = file.tell()
    return Entry(text, start, end, graph)


def digest_of(file: BinaryIO, total: int, entry: Entry, text: str, folder: Path | None) -> str:
    """The SHA-256 that a file's metadata should name.

    Args:
        file: the ONNX file.
        total: its size in bytes.
        entry: of `find_entry`.
        text: the metadata's JSON, the digest's place empty.
        folder: where its external data lie; None: it may have none.

    Raises:
        ModelError: external data are missing, or lie outside of the folder.
    """
    digest = hashlib.sha256()
    external = False
    for start, end in ((0, entry.start), (entry.end, total)):
        for block, marked in _blocks(file, start, end):
            digest.update(block)
            external = external or marked
    encoded = text.encode("utf-8", "replace")
    digest.update(len(encoded).to_bytes(8) + encoded)
    if external:
        for path, name in _external(file, total, folder):
            digest.update(name.encode() + b"\0" + bytes.fromhex(sha256(path)))
    return digest.hexdigest()


def with_entry(content: bytes, text: str) -> bytes:
    """A file's bytes with this metadata in the place of those that it has, at its end."""
    entry = find_entry(io.BytesIO(content), len(content))
    pair = _field(1, KEY.encode()) + _field(2, text.encode())
    return content[: entry.start] + content[entry.end :] + _field(_METADATA_PROPS, pair)


def artefact_sha256(path: Path) -> str:
    """The SHA-256 of all that is executed: see `artefact_digest`."""
    return artefact_digest(path)[0]


def artefact_digest(path: Path, block: int = _BLOCK) -> tuple[str, list[Path]]:
    """The SHA-256 of all that is executed, and the files that it is of.

    Args:
        path: an ONNX file or an engine.
        block: how many bytes are read at a time.

    Returns:
        The file's SHA-256, or, if it has external data, one over the SHA-256 of all files; and the
        file, and those of its external data, sorted.

    Raises:
        ModelError: external data are missing, or lie outside of the folder.
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    marked = False
    with open_file(path) as file:
        total = os.fstat(file.fileno()).st_size
        for part, here in _blocks(file, 0, total, block):
            digest.update(part)
            marked = marked or here
        external = [one for one, _ in _external(file, total, path.parent)] if marked else []
    if not external:
        return digest.hexdigest(), [path]
    digests = [digest.hexdigest(), *map(sha256, external)]
    return hashlib.sha256("".join(digests).encode()).hexdigest(), [path, *external]


def _blocks(
    file: BinaryIO, start: int, end: int, size: int = _BLOCK
) -> Iterator[tuple[bytes, bool]]:
    """A stretch of a file in blocks, and whether the mark ends in each."""
    file.seek(start)
    before = b""
    while start < end and (block := file.read(min(size, end - start))):
        start += len(block)
        yield block, _MARK in block or _MARK in before + block[: len(_MARK)]
        before = block[-len(_MARK) :]


def _external(file: BinaryIO, total: int, folder: Path | None) -> list[tuple[Path, str]]:
    """The files of external data that tensors name, with their names, sorted."""
    file.seek(0)
    try:
        names = sorted(set(_locations(file.read(total))))
    except (EOFError, ValueError):
        names = []  # the mark stands in bytes that are no tensor
    files = []
    for name in names:
        if folder is None or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(
                f"the model's external data {name!r} lie outside of its folder: keep them beside it"
            )
        path = folder / name
        if not isfile(path):
            raise ModelError(
                f"the model's external data {path} are missing: copy them with the model, or "
                "export it again"
            )
        files.append((path, name))
    return files


def _locations(content: bytes) -> Iterator[str]:
    """The names of the files that the tensors of a model have their data in."""
    for tensor in _tensors(content, _MARK):
        for field in fields_of(tensor, (_EXTERNAL_DATA,)):
            entry = {f.number: f.data for f in fields_of(field.data, (1, 2))}
            if entry.get(1) == _MARK:
                yield entry.get(2, b"").decode("utf-8", "replace")


def _tensors(
    message: bytes, mark: bytes = b"", kind: str = "model", depth: int = 0
) -> Iterator[bytes]:
    """The TensorProtos of an ONNX file that hold these bytes, wherever in the graph they stand.

    Args:
        message: the file's bytes.
        mark: what is looked for; nothing that lacks it is read.
        kind: what the message is, one of `_INSIDE`.
        depth: how many messages it lies in.

    Raises:
        EOFError, ValueError: this is no ONNX file, or no runtime's protobuf reads one nested so.
    """
    if depth > _DEEPEST:
        raise ValueError("its graphs are nested too deeply")
    if mark not in message:
        return
    if kind == "tensor":
        yield message
        return
    inside = _INSIDE[kind]
    for field in fields_of(message, inside):
        if field.wire == BYTES and field.number in inside:
            yield from _tensors(field.data, mark, inside[field.number], depth + 1)


def _field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | BYTES) + varint(len(data)) + data


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
    import numpy as np

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
    arrays = (array for tensor in _tensors(content) for array in _float_tensor(tensor))
    require_finite(arrays, whose, advice, error)


def _float_tensor(message: bytes) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """A TensorProto's name and values; nothing if they are no floats."""
    import numpy as np

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
        parts.append(np.array([each & 0xFFFF for each in bits], "<u2").tobytes())
    values = np.frombuffer(b"".join(parts), _KINDS[kind])
    if kind == _BFLOAT16:  # the upper half of a float32
        values = (values.astype("<u4") << 16).view("<f4")
    yield name, values
