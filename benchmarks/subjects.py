"""What is timed: artefacts on runtimes, and peers, behind one face."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from icnet_deploy.benchmarks.asked import facts, open_chosen
from icnet_deploy.evaluation.pairing import Pair
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.timing import Subject

UInt8 = npt.NDArray[np.uint8]


@contextmanager
def open_artefact(pair: Pair, threads: int | None = None) -> Iterator[Subject]:
    """An artefact on a runtime, through `Predictor`.

    Args:
        pair: the file and the runtime.
        threads: CPU threads a run; None leaves it to the runtime.

    Raises:
        ModelError, InputError, UnavailableError: as `open_chosen`.
    """
    with open_chosen(pair, threads) as predictor:
        yield Subject(
            facts(pair, predictor, threads), lambda image: predictor.predict(image).timings_ms
        )


@contextmanager
def open_folder(
    folder: Path,
    runtime: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    precision: str | None = None,
) -> Iterator[Subject]:
    """What `Predictor.from_folder` chooses: its subject names the file and says `auto`.

    Raises:
        ModelError, InputError, UnavailableError: as `from_folder`.
    """
    with Predictor.from_folder(folder, runtime, device, threads, precision=precision) as predictor:
        if predictor.choice is None:
            raise RuntimeError("from_folder has made no choice")
        chosen = predictor.choice.winner
        told = facts(Pair(folder / chosen.file, runtime, device), predictor, threads)
        told["name"] = f"auto: {told['name']}"
        yield Subject(told | {"auto": True}, lambda image: predictor.predict(image).timings_ms)
