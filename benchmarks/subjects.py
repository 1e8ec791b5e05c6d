"""What is timed: artefacts on their runtimes, and when their networks are at work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from icnet_deploy.errors import require
from icnet_deploy.evaluation.pairing import Run
from icnet_deploy.images import UInt8
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.runtime.backends.base import Backend
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.timing import Subject

if TYPE_CHECKING:
    from icnet_deploy.networks.checkpoint import Checkpoint

Span = tuple[float, float]
"""When a run of a network began and when it ended, in seconds of `time.perf_counter`."""


@dataclass(frozen=True, kw_only=True)
class Artefact(Subject):
    """An artefact on its runtime.

    Attributes:
        predictor: runs it.
    """

    predictor: Predictor


@contextmanager
def open_artefact(
    run: Run, threads: int | None = None, streams: int = 1, precision: str | None = None
) -> Iterator[Artefact]:
    """Opens an artefact, or what is fastest of a folder that `icnet verify` passed.

    Args:
        run: the file or folder, and the runtime.
        threads: CPU threads a run; None leaves it to the runtime.
        streams: how many images are worked on at once.
        precision: choose among a folder's files of this one only.

    Raises:
        ModelError, InputError, UnavailableError: as `Predictor.open`.
    """
    with Predictor.open(
        run.path, run.runtime, run.device, threads, streams=streams, precision=precision
    ) as predictor:
        chosen = predictor.choice
        facts = artefact_facts(
            run.path / chosen.winner.file if chosen else run.path,
            auto=chosen is not None,
            precision=predictor.metadata.precision,
            runtime=predictor.runtime,
            device=predictor.device,
            threads=threads,
        )
        yield Artefact(
            facts | {"streams": streams},
            lambda image: predictor.predict(image).timings_ms,
            predictor=predictor,
        )


def artefact_facts(file: Path, auto: bool = False, **more: Any) -> dict[str, Any]:
    """What there is to say of an artefact that is timed; see `Measurement.subject`.

    Args:
        file: the artefact.
        auto: whether it was chosen from its folder.
        more: `precision`, `runtime`, `device`, `threads`.
    """
    name = f"auto: {file.stem}" if auto else file.stem
    facts = {"name": name, "file": file.name, "sha256": artefact_sha256(file), **more}
    return facts | {"auto": True} if auto else facts


def labelling(facts: Mapping[str, Any], answer: Callable[[UInt8], npt.NDArray[Any]]) -> Subject:
    """Something that labels images by itself, of which the whole is timed.

    Args:
        facts: see `Subject.facts`.
        answer: see `Subject.answer`.
    """

    def label(image: UInt8) -> Mapping[str, float]:
        start = time.perf_counter()
        answer(image)
        return {"total": 1e3 * (time.perf_counter() - start)}

    return Subject(dict(facts), label, answer=answer)


def export(*arguments: Any, **options: Any) -> None:
    """As `to_onnx.export`, which brings torch, so that it is imported when it is called."""
    from icnet_deploy.export.to_onnx import export

    export(*arguments, **options)


def export_labels(checkpoint: Checkpoint, out: Path, size: tuple[int, int]) -> None:
    """Writes a float32 file that makes label maps; raises as `export.artefact.write_network`.

    MissingPackage: what it needs is not installed.
    """
    require("export", "export", "torch", "safetensors", "onnx", "onnxscript", "onnxsim")
    require("the check of an exported file", "cpu", "onnxruntime")
    from icnet_deploy.export.artefact import Form, write_network

    write_network(checkpoint, out, Form(size, head="labels"))


def note_runs(backend: Backend) -> list[Span]:
    """Has a backend note when each of its runs began and ended, from whichever thread.

    Returns:
        Where it notes them. One that makes label maps itself notes the whole of that.
    """
    spans: list[Span] = []

    def noting(work: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(work)
        def run(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            answer = work(*arguments, **options)
            spans.append((start, time.perf_counter()))
            return answer

        return run

    for name in ("run", "label"):
        if hasattr(backend, name):
            setattr(backend, name, noting(getattr(backend, name)))
    return spans


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
