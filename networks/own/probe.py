"""What a network does, found by running it on noise at many sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.networks.layers import resize
from icnet_deploy.networks.own.adapted import logits_of
from icnet_deploy.networks.own.resizes import Resizes

Size = tuple[int, int]

_MULTIPLES = (1, 2, 4, 8, 14, 16, 28, 32, 48, 56, 64, 96, 112, 128, 192, 224, 256, 512)
_SCALES = (128, 320)
"""The shortest sides, in pixels, at which a multiple is looked for: the first may be too small."""

_LEAST_SIDES = (64, 96, 128, 192, 256, 320, 384, 512)
"""From the least that `icnet export` takes."""

_EQUAL = 1e-5
"""Of the logits' spread: two answers closer than that are one, summed in another order."""

_ALIKE = 1e-3
"""The same of an image alone and in a batch, where a convolution may be done in another way."""


@dataclass(frozen=True)
class Behaviour:
    """What a network's forward pass does.

    Attributes:
        channels: of its logits.
        side_multiple: both sides of an image must be multiples of it.
        min_side: the least side that it takes, in pixels, from 64 on.
        stride: pixels from logit to logit; None where no one number says it.
        upsampling: the rule of the resize that was taken off; None: none was.
        left_out: which of its resizes that is, counted from 0.
        whole: its logits have the image's size, as it is run.
        squashed: `sigmoid` or `softmax` where its answer is that of its logits.
        only_size: (height, width) where it takes no other size.
    """

    channels: int
    side_multiple: int
    min_side: int
    stride: int | None
    upsampling: str | None = None
    left_out: int | None = None
    whole: bool = False
    squashed: str | None = None
    only_size: Size | None = None


@dataclass(frozen=True)
class _Run:
    """One run of a network: the image's size, its answer, and its resizes."""

    size: Size
    logits: Tensor
    resizes: Resizes

    @property
    def grid(self) -> Size:
        return self.logits.shape[2], self.logits.shape[3]


class _Refused(Exception):
    """A network does not take a size; the text says what it did."""


def probe(
    module: nn.Module,
    name: str,
    size: Size | None = None,
    multiple: int | None = None,
    keep_resize: bool = False,
) -> Behaviour:
    """Runs a network on noise and says what it does.

    Args:
        module: in eval mode, float32, on the CPU.
        name: what it is called in messages.
        size: (height, width) that it is for; None: any.
        multiple: of its sides, where that was said.
        keep_resize: its last upsampling stays in it.

    Raises:
        InputError: it takes no images, or not of this size; its answer is not logits.
        CheckFailed: its answer is another each time, or depends on other images of the batch.
    """
    runs, found = _multiple(module, name, size, multiple)
    _require_steady(module, name, runs[0].size)
    left_out = None if keep_resize else _last_resize(module, runs)
    behaviour = Behaviour(
        runs[0].logits.shape[1],
        found,
        0,
        None,
        left_out=left_out,
        squashed=_squashed(runs[0]),
        only_size=size if len(runs) == 1 else None,
    )
    if left_out is not None:
        rule = runs[0].resizes.calls[left_out].rule
        runs = [_run(module, run.size, left_out) for run in runs]
        behaviour = replace(behaviour, upsampling=rule)
    behaviour = replace(
        behaviour, stride=_stride(runs), whole=all(run.grid == run.size for run in runs)
    )
    return replace(behaviour, min_side=_min_side(module, found, size, runs))


def _run(module: nn.Module, size: Size, left_out: int | None = None, batch: int = 1) -> _Run:
    """Runs it on noise, the same each time; _Refused where it fails or answers no logits."""
    image = torch.stack([_noise(size, seed) for seed in range(batch)])
    with torch.no_grad(), Resizes(left_out) as resizes:
        try:
            answer = module(image)
        except Exception as error:
            raise _Refused(f"it raised {type(error).__name__}: {error}") from error
    try:
        logits = logits_of(answer)
    except ValueError as error:
        raise _Refused(f"it answered with {error}") from error
    shape = tuple(logits.shape)
    if not logits.is_floating_point():
        raise _Refused(f"it answered with {logits.dtype} of {shape}, which are no logits")
    if logits.ndim != 4 or shape[0] != batch:
        raise _Refused(f"it answered with a tensor of {shape}, which is not N x C x h x w")
    if shape[2] > size[0] or shape[3] > size[1]:
        raise _Refused(f"its logits are {shape[2]}x{shape[3]}, larger than the image")
    return _Run(size, logits, resizes)


def _noise(size: Size, seed: int) -> Tensor:
    return torch.randn((3, *size), generator=torch.Generator().manual_seed(seed))


def _sizes(multiple: int, least: int) -> list[Size]:
    """Sizes whose sides are multiples, and of nothing else: each remainder of 8 is there."""
    first = -(-least // multiple)
    if multiple > 32:
        first = max(1, first)
        return [((first + 2) * multiple, (first + 1) * multiple), (first * multiple,) * 2]
    pairs = ((1, 6), (2, 7), (3, 4), (5, 0))
    return [((first + a) * multiple, (first + b) * multiple) for a, b in pairs]


def _multiple(
    module: nn.Module, name: str, size: Size | None, said: int | None
) -> tuple[list[_Run], int]:
    """The least multiple of its sides that it takes, and its runs at sizes of that."""
    reason = ""
    for least in _SCALES:
        for multiple in _MULTIPLES if said is None else (said,):
            try:
                runs = [_run(module, size, None) for size in _sizes(multiple, least)]
            except _Refused as refused:
                reason = str(refused)
                continue
            return runs, multiple
    if size is not None:
        try:
            return [_run(module, size)], 1
        except _Refused as refused:
            reason = str(refused)
    raise InputError(
        f"{name} does not take images: of float N x 3 x H x W, {reason}; expected logits, N x C x "
        "h x w"
    )


def _last_resize(module: nn.Module, runs: Sequence[_Run]) -> int | None:
    """Which of its resizes gives its answer and can be done after it just as well."""
    calls = runs[0].resizes.calls
    for index in reversed(range(len(calls))):
        if all(_is_last(run, index, len(calls)) for run in runs):
            return index if all(_same_without(module, run, index) for run in runs) else None
    return None


def _is_last(run: _Run, index: int, count: int) -> bool:
    calls = run.resizes.calls
    return (
        len(calls) == count
        and calls[index].rule is not None
        and calls[index].gave(run.logits)
        and run.grid == run.size
    )


def _same_without(module: nn.Module, run: _Run, index: int) -> bool:
    rule = run.resizes.calls[index].rule
    try:
        small = _run(module, run.size, index)
    except _Refused:
        return False
    if rule is None or small.grid == run.size:
        return False
    return _equal(resize(small.logits, run.size, rule), run.logits, _EQUAL)


def _equal(one: Tensor, other: Tensor, share: float) -> bool:
    return float((one - other).abs().max()) <= share * float(other.std())


def _stride(runs: Sequence[_Run]) -> int | None:
    (height, _), (rows, _) = runs[0].size, runs[0].grid
    for stride in range(max(1, height // rows - 1), -(-height // rows) + 2):
        if all(
            grid == -(-side // stride)
            for run in runs
            for side, grid in zip(run.size, run.grid, strict=True)
        ):
            return stride
    return None


def _min_side(module: nn.Module, multiple: int, size: Size | None, runs: Sequence[_Run]) -> int:
    """The least side, of a few, that it takes."""
    if len(runs) == 1:
        return min(runs[0].size)
    for least in _LEAST_SIDES:
        side = -(-least // multiple) * multiple
        try:
            _run(module, (side, side))
        except _Refused:
            continue
        return min(side, *size) if size is not None else side
    return min(min(run.size) for run in runs)


def _squashed(run: _Run) -> str | None:
    return next((kind for kind, seen in run.resizes.squashed if seen.gave(run.logits)), None)


def _require_steady(module: nn.Module, name: str, size: Size) -> None:
    """CheckFailed where its answer to an image is not one and the same."""
    one, again = (_run(module, size).logits for _ in range(2))
    if not torch.equal(one, again):
        raise CheckFailed(
            f"{name} gives another answer to the same image each time: a dropout that is on in "
            "eval mode, or a state that it writes? Such a network cannot be exported"
        )
    try:
        two = _run(module, size, batch=2).logits[:1]
    except _Refused as refused:
        raise InputError(f"{name} takes one image at a time: of two, {refused}") from refused
    if not _equal(two, one, _ALIKE):
        raise CheckFailed(
            f"{name}'s answer to an image depends on the other images of the batch: a batch norm "
            "that is not in eval mode?"
        )
