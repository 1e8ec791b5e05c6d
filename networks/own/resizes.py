"""The calls of `interpolate` in a network's forward pass: seen, or one of them left out."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_SIGNATURE = inspect.signature(F.interpolate)

_SQUASHING = {
    torch.sigmoid: "sigmoid",
    torch.sigmoid_: "sigmoid",
    torch.special.expit: "sigmoid",
    Tensor.sigmoid: "sigmoid",
    Tensor.sigmoid_: "sigmoid",
    F.sigmoid: "sigmoid",
    F.hardsigmoid: "hard sigmoid",
    torch.softmax: "softmax",
    Tensor.softmax: "softmax",
    F.softmax: "softmax",
    torch.log_softmax: "log-softmax",
    Tensor.log_softmax: "log-softmax",
    F.log_softmax: "log-softmax",
}


@dataclass(frozen=True)
class _Seen:
    """A call, and what it gave."""

    result: Tensor
    version: int

    @property
    def channels(self) -> int | None:
        """Of its result, where that is N x C x h x w."""
        return int(self.result.shape[1]) if self.result.dim() == 4 else None

    def gave(self, tensor: Tensor) -> bool:
        """Whether a tensor is its result, unchanged: an Identity or a Dropout may lie between."""
        same = tensor.data_ptr() == self.result.data_ptr() and tensor.shape == self.result.shape
        same = same and tensor.stride() == self.result.stride()
        return same and self.result._version == self.version


@dataclass(frozen=True)
class _Resize(_Seen):
    """A call of `interpolate`.

    Attributes:
        rule: of `UPSAMPLINGS`.
    """

    rule: str


class Resizes(TorchFunctionMode):
    """While it is entered, it sees every bilinear resize of what runs.

    It works under `torch.export` and `torch.jit.trace`, too: both run the module's own Python.

    Args:
        left_out: the call that gives its input back, unresized, counted from 0; None: none.

    Attributes:
        calls: the resizes that were done, in their order.
        squashed: the sigmoids and softmaxes: what they are called, and what they gave.
    """

    def __init__(self, left_out: int | None = None) -> None:
        super().__init__()
        self.calls: list[_Resize] = []
        self.squashed: list[tuple[str, _Seen]] = []
        self._left_out, self._count = left_out, 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        # Others are not counted: some networks pool by mode="area" where they are exported alone.
        rule = _rule(args, named) if func is F.interpolate else None
        if rule is not None:
            self._count += 1
            if self._count - 1 == self._left_out:
                return args[0] if args else named["input"]
        result = func(*args, **named)
        if self._left_out is not None or not isinstance(result, Tensor):
            return result
        if rule is not None:
            self.calls.append(_Resize(result, result._version, rule))
        elif func in _SQUASHING:
            self.squashed.append((_SQUASHING[func], _Seen(result, result._version)))
        return result


def _rule(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    call = _SIGNATURE.bind(*args, **kwargs)
    call.apply_defaults()
    if call.arguments["mode"] != "bilinear" or call.arguments["antialias"]:
        return None
    return "aligned-corners" if call.arguments["align_corners"] else "half-pixel"
