"""What is timed: artefacts on runtimes, and peers, behind one face."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.benchmarks.pairing import Pair, open_pair
from icnet_deploy.files import sha256

__all__ = ["Contestant", "open_artefact"]

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


@contextmanager
def open_artefact(pair: Pair) -> Iterator[Contestant]:
    """An artefact on a runtime, through `Predictor`.

    Raises:
        ModelError, InputError, UnavailableError: as `open_pair`.
    """
    with open_pair(pair) as predictor:
        subject = {
            "name": pair.path.stem,
            "file": pair.path.name,
            "sha256": sha256(pair.path),
            "precision": predictor.metadata.precision,
            "runtime": predictor.runtime,
            "device": predictor.device,
        }
        yield Contestant(subject, lambda image: predictor.predict(image).timings_ms)
