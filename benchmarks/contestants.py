"""What is timed: artefacts on runtimes, and peers, behind one face."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.benchmarks.modes import open_chosen, subject
from icnet_deploy.benchmarks.pairing import Pair
from icnet_deploy.runtime.predictor import Predictor

__all__ = ["Contestant", "open_artefact", "open_folder"]

UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Contestant:
    """Something that labels images.

    Attributes:
        subject: see `Measurement.subject`.
        label: labels one image, uint8 H x W x 3 RGB, and returns the milliseconds of each stage
            that it can tell apart; `total` is always there.
        scope: a key of `SCOPES`: what `total` covers.
    """

    subject: dict[str, Any]
    label: Callable[[UInt8], Mapping[str, float]]
    scope: str = "image-to-labels"

    def __str__(self) -> str:
        """As an error names it."""
        runtime = self.subject.get("runtime")
        return f"{self.subject['name']} on {runtime}" if runtime else str(self.subject["name"])


@contextmanager
def open_artefact(pair: Pair, threads: int | None = None) -> Iterator[Contestant]:
    """An artefact on a runtime, through `Predictor`.

    Args:
        pair: the file and the runtime.
        threads: CPU threads a run; None leaves it to the runtime.

    Raises:
        ModelError, InputError, UnavailableError: as `open_chosen`.
    """
    with open_chosen(pair, threads) as predictor:
        yield Contestant(
            subject(pair, predictor, threads), lambda image: predictor.predict(image).timings_ms
        )


@contextmanager
def open_folder(
    folder: Path,
    runtime: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    precision: str | None = None,
) -> Iterator[Contestant]:
    """What `Predictor.from_folder` chooses: its subject names the file and says `auto`.

    Raises:
        ModelError, InputError, UnavailableError: as `from_folder`.
    """
    with Predictor.from_folder(folder, runtime, device, threads, precision=precision) as predictor:
        if predictor.choice is None:
            raise RuntimeError("from_folder has made no choice")
        chosen = predictor.choice.winner
        told = subject(Pair(folder / chosen.file, runtime, device), predictor, threads)
        told["name"] = f"auto: {told['name']}"
        yield Contestant(told | {"auto": True}, lambda image: predictor.predict(image).timings_ms)
