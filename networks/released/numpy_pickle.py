"""Reads the layers of the NumPy form, a dict that was pickled into an .npy, without running it.

A pickle is a program: it may name any function of the machine and have it called. Here every name
resolves to a stand-in of this file or to nothing, and not even NumPy's own functions are called
with what the file says, since a forged dtype makes NumPy take numbers for addresses.
"""

import io
import pickle
import pickletools
import re
from typing import Any, NoReturn

import numpy as np

from icnet_deploy.networks.released.layer import Array, Layer, Unusable

MAGIC = np.lib.format.MAGIC_PREFIX


class _StandIn:
    """What a name resolves to; a pickle can make one, and change nothing of it."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("an unexpected state")


class _Dtype(_StandIn):
    """`numpy.dtype`: a code such as `f4`; the order of its bytes comes as its state."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def read(self, data: bytes | str) -> np.ndarray[Any, Any]:
        """Numbers from bytes; Python 2's come as Latin-1 text."""
        if not re.fullmatch(r"[fiu][1248]", self.code) or self.order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"an array of {self.code!r} where numbers are due")
        raw = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(raw, self.order + self.code)


class _Array(_StandIn):
    """`numpy.ndarray`, and the function that pickles make one with: empty until its state comes."""

    def __init__(self, *_: Any) -> None:
        self.numbers: np.ndarray[Any, Any] | None = None
        self.items: list[Any] = []

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if isinstance(data, list):
            self.items = data
        else:
            self.numbers = dtype.read(data).reshape(shape, order="F" if fortran else "C")


class _Scalar(_Array):
    """`numpy.core.multiarray.scalar`."""

    def __init__(self, dtype: _Dtype, data: bytes | str) -> None:
        super().__init__()
        self.numbers = dtype.read(data).reshape(())


class _Latin1(_StandIn):
    """`_codecs.encode`, in which Python 3 wraps bytes that Python 2 shall be able to read."""

    def __new__(cls, text: str, encoding: str) -> Any:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
        return text.encode("latin1")


_NAMES: dict[tuple[str, str], type[_StandIn]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Latin1,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # until NumPy 2, and since
    _NAMES |= {(_module, "_reconstruct"): _Array, (_module, "scalar"): _Scalar}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_StandIn]:
        if (module, name) not in _NAMES:
            raise _refused(f"{module}.{name}")
        return _NAMES[module, name]

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _refused(f"the object {pid!r} outside the file")


def _refused(what: str) -> Unusable:
    return Unusable(
        f"asks to run or make {what}, which no dict of arrays needs. It was refused, and nothing "
        "was run: do not trust this file"
    )


def numpy_layers(content: bytes) -> list[Layer]:
    """Reads every layer of a dict: layer name -> dict of arrays.

    Kernels are turned from H x W x I x O into O x I x H x W. Nothing that the file asks for is run.

    Raises:
        Unusable: it asks for anything but arrays.
        Exception: it is cut off or of another kind; broken bytes can do anything to an unpickler.
    """
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    dtype = header[version](file)[2]
    if not dtype.hasobject:
        raise ValueError(f"an array of {dtype}, not a dict of layers")
    _require_bounded(file)
    (value,) = _Unpickler(file, encoding="latin1").load().items
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__}, not a dict of layers")
    return [Layer(_text(name), _blobs(entry)) for name, entry in value.items()]


def _require_bounded(file: io.BytesIO) -> None:
    """Refuses places in the unpickler's memory beyond what a file of that length can fill.

    Seven bytes can name the place 2^31, and the unpickler takes memory for all before it.
    """
    start = file.tell()
    for opcode, place, _ in pickletools.genops(file):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(place or 0) > file.tell():
            raise pickle.UnpicklingError(f"the place {place} in a file of fewer bytes")
    file.seek(start)


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _blobs(entry: Any) -> dict[str, Array | None]:
    """A layer's arrays by name; None for what is not numbers."""
    if not isinstance(entry, dict):
        return {"value": None}
    blobs: dict[str, Array | None] = {}
    for key, value in entry.items():
        name = _text(key)
        numbers = value.numbers if isinstance(value, _Array) else None
        if numbers is None:
            blobs[name] = None
            continue
        if name == "weights" and numbers.ndim == 4:
            numbers = numbers.transpose(3, 2, 0, 1)
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and shows
            blobs[name] = numbers.astype(np.float32)
    return blobs
