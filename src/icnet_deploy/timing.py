"""How things are timed against one another: in turn, and told by percentiles of the raw samples."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import BackendError, CheckFailed
from icnet_deploy.images import UInt8

WARMUP = 3
"""Runs before the first that counts: runtimes plan their memory in the first two."""

_GLANCE = 0.01
"""Seconds; longer than two of the ticks by which a kernel counts the time of running threads."""


def interleave(
    turns: Mapping[str, Callable[[], float]],
    rounds: int,
    after: Callable[[str], None] = lambda name: None,
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Takes one sample of each in turn, A B C A B C, so that a drift of the machine meets them all.

    Before each turn it waits until this process is idle; see `_settle`.

    Args:
        turns: name -> runs it once and returns how long that took, in seconds.
        rounds: how many samples of each.
        after: is told whose turn has ended.

    Returns:
        The samples of each, in seconds, in the order taken; and name -> reason of those that
        failed with a `BackendError`, which have no later turn.
    """
    samples: dict[str, list[float]] = {name: [] for name in turns}
    failures: dict[str, str] = {}
    for _ in range(rounds):
        for name, turn in turns.items():
            if name not in failures:
                _settle()
                try:
                    samples[name].append(turn())
                except BackendError as error:
                    failures[name] = str(error)
            after(name)
    return samples, failures


def _settle(limit: float = 1.0) -> None:
    """Waits until no thread of this process computes, or for so many seconds.

    The threads of some runtimes go on turning for a while after a run, in case another comes (those
    of ONNX Runtime for 35 ms): on few cores whoever is next would pay for it.
    """
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        start, cpu = time.perf_counter(), time.process_time()
        time.sleep(_GLANCE)
        if time.process_time() - cpu < 0.1 * (time.perf_counter() - start):
            return


@dataclass(frozen=True)
class Subject:
    """What is timed: something that labels images.

    Attributes:
        facts: what there is to say of it; `name` is always there. See `Measurement.subject`.
        label: labels one image, uint8 H x W x 3 RGB (or what else `measure` is given), and returns
            the milliseconds of each stage that it can tell apart; `total` is always there.
        scope: a key of `SCOPES`: what `total` covers.
        answer: the label map of an image, uint8 H x W, for who checks it; None: not to be asked.
    """

    facts: dict[str, Any]
    label: Callable[[Any], Mapping[str, float]]
    scope: str = "image-to-labels"
    answer: Callable[[UInt8], npt.NDArray[Any]] | None = None

    def __str__(self) -> str:
        """As an error names it."""
        runtime = self.facts.get("runtime")
        return f"{self.facts['name']} on {runtime}" if runtime else str(self.facts["name"])


@dataclass(frozen=True)
class _Latency:
    """What one subject took.

    Attributes:
        subject: who.
        stages: stage -> seconds a run, in the order taken; `total` is one of them.
    """

    subject: Subject
    stages: dict[str, list[float]] = field(default_factory=dict)


def measure(
    subjects: Sequence[Subject],
    images: Sequence[Any],
    rounds: int = 20,
    lead_in: int = 1,
    name: str = "latency",
) -> list[_Latency]:
    """Times all in turn, A B A B, so that a drift of the machine meets them all.

    A turn begins when the one before has left nothing running, and with a run that is not counted:
    what is timed is an image that follows another, as alone, whoever was before.

    Args:
        subjects: each is warmed up by `WARMUP` runs first.
        images: uint8 H x W x 3, RGB, taken in turn; the same ones for every subject.
        rounds: samples of each.
        lead_in: how many runs at the start of a turn are not counted.
        name: of the progress bar.

    Raises:
        CheckFailed: one failed as it ran.
    """
    from tqdm import tqdm

    rows = [_Latency(each) for each in subjects]
    for each in subjects:
        for number in range(WARMUP):
            each.label(images[number % len(images)])

    def turn(row: _Latency) -> float:
        taken = len(row.stages.get("total", ()))
        for before in range(lead_in, 0, -1):
            row.subject.label(images[(taken - before) % len(images)])
        stages = row.subject.label(images[taken % len(images)])
        for stage, milliseconds in stages.items():
            row.stages.setdefault(stage, []).append(milliseconds / 1e3)
        return stages["total"] / 1e3

    turns = {str(i): (lambda row=row: turn(row)) for i, row in enumerate(rows)}
    with tqdm(total=rounds * len(rows), desc=name, unit="run", disable=None) as bar:
        _, failures = interleave(turns, rounds, lambda _: bar.update() and None)
    if failures:
        index, why = next(iter(failures.items()))
        raise CheckFailed(f"{subjects[int(index)]}: {why}")
    return rows


def tellable(percentile: int, samples: int) -> bool:
    """Whether so many samples have one beyond a percentile: 10 for p10 and p90, 100 for p99."""
    return samples * min(percentile, 100 - percentile) >= 100


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """Pooled raw samples in seconds as a JSON value in milliseconds.

    Returns:
        `runs`, `median_ms`, `p10_ms`, `p90_ms`, with 100 samples or more `p99_ms`, and all of them
        in the order taken, `samples_ms`.
    """
    milliseconds = 1e3 * np.asarray(samples, np.float64)
    p10, median, p90, p99 = np.percentile(milliseconds, [10, 50, 90, 99])
    values = {
        "runs": len(samples),
        "median_ms": round(float(median), 3),
        "p10_ms": round(float(p10), 3),
        "p90_ms": round(float(p90), 3),
        "p99_ms": round(float(p99), 3),
        "samples_ms": [round(float(value), 3) for value in milliseconds],
    }
    if not tellable(99, len(samples)):
        del values["p99_ms"]
    return values
