"""Weights of one's own into a network: each tensor of either is accounted for.

A file wraps its state dict (`{"model": ..., "optimizer": ...}`), and names carry what the network
was wrapped in when it was trained (`module.`, `_orig_mod.`, Lightning's `model.`). A prefix is
removed where the rest is the network's own name.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from icnet_deploy.errors import ModelError
from icnet_deploy.integrity import require_finite
from icnet_deploy.networks.checkpoint import COUNTER, arrays_of
from icnet_deploy.networks.own.weight_file import State, is_dense, read_states
from icnet_deploy.report.tables import Table

_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of a name that say what a module was wrapped in, wherever they stand."""

_TRAINING_ONLY = (
    "aux",
    "deep_sup",
    "loss",
    "criterion",
    "classification_head",
    "metric",
    "teacher",
)
"""In the names of heads and of other parts that only training needs."""

_BOOKKEEPING = frozenset({"n_averaged", "num_updates", "decay", "initted", "step", COUNTER})

_PREFIXES = 4
"""How many ways to read a file's names are looked at."""

_NAMED = 4
"""How many tensors a message names."""


class _Reading(NamedTuple):
    """One way to read a file.

    Attributes:
        state: the dict of the file that is read.
        prefix: what is removed from its names.
        found: the network's names -> the file's.
        others: the names of the file that are left.
    """

    state: State
    prefix: str
    found: Mapping[str, str]
    others: tuple[str, ...]

    @property
    def averaged(self) -> bool:
        """Whether these are a moving average of the weights."""
        parts = [*self.state.keys, *self.prefix.split(".")]
        return any(word in part.lower() for part in parts for word in ("ema", "averaged"))


@dataclass(frozen=True)
class Loaded:
    """What became of a file's tensors.

    Attributes:
        words: in a sentence.
        table: part by part.
    """

    words: str
    table: Table


def load_weights(module: nn.Module, path: Path, name: str) -> Loaded:
    """Loads a file's tensors into a network, as float32.

    Args:
        module: on the CPU; its state is replaced.
        path: `.safetensors`, or what `torch.save` wrote.
        name: what the network is called in messages.

    Raises:
        ModelError: the file cannot be read, a tensor is missing, of another shape or kind, or not
            finite, or one is left over that is not for training only.
    """
    wanted = {k: v for k, v in module.state_dict().items() if not k.endswith(COUNTER)}
    readings = [r for state in read_states(path) for r in _readings(state, wanted)]
    if not readings:
        raise ModelError(
            f"{path} does not fit {name}: no tensor in it has the name of one of the network's"
        )
    best = _best(readings, wanted, path)
    tensors = {ours: best.state.tensors[theirs] for ours, theirs in best.found.items()}
    problems = _problems(best, wanted, tensors)
    if problems:
        raise ModelError(
            f"{path} does not fit {name}: {len(tensors)} of the network's {len(wanted)} tensors "
            f"are in {_where(best)}; {'; '.join(problems)}: build the network as it was trained "
            "(--network-args), or give other weights"
        )
    tensors = {k: v.detach().float() if v.is_floating_point() else v for k, v in tensors.items()}
    require_finite(
        arrays_of(tensors), str(path), "a network with them labels wrongly; give other weights"
    )
    module.load_state_dict(tensors, strict=False)
    return _loaded(best, tensors, readings, wanted)


class Found(NamedTuple):
    """What a file holds of some names.

    Attributes:
        tensors: all of the dict that has most of the names: by its own names, but without what they
            are wrapped in.
        where: what that dict is, in words, e.g. `its 'state_dict', without the prefix 'model.'`.
    """

    tensors: Mapping[str, Tensor]
    where: str


def find_tensors(path: Path, names: Iterable[str]) -> Found:
    """The dict of tensors in a file that has most of some names.

    Args:
        path: `.safetensors`, or what `torch.save` wrote.
        names: the file's, but for what they may be wrapped in.

    Raises:
        ModelError: the file cannot be read, or holds these names under several prefixes with
            different values.
    """
    states = read_states(path)
    readings = [r for state in states for r in _readings(state, dict.fromkeys(names))]
    if not readings:
        return Found(max(states, key=lambda state: len(state.tensors)).tensors, "it")
    most = max(len(reading.found) for reading in readings)
    best, rivals = _first([reading for reading in readings if len(reading.found) == most])
    _refuse_rivals(best, rivals, path)
    # The others are named as what was looked for is, so that what lies among it is known.
    named = {theirs: ours for ours, theirs in best.found.items()}
    for plain, name in _by_plain_name(best.state.tensors).items():
        short = plain.removeprefix(best.prefix)
        named.setdefault(name, name if short in named.values() else short)
    tensors = {named[name]: value for name, value in best.state.tensors.items()}
    return Found(tensors, _where(best))


def _readings(state: State, wanted: Iterable[str]) -> Iterator[_Reading]:
    """The ways to read a dict, those with the most names of the network's."""
    ours = _by_plain_name(wanted)
    theirs = _by_plain_name(state.tensors)
    inner = _common(ours)
    for outer in dict.fromkeys(("", inner)):
        names = {plain.removeprefix(outer): own for plain, own in ours.items()}
        counts = Counter(
            prefix
            for plain in theirs
            for prefix in _prefixes(plain)
            if plain[len(prefix) :] in names
        )
        for prefix, _ in counts.most_common(_PREFIXES):
            found = {
                own: theirs[prefix + plain]
                for plain, own in names.items()
                if prefix + plain in theirs
            }
            used = set(found.values())
            others = tuple(name for name in state.tensors if name not in used)
            yield _Reading(state, prefix, found, others)


def _by_plain_name(names: Iterable[str]) -> dict[str, str]:
    """Names without the wrappers' parts -> names; as they are where two would become one."""
    names = list(names)
    plain = {
        ".".join(part for part in name.split(".") if part not in _WRAPPERS): name for name in names
    }
    return plain if len(plain) == len(names) else {name: name for name in names}


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    for count in range(len(parts)):
        yield "".join(f"{part}." for part in parts[:count])


def _common(names: Iterable[str]) -> str:
    """The first parts that all names have, as where a network keeps another as its only part."""
    split = [name.split(".")[:-1] for name in names]
    common = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return "".join(f"{part}." for part in common)


def _best(readings: Sequence[_Reading], wanted: Mapping[str, Tensor], path: Path) -> _Reading:
    """The reading that fits best; of those that fit, an average of the weights comes first."""

    def fit(reading: _Reading) -> int:
        tensors = reading.state.tensors
        return sum(tensors[t].shape == wanted[o].shape for o, t in reading.found.items())

    most = max(map(fit, readings))
    equal = [reading for reading in readings if fit(reading) == most]
    best, rivals = _first(equal)
    if most == len(wanted):
        _refuse_rivals(best, rivals, path)
    return best


def _first(equal: Sequence[_Reading]) -> tuple[_Reading, list[_Reading]]:
    """Of readings that fit alike the one to take, and those of the same dict that it is taken
    before: an average of the weights comes first, then the shortest way to it."""
    averaged = [reading for reading in equal if reading.averaged]
    best = min(averaged or equal, key=lambda r: (len(r.prefix), len(r.state.keys)))
    rivals = [r for r in averaged or equal if r.state is best.state and r.prefix != best.prefix]
    return best, rivals


def _refuse_rivals(best: _Reading, rivals: Sequence[_Reading], path: Path) -> None:
    """ModelError where the file has the same under another prefix, with other values."""
    if best.prefix and any(not _same(best, rival) for rival in rivals):
        names = ", ".join(repr(reading.prefix) for reading in (best, *rivals))
        raise ModelError(
            f"{path} holds the network more than once, under {names}: write a file with only the "
            "one that you mean"
        )


def _same(one: _Reading, other: _Reading) -> bool:
    pairs = (
        (one.state.tensors[theirs], other.state.tensors[other.found[ours]])
        for ours, theirs in one.found.items()
        if ours in other.found
    )
    return all(is_dense(a) and is_dense(b) and torch.equal(a, b) for a, b in pairs)


def _problems(
    best: _Reading, wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> list[str]:
    """What does not fit, a text for each kind of it."""
    shared = {wanted[name].data_ptr() for name in tensors if wanted[name].numel()}
    missing = [k for k, v in wanted.items() if k not in tensors and v.data_ptr() not in shared]
    other = [
        f"{name} is {_shape(value)}, the network's is {_shape(wanted[name])}"
        for name, value in tensors.items()
        if value.shape != wanted[name].shape
    ]
    kinds = [
        f"{name} holds {value.dtype}, the network's {wanted[name].dtype}"
        for name, value in tensors.items()
        if value.is_floating_point() != wanted[name].is_floating_point() or value.is_quantized
    ]
    left = [name for name in best.others if not _is_for_training(name, best.prefix)]
    found = {"missing in the file": missing, "of another shape": other, "of another kind": kinds}
    return [
        f"{len(names)} {what}: {_listed(names)}"
        for what, names in (found | {"left over in the file": left}).items()
        if names
    ]


def _is_for_training(name: str, prefix: str) -> bool:
    """Whether a tensor that the network has no place for is none of what is deployed.

    What lies beside the network in the file, not below the prefix, is no part of it either.
    """
    plain = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    if prefix and not plain.startswith(prefix):
        return True
    parts = plain.lower().split(".")
    return parts[-1] in _BOOKKEEPING or any(w in part for part in parts for w in _TRAINING_ONLY)


def _loaded(
    best: _Reading,
    tensors: Mapping[str, Tensor],
    readings: Sequence[_Reading],
    wanted: Mapping[str, Tensor],
) -> Loaded:
    counted = [name for name in best.others if not name.endswith(COUNTER)]
    words = f"{len(tensors)} tensors taken from {_where(best)}"
    rivals = [
        f"its {str(r.state)!r}" if r.state.keys else "the file itself"
        for r in readings
        if len(r.found) == len(best.found) and r.state is not best.state
    ]
    if rivals:
        words += f" (not from {', '.join(dict.fromkeys(rivals))}, which also fits)"
    words += f", {len(counted)} left over"
    if counted:
        words += f" ({_listed(list(dict.fromkeys(map(_part, counted))))}: for training only)"
    rows = [
        *_rows(tensors, "taken"),
        *_rows({n: best.state.tensors[n] for n in counted}, "left out"),
    ]
    note = f"{len(wanted)} tensors of the network: {len(tensors)} taken; {len(counted)} left out"
    return Loaded(words, Table(("part", "tensors", "values", "result"), rows, notes=[note]))


def _rows(tensors: Mapping[str, Tensor], where: str) -> list[tuple[str, str, str, str]]:
    parts: dict[str, list[Tensor]] = {}
    for name, value in tensors.items():
        parts.setdefault(_part(name), []).append(value)
    return [
        (part, str(len(values)), str(sum(value.numel() for value in values)), where)
        for part, values in parts.items()
    ]


def _part(name: str) -> str:
    """The part of a network that a tensor is of: the first of its name that says something."""
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    return parts[0]


def _where(reading: _Reading) -> str:
    where = f"its {str(reading.state)!r}" if reading.state.keys else "it"
    return f"{where}, without the prefix {reading.prefix!r}" if reading.prefix else where


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
