"""What stands in for small packages on a machine that has only torch and NumPy.

A bar that shows nothing for tqdm, and a reader of checkpoints for safetensors.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any


def stand_in() -> list[str]:
    """Puts a stand-in in the place of what is not installed; returns the packages' names."""
    makers = {"tqdm": _tqdm, "safetensors": _safetensors}
    missing = [name for name in makers if name not in sys.modules and not _there(name)]
    for name in missing:
        makers[name]()
    return missing


def _there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:  # an import hook that forbids it
        return False


def _module(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__dict__.update(members)
    sys.modules[name] = module
    return module


class _Bar:
    """A `tqdm` that shows nothing."""

    def __init__(self, iterable: Any = (), **_: Any) -> None:
        self._iterable = iterable

    def __iter__(self) -> Iterator[Any]:
        return iter(self._iterable)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def _tqdm() -> None:
    _module("tqdm", tqdm=_Bar)


class _SafetensorError(Exception):
    pass


class _File:
    def __init__(self, path: Any) -> None:
        self._path = path

    def metadata(self) -> dict[str, str] | None:
        return read_safetensors(self._path)[1]


@contextmanager
def _safe_open(path: Any, **_: Any) -> Iterator[_File]:
    yield _File(path)


def _safetensors() -> None:
    inner = _module("safetensors.torch", load_file=lambda path: read_safetensors(path)[0])
    _module("safetensors", SafetensorError=_SafetensorError, safe_open=_safe_open, torch=inner)


def read_safetensors(path: str | Path) -> tuple[dict[str, Any], dict[str, str] | None]:
    """Reads a file of float tensors.

    The format (github.com/huggingface/safetensors): the header's length in 8 bytes, little-endian;
    the header in JSON; the tensors' bytes, from whose start the header counts.

    Returns:
        Name -> tensor, and the file's own metadata.

    Raises:
        ValueError: it is cut off, or holds other types.
    """
    import torch

    data = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    if start > len(data):
        raise ValueError(f"{path} is cut off in its header")
    header = json.loads(data[8:start])
    metadata = header.pop("__metadata__", None)
    kinds = {"F16": torch.float16, "F32": torch.float32}
    tensors = {}
    for name, told in header.items():
        first, last = (start + side for side in told["data_offsets"])
        if told["dtype"] not in kinds or last > len(data):
            raise ValueError(f"{path}: {name} is {told['dtype']}, or is cut off")
        flat = torch.frombuffer(data[first:last], dtype=kinds[told["dtype"]])
        tensors[name] = flat.reshape(told["shape"])
    return tensors, metadata
