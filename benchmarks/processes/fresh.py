"""Artefacts in fresh processes: how long until the first label map, and how much memory.

OpenVINO compiles a model when it is first loaded and keeps the result; so every round begins with
an empty cache folder (`cold`), and once more with what the first process left there (`cached`).
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.benchmarks.processes import fresh_worker
from icnet_deploy.benchmarks.subjects import artefact_facts
from icnet_deploy.errors import BackendError
from icnet_deploy.evaluation.pairing import Run
from icnet_deploy.files import CACHE_VARIABLE, scratch_folder
from icnet_deploy.images import UInt8
from icnet_deploy.processes import Child

_CACHES = ("cold", "cached")
"""What a process finds in the cache folder: nothing, or what one before it left there."""

CACHE_WORDS = (
    "cold: with an empty cache folder, so the process compiles the model and, in a folder, finds "
    "the fastest file; cached: with the cache of a first process"
)
"""`_CACHES` for a reader of the table."""

STAGES = ("python", "import", "image", "load", "first_label_map")
"""Of a process, in order: the interpreter's start; `icnet_deploy.runtime` and its `Predictor`; the
image's array, read from the disk; the model; its first label map."""


@dataclass(frozen=True)
class Fresh:
    """What one process said of itself.

    Attributes:
        seconds: stage -> how long it took, and `total`: from the moment it was asked for to the
            line in which it said that it has the label map.
        resident: `import`, `load` and `peak` -> bytes; empty if that was not asked for.
        file: the artefact in it.
        facts: its `precision`, `runtime` and `device`.
    """

    seconds: dict[str, float]
    resident: dict[str, int | None]
    file: Path
    facts: dict[str, Any]


def run_fresh(
    each: Run,
    image: Path,
    cache: Path,
    threads: int | None = None,
    repeats: int = 1,
    memory: bool = False,
    worker: str = fresh_worker.__file__,
) -> Fresh:
    """Labels an image in a process of its own, in this one's environment.

    Args:
        each: the file and the runtime, or a folder of files to choose from and `auto`.
        image: a .npy file, uint8 H x W x 3, RGB.
        cache: the folder that it keeps things in (`ICNET_CACHE`).
        threads: CPU threads a run; None leaves it to the runtime.
        repeats: how often the image is labelled.
        memory: whether it is asked for its resident memory, too.
        worker: the file that the process runs.

    Raises:
        InputError: the artefact cannot be loaded; the message is the process's.
        BackendError: it failed as it ran, or was killed.
    """
    job = {
        "path": each.path,
        "runtime": each.runtime,
        "device": each.device,
        "threads": threads,
        "image": image,
        "repeats": repeats,
        "memory": memory,
    }
    with closing(Child([worker], job, {CACHE_VARIABLE: str(cache)})) as child:
        try:
            answer = child.answer()
        except BackendError as error:
            raise BackendError(f"{each.path} on {each.runtime}: {error}") from error
        ended = time.monotonic_ns()
    marks = [child.begun, *(answer["marks"][stage] for stage in STAGES)]
    spans = np.diff(np.array(marks, np.int64)) / 1e9
    seconds = dict(zip(STAGES, spans.tolist(), strict=True))
    facts = {name: answer[name] for name in ("precision", "runtime", "device")}
    seconds["total"] = (ended - child.begun) / 1e9
    return Fresh(seconds, answer["resident"], each.path / answer["file"], facts)


def measure_fresh(
    kind: str,
    runs: Sequence[Run],
    image: UInt8,
    values: Callable[[Sequence[Fresh]], dict[str, Any]],
    rounds: int,
    threads: int | None = None,
    repeats: int | None = None,
    run_one: Callable[..., Fresh] = run_fresh,
) -> list[Measurement]:
    """Runs every artefact in turn, so many rounds, each cold and then cached.

    One process of each that does not count goes first: it brings the libraries and the file into
    the system's memory, where a service that is started again finds them.

    Args:
        kind: of the measurements.
        runs: files and runtimes.
        image: uint8 H x W x 3, RGB.
        values: of the processes of one artefact, cold or cached; see `Measurement.values`.
        rounds: processes of each, cold and cached.
        threads: see `run_fresh`.
        repeats: how often each labels the image before its resident memory is asked for, or None:
            once, and it is not asked for.
        run_one: as `run_fresh`.

    Returns:
        Two of each, by `_CACHES`.
    """
    rows: list[dict[str, list[Fresh]]] = [{cache: [] for cache in _CACHES} for _ in runs]
    steps = len(runs) * (1 + rounds * len(_CACHES))
    memory = {"repeats": repeats, "memory": True} if repeats else {}
    with (
        scratch_folder() as place,
        tqdm(total=steps, unit="process", disable=None) as bar,
    ):
        path = place / "image.npy"
        np.save(path, image)
        for turn in range(-1, rounds):
            for each, processes in zip(runs, rows, strict=True):
                bar.set_postfix_str(f"{each.path.name}, {each.runtime}")
                with scratch_folder() as folder:
                    for cache in _CACHES[: 1 if turn < 0 else None]:
                        one = run_one(each, path, folder, threads, **memory)
                        if turn >= 0:
                            processes[cache].append(one)
                        bar.update()
    setting = {"size": list(image.shape[:2]), "batch": 1, "warmup": 0, "rounds": rounds} | (
        {"runs": repeats} if repeats else {}
    )
    measured = []
    for each, processes in zip(runs, rows, strict=True):
        last = processes["cached"][-1]
        facts = artefact_facts(
            last.file, auto=last.file != each.path, **last.facts, threads=threads
        )
        for cache in _CACHES:
            how = {**setting, "cache": cache}
            measured.append(Measurement(kind, "process", facts, how, values(processes[cache])))
    return measured
