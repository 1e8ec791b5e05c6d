"""Artefacts in fresh processes: how long until the first label map, and how much memory.

OpenVINO compiles a model when it is first loaded and keeps the result; so every round begins with
an empty cache folder (`cold`), and once more with what the first process left there (`cached`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from icnet_deploy.benchmarks.processes import fresh_worker
from icnet_deploy.errors import BackendError, InputError
from icnet_deploy.evaluation.pairing import Pair
from icnet_deploy.files import CACHE_VARIABLE
from icnet_deploy.integrity import artefact_sha256

CACHES = ("cold", "cached")
"""What a process finds in the cache folder: nothing, or what one before it left there."""

STAGES = ("python", "import", "image", "load", "first_label_map")
"""Of a process, in order: the interpreter's start; `icnet_deploy.runtime` and its `Predictor`; the
image's array, read from the disk; the model; its first label map."""


@dataclass(frozen=True)
class Fresh:
    """What one process told of itself.

    Attributes:
        seconds: stage -> how long it took, and `total`: from the moment it was asked for to the
            line in which it told that it has the label map.
        resident: `import`, `load` and `peak` -> bytes; empty if that was not asked for.
        file: the artefact in it.
        runtime, device, precision: of the artefact.
    """

    seconds: dict[str, float]
    resident: dict[str, int | None]
    file: Path
    runtime: str
    device: str
    precision: str


def run_fresh(
    each: Pair,
    image: Path,
    cache: Path,
    threads: int | None = None,
    runs: int = 1,
    memory: bool = False,
) -> Fresh:
    """Labels an image in a process of its own, in this one's environment.

    Args:
        each: the file and the runtime, or a folder of files to choose from and `auto`.
        image: a .npy file, uint8 H x W x 3, RGB.
        cache: the folder that it keeps things in (`ICNET_CACHE`).
        threads: CPU threads a run; None leaves it to the runtime.
        runs: how often the image is labelled.
        memory: whether it is asked for its resident memory, too.

    Raises:
        InputError: the artefact cannot be loaded; the message is the process's.
        BackendError: it failed as it ran, or was killed.
    """
    told = {
        "path": str(each.path),
        "runtime": each.runtime,
        "device": each.device,
        "threads": threads,
        "image": str(image),
        "runs": runs,
        "memory": memory,
    }
    # -P: the file's own folder is no place to import from.
    call = [sys.executable, "-P", str(fresh_worker.__file__), json.dumps(told)]
    environment = os.environ | {CACHE_VARIABLE: str(cache)}
    with TemporaryFile("w+", errors="replace") as errors:  # a pipe that nobody reads fills up
        begun = time.monotonic_ns()
        with subprocess.Popen(
            call, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            ended = time.monotonic_ns()
        errors.seek(0)
        written = errors.read()
    try:
        answer = json.loads(line)
    except ValueError:
        raise BackendError(
            f"{each.path} on {each.runtime}: {_end(process.returncode, written)}"
        ) from None
    if "error" in answer:
        kind = InputError if answer["exit_code"] == InputError.exit_code else BackendError
        raise kind(answer["error"])
    marks = [begun, *(answer["marks"][stage] for stage in STAGES)]
    spans = np.diff(np.array(marks, np.int64)) / 1e9
    seconds = {stage: float(span) for stage, span in zip(STAGES, spans, strict=True)}
    seconds["total"] = (ended - begun) / 1e9
    return Fresh(
        seconds,
        answer["resident"],
        each.path / answer["file"],
        answer["runtime"],
        answer["device"],
        answer["precision"],
    )


def _end(code: int, errors: str) -> str:
    """Why a process ended that told nothing."""
    if code == -signal.SIGKILL:
        return "killed by the system, which it does to a process when memory runs out"
    lines = errors.strip().splitlines()
    return f"the process ended with {code}" + (f": {lines[-1]}" if lines else "")


@contextmanager
def _kept(image: npt.NDArray[np.uint8]) -> Iterator[Path]:
    with TemporaryDirectory(prefix="icnet-fresh-") as folder:
        path = Path(folder) / "image.npy"
        np.save(path, image)
        yield path


def in_fresh_processes(
    pairs: Sequence[Pair],
    image: npt.NDArray[np.uint8],
    rounds: int,
    threads: int | None = None,
    runs: int = 1,
    memory: bool = False,
) -> list[tuple[dict[str, Any], dict[str, list[Fresh]]]]:
    """Runs every artefact in turn, so many rounds, each cold and then cached.

    One process of each that does not count goes first: it brings the libraries and the file into
    the system's memory, where a service that is started again finds them.

    Args:
        pairs: files and runtimes.
        image: uint8 H x W x 3, RGB.
        rounds: processes of each, cold and cached.
        threads, runs, memory: see `run_fresh`.

    Returns:
        Of each pair its `Measurement.subject`, and what the processes told, by `CACHES`.
    """
    found: list[dict[str, list[Fresh]]] = [{cache: [] for cache in CACHES} for _ in pairs]
    steps = len(pairs) * (1 + rounds * len(CACHES))
    with _kept(image) as path, tqdm(total=steps, unit="process", disable=None) as bar:
        for turn in range(-1, rounds):
            for each, told in zip(pairs, found, strict=True):
                bar.set_postfix_str(f"{each.path.name}, {each.runtime}")
                with TemporaryDirectory(prefix="icnet-cache-") as folder:
                    for cache in CACHES[: 1 if turn < 0 else None]:
                        one = run_fresh(each, path, Path(folder), threads, runs, memory)
                        if turn >= 0:
                            told[cache].append(one)
                        bar.update()
    return [(_subject(e, f["cached"][-1], threads), f) for e, f in zip(pairs, found, strict=True)]


def _subject(each: Pair, one: Fresh, threads: int | None) -> dict[str, Any]:
    chosen = one.file != each.path
    return {
        "name": f"auto: {one.file.stem}" if chosen else one.file.stem,
        "file": one.file.name,
        "sha256": artefact_sha256(one.file),
        "precision": one.precision,
        "runtime": one.runtime,
        "device": one.device,
        "threads": threads,
    } | ({"auto": True} if chosen else {})
