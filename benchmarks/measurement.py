"""What a benchmark found: one record a thing measured, and files of them as JSON Lines.

A record says what its numbers cover (`scope`), what was measured, how, where, and with which
versions, so that a line is worth something by itself. Two of them are compared by the ratio of
their medians, with the interval that their samples allow.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from icnet_deploy.documents import (
    COUNT,
    FROM_ONE,
    FROM_ZERO,
    NUMBER,
    OBJECT,
    POSITIVE,
    TEXT,
    Kind,
    Schema,
    list_of,
    object_of,
    object_with,
    one_of,
)
from icnet_deploy.errors import InputError
from icnet_deploy.files import read_file, write_text
from icnet_deploy.runtime.machine import machine, versions

_SCHEMA = 2

SCOPES: Mapping[str, str] = {
    "image-to-labels": "one image at a time, from a uint8 image in memory to its uint8 label map "
    "in memory: checking and resizing the image, copies, inference and label map; no decoding",
    "network": "the runtime's own inference call alone, from its input in memory to its output in "
    "memory; no resizing and no label map",
    "files-to-files": "from image files to result files, as `icnet predict` does: decoding, "
    "labelling, drawing and encoding",
    "frames-to-labels": "from many uint8 images in memory to their uint8 label maps in memory, as "
    "`Predictor.stream` does",
    "due-to-labels": "from the time when a frame is due, as from a camera, to its uint8 label map "
    "in memory: the wait until the network is free, then the same as `image-to-labels`",
    "process": "a process from its start: interpreter, imports, the image's array, loading the "
    "model, label maps",
}
"""Name -> what a number of that scope covers."""

_MS = Kind(lambda value: FROM_ZERO.fits(value) and value < 1e12, "milliseconds, 0 to 1e12")
_SAMPLES = object_with({"runs": COUNT, "median_ms": _MS, "samples_ms": list_of(_MS)})
_SUMMARY = Kind(
    lambda value: (
        _SAMPLES.fits(value)
        and all(_MS.fits(one) for name, one in value.items() if re.fullmatch(r"p\d+_ms", name))
    ),
    _SAMPLES.words,
)
_PARTS = list_of(object_with({"name": TEXT}))  # such as a graph's operators
_VALUE = Kind(
    lambda value: any(kind.fits(value) for kind in (NUMBER, _SUMMARY, _PARTS)),
    f"{NUMBER.words}, {_SUMMARY.words}, or {_PARTS.words}",
)
# Nothing may be missing, or a line would be said to be of this machine, and all is known. The words
# of its scope are for a person who reads the file; the scope's name is what counts.
_LINE = Schema(
    "a measurement in the form that `icnet benchmark ... --json` writes (JSON Lines)",
    {
        "schema": one_of(_SCHEMA),
        "kind": TEXT,
        "scope": one_of(*SCOPES),
        "covers": TEXT,
        "subject": object_with({"name": TEXT}),
        "setting": object_with({"size": list_of(FROM_ONE, 2), "batch": FROM_ONE}),
        "values": object_of(_VALUE),
        "machine": OBJECT,
        "versions": OBJECT,
    },
    closed=True,
)


@dataclass(frozen=True)
class Measurement:
    """One thing measured in one way.

    Attributes:
        kind: the benchmark: `latency`, `throughput`, `stages`, `start`, `memory`, `paced`.
        scope: a key of `SCOPES`.
        subject: what was measured, as JSON values: `name` (what a table calls it), and where they
            apply `file`, `sha256`, `precision`, `runtime`, `device`, `threads`, `streams`.
        setting: how: `size` ([height, width] of the image), `batch`, `warmup`, `rounds`, ...
        values: what came out: a name -> `timing.summary` of raw samples, or a number whose name
            ends in its unit (`_ms`, `_bytes`, `_percent`, `_per_s`).
        machine, versions: where; of this machine unless read from a file.
    """

    kind: str
    scope: str
    subject: dict[str, Any]
    setting: dict[str, Any]
    values: dict[str, Any]
    machine: dict[str, Any] = field(default_factory=machine)
    versions: dict[str, str] = field(default_factory=versions)

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise ValueError(f"there is no scope {self.scope!r}; known: {', '.join(SCOPES)}")
        if "name" not in self.subject:
            raise ValueError("the subject has no name")

    @property
    def name(self) -> str:
        """What a table calls the subject."""
        return str(self.subject["name"])

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"schema": _SCHEMA, **asdict(self), "covers": SCOPES[self.scope]}


def write_measurements(path: Path, measured: Sequence[Measurement]) -> None:
    """Writes JSON Lines, one measurement a line (OutputError if it cannot)."""
    lines = [json.dumps(each.to_dict(), allow_nan=False) for each in measured]
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_measurements(path: Path) -> list[Measurement]:
    """Reads what `write_measurements` wrote.

    Raises:
        InputError: the file is missing, or is not such a file.
    """
    try:
        lines = read_file(path).decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {why}; expected {_LINE.what}") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise InputError(f"{path} is empty: expected {_LINE.what}")
    known = [_LINE.parse(line, f"{path}, line {number},") for number, line in numbered]
    for (number, _), each in zip(numbered, known, strict=True):
        if each["kind"] == "latency" and not _tells_time(each["values"]):
            raise InputError(
                f"{path}, line {number}, is not {_LINE.what}: a latency needs samples of its "
                "stages, and a 'total' or 'median_ms' above 0"
            )
    return [
        Measurement(**{name: each[name] for name in each.keys() - {"schema", "covers"}})
        for each in known
    ]


def _tells_time(values: Mapping[str, Any]) -> bool:
    """Whether the values of a latency tell it, and each of its stages is of samples."""
    if any(NUMBER.fits(one) and not name.endswith("_ms") for name, one in values.items()):
        return False
    if "total" not in values:
        return POSITIVE.fits(values.get("median_ms"))
    return POSITIVE.fits(values["total"]["median_ms"])


ENOUGH = 6
"""Fewer samples than this bound no median with 95 % certainty, whatever they are: the median lies
outside the range of n samples with a chance of 2 ** (1 - n)."""

_RESAMPLINGS = 2000


@dataclass(frozen=True)
class Ratio:
    """How many times one median is another.

    Attributes:
        value: the ratio of the medians.
        low, high: the 95 % interval of it that the samples allow; None where they are too few.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def differs(self) -> bool | None:
        """Whether the samples can tell it from 1; None where they are too few to say."""
        if self.low is None or self.high is None:
            return None
        return not self.low <= 1 <= self.high


def ratio_of_medians(
    above: Sequence[float], below: Sequence[float], in_turn: bool = False
) -> Ratio | None:
    """The ratio of two medians, with its bootstrap percentile interval (Efron 1979).

    The interval speaks of these samples. Another hour of the same machine may differ by more.

    Args:
        above, below: raw samples, of one unit.
        in_turn: they were taken in turn, so the n-th of both met the machine in one state: they
            are drawn again by rounds.

    Returns:
        None where the median below is 0.
    """
    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    if not len(a) or not len(b) or not np.median(b):
        return None
    value = float(np.median(a) / np.median(b))
    if min(len(a), len(b)) < ENOUGH:
        return Ratio(value)
    dice = np.random.default_rng(0)  # the same samples always give the same interval
    rows = dice.integers(len(a), size=(_RESAMPLINGS, len(a)))
    paired = in_turn and len(a) == len(b)
    others = rows if paired else dice.integers(len(b), size=(_RESAMPLINGS, len(b)))
    ratios = np.median(a[rows], axis=1) / np.maximum(np.median(b[others], axis=1), 1e-12)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Ratio(value, float(low), float(high))
