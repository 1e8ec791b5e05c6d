"""Times files in turn: processor time on one thread, and the clock at the runtime's own threads."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from icnet_deploy.evaluation.confidence.differences import LEVEL
from icnet_deploy.images import UInt8
from icnet_deploy.runtime.backends.base import Backend
from icnet_deploy.runtime.backends.registry import open_backend
from icnet_deploy.timing import WARMUP, interleave

Seconds = Mapping[str, Sequence[float]]
"""File -> a sample of each round, in seconds."""

_DRAWS = 2000


@dataclass(frozen=True)
class Clock:
    """One way to take the time.

    Attributes:
        words: what a record says of it.
        now: gives seconds.
        threads: that the runtime has; None: as many as it takes.
    """

    words: str
    now: Callable[[], float]
    threads: int | None


CLOCKS: Mapping[str, Clock] = {
    "processor": Clock("processor time of a run on one thread", time.process_time, 1),
    "wall": Clock("the clock, of a run on the runtime's own threads", time.perf_counter, None),
}
"""By name; every file is timed by each."""


def time_all(
    files: Mapping[str, Path], runtime: str, images: Sequence[UInt8], rounds: int, clock: Clock
) -> Seconds:
    """Runs files in turn, A B A B, and before each run that counts one that does not.

    Args:
        files: name -> file.
        runtime: that runs them.
        images: uint8 H x W x 3, RGB.
        rounds: samples of each.
        clock: that is read.

    Returns:
        Samples of those files that ran in every round.
    """

    def turn(backend: Backend) -> Callable[[], float]:
        taken = 0

        def run() -> float:
            nonlocal taken
            taken += 1
            feed = {"image": images[taken % len(images)][None]}
            backend.run(feed)
            start = clock.now()
            backend.run(feed)
            return clock.now() - start

        for _ in range(WARMUP):
            run()
        return run

    backends = {
        name: open_backend(runtime, path, "cpu", clock.threads, cached=False)
        for name, path in files.items()
    }
    turns = {name: turn(backend) for name, backend in backends.items()}
    with tqdm(total=rounds * len(turns), desc=runtime, unit="run", disable=None) as bar:
        samples, failures = interleave(turns, rounds, lambda _: bar.update() and None)
    for backend in backends.values():
        backend.close()
    return {name: each for name, each in samples.items() if name not in failures}


def ratio(ours: Sequence[float], theirs: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """The median over rounds of one file's time to another's, with an interval from a bootstrap.

    Args:
        ours, theirs: seconds of the same rounds.
        seed: of the bootstrap.

    Returns:
        `value`, `low` and `high`.
    """
    each = np.asarray(ours) / np.asarray(theirs)
    drawn = np.random.default_rng(seed).choice(each, (_DRAWS, len(each)))
    ends = 50 * (1 - LEVEL), 50 * (1 + LEVEL)
    low, high = np.percentile(np.median(drawn, axis=1), ends)
    values = {"value": np.median(each), "low": low, "high": high}
    return {name: round(float(value), 4) for name, value in values.items()}
