"""Which of several models labels an image fastest: a brief measurement, run in turn.

Each is opened, warmed up and timed, the likely fastest first. The two best so far stay open, so
that memory holds three models at most; in the end those two are timed in turn, A B A B, so that
whatever else the machine does meets both alike.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol

import numpy as np

from icnet_deploy.errors import IcnetError
from icnet_deploy.images import UInt8, resize_image
from icnet_deploy.runtime.auto.candidates import Candidate

ROUNDS = 5
"""How often the last two are timed."""

_STAY = 2
_MUCH_SLOWER = 2.0  # times the best: one run is enough to tell
_FREE_SIZE = (1024, 2048)


class Opened(Protocol):
    """A model that is open; `Predictor` says more of each."""

    def size_near(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) in pixels that it takes, or the next from `size` on."""

    def predict(self, image: UInt8) -> object:
        """Labels one image."""

    def stream(self, frames: Iterable[UInt8]) -> Iterator[object]:
        """Labels frames in order."""

    def close(self) -> None:
        """Frees it."""


Clock = Callable[[Opened, UInt8, int], float]
"""Of a model, an image and the number of streams: how many seconds an image takes."""


@dataclass
class _Timed:
    """A model that is timed, and how many seconds an image took it in each run."""

    candidate: Candidate
    predictor: Opened
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@lru_cache(maxsize=1)
def street_like(size: tuple[int, int]) -> UInt8:
    """A picture for timing, the same every time: smooth noise of four scales.

    How long a label map takes hangs on how many borders it has; flat grey would have none.

    Args:
        size: (height, width) in pixels.

    Returns:
        uint8, H x W x 3.
    """
    random = np.random.default_rng(0)
    total = np.zeros((*size, 3), np.float32)
    for cell, share in ((256, 0.5), (128, 0.25), (64, 0.15), (16, 0.1)):
        coarse = (-(-size[0] // cell) + 1, -(-size[1] // cell) + 1, 3)
        total += share * resize_image(random.integers(0, 256, coarse, np.uint8), size)
    return total.astype(np.uint8)


def seconds_an_image(predictor: Opened, image: UInt8, streams: int) -> float:
    """Times one image, or a few at once where several streams work; from image to label map."""
    start = time.perf_counter()
    if streams == 1:
        predictor.predict(image)
        return time.perf_counter() - start
    frames = 2 * streams
    for _ in predictor.stream([image] * frames):
        pass
    return (time.perf_counter() - start) / frames


def race(
    candidates: Sequence[Candidate],
    open_one: Callable[[Candidate], Opened],
    streams: int = 1,
    clock: Clock = seconds_an_image,
) -> tuple[list[Candidate], list[str]]:
    """Finds the fastest.

    Args:
        candidates: the likely fastest first, which spares the others most of their runs.
        open_one: loads one.
        streams: how many images are worked on at once.
        clock: times a run.

    Returns:
        Those that ran, with their times, the fastest first; and a sentence for each that failed.
    """
    from tqdm import tqdm

    course = _Course(streams, clock)
    steps = len(candidates) + ROUNDS
    # A bar only where it takes a while, and not where stderr is no terminal (disable=None).
    with (
        closing(course),
        tqdm(total=steps, desc="choosing", delay=1, leave=False, disable=None) as bar,
    ):
        for candidate in candidates:
            bar.set_postfix_str(str(candidate))
            course.enter(candidate, open_one)
            bar.update()
        for _ in range(ROUNDS):
            for one in list(course.running) if len(course.running) > 1 else ():
                course.run(one)
            bar.update()
    ranked = [*_ranked(course.running), *_ranked(course.out)]
    return [
        replace(one.candidate, median_ms=round(one.median * 1e3, 2), runs=len(one.seconds))
        for one in ranked
    ], course.failed


def _ranked(timed: Sequence[_Timed]) -> list[_Timed]:
    return sorted(timed, key=lambda one: one.median)


@dataclass
class _Course:
    """Who still runs, who is out, and who failed."""

    streams: int
    clock: Clock
    running: list[_Timed] = field(default_factory=list)
    out: list[_Timed] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def close(self) -> None:
        """Closes what is still open."""
        for one in self.running:
            one.predictor.close()

    def enter(self, candidate: Candidate, open_one: Callable[[Candidate], Opened]) -> None:
        """Opens one, times it, and closes whichever can no longer win."""
        try:
            new = _Timed(candidate, open_one(candidate))
        except IcnetError as error:
            self.failed.append(f"{candidate}: {error}")
            return
        self.running.append(new)
        if not self.run(new, runs=2):
            return
        del new.seconds[0]  # its warm-up
        if new.median <= _MUCH_SLOWER * min(one.median for one in self.running):
            new.seconds.clear()  # that was a second warm-up
            if not self.run(new, runs=2):
                return
        best, *others = _ranked(self.running)
        for place, one in enumerate(others, 1):
            if place >= _STAY or one.median > _MUCH_SLOWER * best.median:
                self.running.remove(one)
                self.out.append(one)
                one.predictor.close()

    def run(self, one: _Timed, runs: int = 1) -> bool:
        """Times it anew; a model that fails is out, and False is returned."""
        image = street_like(one.predictor.size_near(_FREE_SIZE))
        try:
            for _ in range(runs):
                one.seconds.append(self.clock(one.predictor, image, self.streams))
        except IcnetError as error:
            self.failed.append(f"{one.candidate}: {error}")
            self.running.remove(one)
            one.predictor.close()
            return False
        return True
