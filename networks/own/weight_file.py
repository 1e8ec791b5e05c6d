"""The tensors in a file of weights. Nothing in a file is ever executed."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from os.path import isdir, isfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from icnet_deploy.errors import ModelError
from icnet_deploy.files import open_file
from icnet_deploy.networks.released.layer import kind_of

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_LONGEST_HEADER = 100_000_000  # bytes: what the format allows
_DEEPEST = 3
"""Dicts within dicts that are looked into, as `{"checkpoint": {"model": {"state_dict": ...}}}`."""

_NO_WEIGHTS = ("optim", "sched", "scaler")
"""In the names of what holds tensors that are no weights."""

_COMMANDS = frozenset(
    {
        *("code", "ctypes", "importlib", "nt", "operator", "os", "pickle", "posix", "pty", "runpy"),
        *("shutil", "socket", "subprocess", "sys", "webbrowser"),
        *(f"builtins.{name}" for name in ("compile", "eval", "exec", "getattr", "open", "setattr")),
        *("builtins.__import__", "builtins.breakpoint", "builtins.input"),
    }
)
"""Modules and functions whose names in a file can only be there to run something."""


@dataclass(frozen=True)
class State:
    """A dict of tensors in a file.

    Attributes:
        keys: under which it lies, the outermost first; empty: it is the whole file.
        tensors: by the file's own names.
    """

    keys: tuple[str, ...]
    tensors: Mapping[str, Tensor]

    def __str__(self) -> str:
        return ".".join(self.keys)


class _Inert:
    """What stands for a class or a function that a file names: it does nothing."""

    path = ""
    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    @property
    def is_module(self) -> bool:
        """Whether it is a `torch.nn.Module`, by what each of them keeps."""
        return isinstance(self.state, dict) and {"_parameters", "_modules"} <= self.state.keys()


def read_states(path: Path) -> list[State]:
    """Every dict of tensors in a file, the outermost first.

    Args:
        path: `.safetensors`, or what `torch.save` wrote, by whichever name.

    Raises:
        ModelError: there is no such file, it is cut off or of another kind, or it holds code: a
            pickled module or TorchScript.
    """
    if not isfile(path):
        there = "it is a folder" if isdir(path) else "there is no such file"
        raise ModelError(
            f"cannot read the weights {path}: {there}; expected a .safetensors file, or a .pth "
            "that torch.save wrote of a state dict"
        )
    with open_file(path) as file:
        head = file.read(256)
    pickled = head.startswith((_ZIP, _PICKLE))
    # A safetensors file begins with the length of its header, which may look like a pickle's start.
    if head[8:9] == b"{" and (not pickled or int.from_bytes(head[:8], "little") < _LONGEST_HEADER):
        value = _safetensors(path)
    elif pickled:
        value = _unpickled(path, head.startswith(_ZIP))
    else:
        kind = kind_of(head) or "neither a .safetensors nor a .pth file"
        raise ModelError(f"{path} has no weights: it is {kind}")
    _refuse_modules(path, value)
    states = list(_states(value, ()))
    if not states:
        raise ModelError(
            f"{path} holds {_shown(value)}; expected a dict of tensors, as "
            "torch.save(network.state_dict(), FILE) writes it"
        )
    return states


def is_dense(value: Tensor) -> bool:
    """Whether a tensor's values lie in the file one by one, at least one: a view may claim any
    number of them."""
    plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    return plain and 0 < value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(safetensors.torch.load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is not a whole safetensors file: {error}") from error


def _unpickled(path: Path, zipped: bool) -> Any:
    """What `torch.save` wrote; classes that are no tensors become `_Inert`."""
    unknown = _unknown_names(path) if zipped else []
    if bad := [name for name in unknown if {name, name.partition(".")[0]} & _COMMANDS]:
        raise ModelError(
            f"{path} is refused: it names {', '.join(bad)}, which no weights need; nothing in it "
            "was run"
        )
    inert: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (type("_Inert", (_Inert,), {"path": name}), name) for name in unknown
    ]
    try:
        with torch.serialization.safe_globals(inert), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        names = f" ({', '.join(unknown[:4])})" if unknown else ""
        raise ModelError(
            f"{path} holds more than tensors{names}, and cannot be read without running its code; "
            f"{_advice(path, 'torch.load', ', weights_only=False')}"
        ) from error
    except Exception as error:  # broken bytes can do anything to an unpickler
        raise ModelError(
            f"{path} is not a whole file of torch.save ({type(error).__name__}: {error}): it was "
            "cut off, or is another kind of file"
        ) from error


def _unknown_names(path: Path) -> list[str]:
    """The classes and functions that a file names, but for those of tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
            raise ModelError(
                f"{path} is a TorchScript archive, which holds a program: only weights are read; "
                f"{_advice(path, 'torch.jit.load')}"
            )
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{path} is not a whole file of torch.save ({type(error).__name__}: {error}): it was "
            "cut off, or is another kind of file"
        ) from error


def _advice(path: Path, load: str, more: str = "", key: str = "") -> str:
    """The two lines that make a state dict of what holds code."""
    out = f"{path.stem}-state.pth"
    return (
        "if you trust it, make a state dict of it in Python: "
        f'network = {load}("{path}", map_location="cpu"{more}){key} ; '
        f'torch.save(network.state_dict(), "{out}")'
    )


def _refuse_modules(path: Path, value: Any) -> None:
    """ModelError for a pickled module, or where the weights are those of one."""
    held = {"": value} | (dict(value) if isinstance(value, Mapping) else {})
    for key, one in held.items():
        if isinstance(one, _Inert) and one.is_module:
            where = f", under {key!r}" if key else ""
            index = f"[{key!r}]" if key else ""
            advice = _advice(path, "torch.load", ", weights_only=False", index)
            raise ModelError(
                f"{path} holds a pickled module, {one.path}{where}, and cannot be read without "
                f"running its code; {advice}"
            )


def _states(value: Any, keys: tuple[str, ...]) -> Iterator[State]:
    if not isinstance(value, Mapping):
        return
    named = {key: one for key, one in value.items() if isinstance(key, str)}
    tensors = {key: one for key, one in named.items() if isinstance(one, Tensor)}
    if tensors:
        yield State(keys, tensors)
    if len(keys) < _DEEPEST:
        for key, one in named.items():
            if not any(part in key.lower() for part in _NO_WEIGHTS):
                yield from _states(one, (*keys, key))


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(repr, list(value)[:6]))}" if value else "an empty dict"
    return f"a value of {getattr(type(value), 'path', '') or type(value).__name__}"
