"""Adaptive pools, said in operators that every exporter and every runtime has."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_AVERAGES = (F.adaptive_avg_pool2d, torch._C._nn.adaptive_avg_pool2d)


class PlainPools(TorchFunctionMode):
    """While it is entered, adaptive pools are computed by other operators, with the same answers.

    torch's exporters write one as a pool of one window, which is right where each side is a whole
    multiple of its bins. Else one of them fails and the other gathers each window by its indices;
    where sizes are free, that one writes the example's window, which is wrong at any other.

    Here a pool to one bin is a mean or a maximum over the map. An average to b bins of n pixels is
    a product with a b x n matrix on each side; a maximum is one of slices. Of whole multiples at a
    known size the exporter's own pool stays, which is faster.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Answers a call in place of torch, or hands it on."""
        named = kwargs or {}
        if func in _AVERAGES:
            return _average(func, *args, **named)
        if func is F.adaptive_max_pool2d and not (
            named.get("return_indices") or args[2:] == (True,)
        ):
            return _largest(func, *args, **named)
        return func(*args, **named)


def _average(func: Callable[..., Any], input: Tensor, output_size: Any) -> Tensor:  # noqa: A002
    bins = _bins(input, output_size)
    if bins == (1, 1):
        return input.mean((-2, -1), keepdim=True)
    if _even(input, bins):
        result: Tensor = func(input, output_size)
        return result
    rows, columns = (_matrix(n, b) for n, b in zip(input.shape[-2:], bins, strict=True))
    return rows @ (input @ columns.T)


def _largest(
    func: Callable[..., Any],
    input: Tensor,  # noqa: A002
    output_size: Any,
    return_indices: bool = False,
) -> Tensor:
    bins = _bins(input, output_size)
    if bins == (1, 1):
        return input.amax((-2, -1), keepdim=True)
    if _even(input, bins):
        result: Tensor = func(input, output_size)
        return result
    for axis, count in zip((-2, -1), bins, strict=True):
        side = input.shape[axis]
        # A quotient is rounded down by torch and towards zero by ONNX: none is below zero here.
        windows = [(i * side // count, (i * side + side - 1) // count + 1) for i in range(count)]
        parts = [input.narrow(axis, a, b - a).amax(axis, keepdim=True) for a, b in windows]
        input = torch.cat(parts, axis)  # noqa: A001
    return input


def _bins(image: Tensor, output_size: Any) -> tuple[int, int]:
    height, width = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * 2
    sides = image.shape[-2:]
    return (sides[0] if height is None else height, sides[1] if width is None else width)


def _even(image: Tensor, bins: tuple[int, int]) -> bool:
    """Whether both sides are known, and whole multiples of the bins."""
    return all(type(n) is int and n % b == 0 for n, b in zip(image.shape[-2:], bins, strict=True))


def _matrix(side: int, bins: int) -> Tensor:
    """bins x side: in each row the share of every pixel in its window's mean.

    The window i holds the pixels x from floor(i n / b) to ceil((i + 1) n / b), without that one;
    in whole numbers and without a division: b (x + 1) > i n, and b x < (i + 1) n.
    """
    x = torch.arange(side)[None, :]
    i = torch.arange(bins)[:, None]
    inside = ((x + 1) * bins > i * side) & (x * bins < (i + 1) * side)
    share = inside.to(torch.float32)
    return share / share.sum(1, keepdim=True)
