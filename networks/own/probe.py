"""What a network does, found by running it on noise at many sizes."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import gcd

import torch
from torch import nn

from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.networks.layers import resize
from icnet_deploy.networks.own.runs import NoLogits, Refused, Run, Size, are_equal, run_on_noise

_MULTIPLES = (1, 2, 4, 8, 14, 16, 28, 32, 48, 56, 64, 96, 112, 128, 192, 224, 256, 512)
_SCALES = {128: 64, 320: 512}
"""Shortest sides, in pixels, at which multiples up to a largest are looked for.

The first may be too small for a network, so that it would only take sides of a larger multiple.
"""

_PAIRS = {
    2: ((1, 6), (15, 20), (35, 45), (58, 64)),
    4: ((1, 6), (7, 12), (11, 13), (18, 24)),
    32: ((1, 6), (2, 7), (3, 4), (5, 0)),
    1024: ((2, 1), (0, 0)),
}
"""Up to each multiple, the sizes that it is tried at: how many times more than the least."""

_LONG = 2048
"""The side of a strip, in pixels, at which few strides give the same number of logits."""

_STRIDES = range(1, 513)

_LEAST_SIDES = (64, 96, 128, 160, 192, 224, 256, 320, 384, 512)
"""From the least that `icnet export` takes."""

_USUAL = ((512, 512), (224, 224), (384, 384), (256, 256), (1024, 1024), (512, 1024), (1024, 2048))
"""Sizes that a network may be made for alone."""

_EQUAL = 1e-5
"""Of the logits' spread: two answers closer than that are one, summed in another order."""

_ALIKE = 1e-3
"""The same of an image alone and in a batch, where a convolution may be done in another way."""


@dataclass(frozen=True)
class Behaviour:
    """What a network's forward pass does.

    Attributes:
        runs: at several sizes, without the resize that was taken off.
        side_multiple: both sides of an image must be multiples of it.
        min_side: the least side that it takes, in pixels, from 64 on.
        stride: pixels from logit to logit; None where no one number says it.
        upsampling: the rule of the resize that was taken off; None: none was.
        left_out: which of its resizes that is, counted from 0.
        only_size: (height, width) where it takes no other size.
        rules: those of its resizes.
        squashed: `sigmoid` or `softmax` where its answer is that of its logits; None: it is not.
    """

    runs: Sequence[Run]
    side_multiple: int
    min_side: int
    stride: int | None
    upsampling: str | None
    left_out: int | None
    only_size: Size | None
    rules: frozenset[str]
    squashed: str | None

    @property
    def channels(self) -> int:
        """Of its logits."""
        return int(self.runs[0].logits.shape[1])

    @property
    def is_whole(self) -> bool:
        """Whether its logits have the image's size."""
        return all(run.grid == run.size for run in self.runs)

    @property
    def is_near_a_grid(self) -> bool:
        """Whether one stride says its logits' size but for one logit, as of a pool."""
        return any(
            all(
                abs(grid * stride - side) <= stride
                for run in self.runs
                for side, grid in zip(run.size, run.grid, strict=True)
            )
            for stride in _STRIDES[1:]
        )


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
        InputError: it takes no images, or not of this size, or not the multiple that was said; its
            answer is not logits.
        CheckFailed: its answer is another each time, or depends on other images of the batch.
    """
    buffers = {key: value.clone() for key, value in module.named_buffers()}
    runs, found = _runs(module, name, size, multiple)
    only_size = runs[0].size if len(runs) == 1 else None
    _require_steady(module, name, runs[0])
    squashed = runs[0].squashed
    rules = frozenset(call.rule for run in runs for call in run.resizes.calls)
    left_out, upsampling = None if keep_resize else _last_resize(runs), None
    if left_out is not None and (smaller := _without(module, runs, left_out)):
        upsampling, runs = runs[0].resizes.calls[left_out].rule, smaller
    else:
        left_out = None
    stride = _stride(module, runs, found, left_out)
    if stride is None and multiple is None and only_size is None:
        least = min(min(run.size) for run in runs)
        for larger, others, one in _larger(module, found, least, left_out):
            # What is upsampled inside is right at every size that it takes.
            if left_out is None or size is None or not (size[0] % larger or size[1] % larger):
                runs, found, stride = others, larger, one
            break
    least = min(runs[0].size) if only_size else _min_side(module, found)
    changed = [k for k, v in module.named_buffers() if k in buffers and not _same(v, buffers[k])]
    if changed:
        raise CheckFailed(
            f"{name} changes its own state in eval mode ({', '.join(changed[:4])}), which an "
            "exported graph cannot: remove that from its forward pass"
        )
    behaviour = Behaviour(
        runs, found, least, stride, upsampling, left_out, only_size, rules, squashed
    )
    if size is not None and size != only_size:
        _require_size(module, name, size, behaviour)
        behaviour = replace(behaviour, min_side=min(least, *size))
    return behaviour


def probe_at(module: nn.Module, name: str, size: Size) -> Behaviour:
    """As `probe`, at one size alone, whatever others the network takes.

    Raises:
        InputError: it takes no images of that size; its answer is not logits.
        CheckFailed: its answer is another each time, or depends on other images of the batch.
    """
    try:
        run = run_on_noise(module, size)
    except Refused as refused:
        raise InputError(_no_logits(name, f"at {_by(size)}, {refused}")) from refused
    _require_steady(module, name, run)
    multiple = gcd(*size)
    stride = _stride(module, [run], multiple, None)
    rules = frozenset(call.rule for call in run.resizes.calls)
    return Behaviour([run], multiple, min(size), stride, None, None, size, rules, run.squashed)


def _runs(
    module: nn.Module, name: str, size: Size | None, said: int | None
) -> tuple[list[Run], int]:
    """The least multiple of its sides that it takes, and its runs at sizes of that."""
    reason = ""
    for least, largest in _SCALES.items():
        tried = [multiple for multiple in _MULTIPLES if multiple <= largest]
        for multiple in tried if said is None else [said]:
            try:
                runs = [run_on_noise(module, at) for at in _sizes(multiple, least)]
                _require_channels(runs, name)
                return _of_one_size(module, name, runs, size) or (runs, multiple)
            except NoLogits as refused:
                raise InputError(_no_logits(name, str(refused))) from refused
            except Refused as refused:
                reason = str(refused)
    if said is not None:
        runs, found = _runs(module, name, size, None)
        if len(runs) == 1:
            return runs, said
        raise InputError(
            f"the side multiple {said} was given, but {name} takes sides that are multiples of "
            f"{found}: at {_by(_sizes(said, min(_SCALES))[0])} {reason}"
        )
    for at in _USUAL if size is None else (size,):
        with suppress(Refused):
            run = run_on_noise(module, at)
            if size is None:
                raise InputError(
                    f"{name} takes {_by(at)}, and no other size near it: give its size (--size)"
                )
            return [run], gcd(*at)
    where = "several sizes" if size is None else f"several sizes, and at {_by(size)}"
    raise InputError(_no_logits(name, f"at {where}, {reason}"))


def _no_logits(name: str, reason: str) -> str:
    return (
        f"{name} does not take images: it was given float N x 3 x H x W; {reason}; expected "
        "logits, N x C x h x w: a tensor, the first of a tuple, a dict's 'out', or '.logits'"
    )


def _of_one_size(
    module: nn.Module, name: str, runs: Sequence[Run], size: Size | None
) -> tuple[list[Run], int] | None:
    """What `_runs` gives, of a network whose logits have one size whatever the image's."""
    if len({run.grid for run in runs}) > 1:
        return None
    if size is None:
        raise InputError(
            f"{name} gives logits of {_by(runs[0].grid)} for images of any size: let it take the "
            "size from its input, or give its one size (--size)"
        )
    return [run_on_noise(module, size)], gcd(*size)


def _require_channels(runs: Sequence[Run], name: str) -> None:
    """InputError where the number of channels depends on the image's size."""
    if len({run.logits.shape[1] for run in runs}) > 1:
        seen = f"of {_by(runs[0].size)} pixels a tensor of {tuple(runs[0].logits.shape)}"
        reason = f"its channels differ with the size, {seen}: are they its last axis?"
        raise InputError(_no_logits(name, reason))


def _sizes(multiple: int, least: int) -> list[Size]:
    """Sizes whose sides are multiples, and of nothing else: they have each remainder of 8.

    Those of a small multiple lie apart, so that a grid that is rounded down is told from one that
    is rounded up.
    """
    first = max(1, -(-least // multiple))
    pairs = next(pairs for most, pairs in _PAIRS.items() if multiple <= most)
    return [((first + a) * multiple, (first + b) * multiple) for a, b in pairs]


def _larger(
    module: nn.Module, found: int, least: int, left_out: int | None
) -> Iterator[tuple[int, list[Run], int]]:
    """Multiples at which one stride says the logits' size, where at `found` none does."""
    for multiple in _MULTIPLES:
        if multiple > found and multiple % found == 0:
            with suppress(Refused):
                runs = [run_on_noise(module, at, left_out) for at in _sizes(multiple, least)]
                stride = _stride(module, runs, multiple, left_out)
                if stride is not None:
                    yield multiple, runs, stride


def _last_resize(runs: Sequence[Run]) -> int | None:
    """Which of its resizes gives its answer, in all runs."""
    calls = runs[0].resizes.calls
    last = (i for i in range(len(calls)) if all(_is_last(run, i, len(calls)) for run in runs))
    return next(last, None)


def _is_last(run: Run, index: int, count: int) -> bool:
    calls = run.resizes.calls
    return len(calls) == count and calls[index].gave(run.logits) and run.grid == run.size


def _without(module: nn.Module, runs: Sequence[Run], index: int) -> list[Run]:
    """The runs without that resize; none where it is not exact to do it afterwards."""
    smaller = []
    for run in runs:
        rule = run.resizes.calls[index].rule
        with suppress(Refused):
            small = run_on_noise(module, run.size, index)
            if small.grid == run.size:
                continue
            if are_equal(resize(small.logits, run.size, rule), run.logits, _EQUAL):
                smaller.append(small)
    return smaller if len(smaller) == len(runs) else []


def _fits(run: Run, stride: int) -> bool:
    return run.grid == (-(-run.size[0] // stride), -(-run.size[1] // stride))


def _stride(
    module: nn.Module, runs: Sequence[Run], multiple: int, left_out: int | None
) -> int | None:
    """The s with which the logits are ceil(H / s) x ceil(W / s) in all runs."""
    fitting = [stride for stride in _STRIDES if all(_fits(run, stride) for run in runs)]
    exact = len(fitting) == 1 and all(run.grid[1] * fitting[0] == run.size[1] for run in runs)
    if fitting and not exact and len(runs) > 1:
        long = (-(-_LONG // multiple) | 1) * multiple
        with suppress(Refused):  # it may have a longest side
            strip = _run_without_numbers(module, (runs[0].size[0], long), left_out)
            fitting = [stride for stride in fitting if _fits(strip, stride)]
    # Of one size alone several may fit: one that divides it is likelier than one that does not.
    divisors = [s for s in fitting if not any(side % s for run in runs for side in run.size)]
    powers = [stride for stride in fitting if stride & (stride - 1) == 0]
    return next(iter([*divisors, *powers, *fitting]), None)


def _min_side(module: nn.Module, multiple: int) -> int:
    """The least side, of a few, that it takes."""
    for least in _LEAST_SIDES:
        side = -(-least // multiple) * multiple
        with suppress(Refused):
            run_on_noise(module, (side, side))
            run_on_noise(module, (side, 2 * side))
            return side
    return max(_LEAST_SIDES)


def _require_steady(module: nn.Module, name: str, run: Run) -> None:
    """CheckFailed where its answer to an image is not one and the same."""
    if not run.logits.isfinite().all():
        raise CheckFailed(
            f"{name} gives logits that are infinite or not numbers for an image of noise"
        )
    if not torch.equal(run_on_noise(module, run.size).logits, run.logits):
        raise CheckFailed(
            f"{name} gives different answers for the same image, so it cannot be exported: does "
            "it use dropout in eval mode, or keep a state?"
        )
    try:
        two = run_on_noise(module, run.size, batch=2).logits[:1]
    except Refused as refused:
        raise InputError(f"{name} takes only one image at a time: with two, {refused}") from refused
    if not are_equal(two, run.logits, _ALIKE):
        raise CheckFailed(
            f"{name}'s answer for an image depends on the other images of the batch: does it have "
            "a batch norm without running statistics?"
        )


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _require_size(module: nn.Module, name: str, size: Size, behaviour: Behaviour) -> None:
    """InputError where it does not take images of that size."""
    multiple, least = behaviour.side_multiple, behaviour.min_side
    if any(side % multiple for side in size):
        near = [max(1, round(side / multiple)) * multiple for side in size]
        raise InputError(
            f"{name} takes sides that are multiples of {multiple}: give {near[0]}x{near[1]}, not "
            f"{_by(size)}"
        )
    try:
        _run_without_numbers(module, size)
    except Refused as refused:
        below = f"; its shortest side is {least}" if min(size) < least else ""
        raise InputError(f"{name} does not take images of {_by(size)}: {refused}{below}") from None


def _run_without_numbers(module: nn.Module, size: Size, left_out: int | None = None) -> Run:
    """A run that takes no time, where its operators can do that; else one with numbers."""
    try:
        return run_on_noise(copy.deepcopy(module).to("meta"), size, left_out)
    except Refused:
        return run_on_noise(module, size, left_out)


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
