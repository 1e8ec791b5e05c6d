"""When a network was at work: its backend's runs, noted as they happen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime.backends.base import (
    Array,
    Backend,
    Labelled,
    Labeller,
    TensorSpec,
)
from icnet_deploy.runtime.cuda.array import DeviceFrame

Span = tuple[float, float]
"""When a run began and when it ended, in seconds of `time.perf_counter`."""

Out = TypeVar("Out")


class Timed:
    """A backend that notes when each run began and ended; otherwise the one that it is given.

    Attributes:
        spans: one a run, from whichever thread.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.spans: list[Span] = []

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """See `Backend.inputs`."""
        return self._backend.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """See `Backend.outputs`."""
        return self._backend.outputs

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`."""
        return self._note(lambda: self._backend.run(feed))

    def close(self) -> None:
        """See `Backend.close`."""
        self._backend.close()

    def _note(self, work: Callable[[], Out]) -> Out:
        start = time.perf_counter()
        answer = work()
        self.spans.append((start, time.perf_counter()))
        return answer


class TimedLabeller(Timed):
    """The same for a backend that makes label maps itself, which its spans then cover, too."""

    def __init__(self, backend: Backend, labeller: Labeller) -> None:
        super().__init__(backend)
        self._labeller = labeller

    def label(
        self,
        metadata: ArtefactMetadata,
        images: Sequence[Array | DeviceFrame],
        sizes: Sequence[tuple[int, int]],
        on_device: bool = False,
    ) -> Labelled:
        """See `Labeller.label`."""
        return self._note(lambda: self._labeller.label(metadata, images, sizes, on_device))


def timed(backend: Backend) -> Timed:
    """Wraps a backend as what it is."""
    return TimedLabeller(backend, backend) if isinstance(backend, Labeller) else Timed(backend)


def busy_percent(spans: Sequence[Span]) -> float:
    """The share of the time from the first run's start to the last one's end with a run under way.

    Runs that overlap count once.

    Raises:
        ValueError: there is no run.
    """
    if not spans:
        raise ValueError("nothing was run")
    first = min(start for start, _ in spans)
    covered, until = 0.0, first
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return 100 * covered / (until - first) if until > first else 100.0
