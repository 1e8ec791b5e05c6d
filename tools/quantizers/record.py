"""Scores and times the files of a folder, row by row, and records what came of it."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from tqdm import tqdm

from icnet_deploy.data import Dataset
from icnet_deploy.evaluation.score import Score, percent
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime.machine import machine
from tools.quantizers.folder import Made, Network, file_digest, made
from tools.quantizers.scores import FLOAT, Scored, Scores, path_of
from tools.quantizers.settings import KIND, OURS, RUNTIMES, SCHEMA
from tools.quantizers.times import CLOCKS, time_all
from tools.quantizers.verdicts import TOLERANCE, Timed, best_of, best_of_ours, verdict

_TIMED = 3
"""Files of each peer that are timed: those with the most labels alike."""

_ROUGHLY = 1.1
"""What a file took beside float32 as it was scored, on a machine that may have been busy."""


def score_all(network: Network, scores: Scores) -> dict[str, list[Scored]]:
    """Runtime -> every file that is for it, float32's first; what was kept is not scored again."""
    exact = Made(FLOAT, "-", RUNTIMES, 0.0, network.model.name, file_digest(network.model))
    pairs = [(one, each) for one in (exact, *made(network)) for each in one.runtimes]
    found: dict[str, list[Scored]] = {runtime: [] for runtime in RUNTIMES}
    for one, runtime in tqdm(pairs, desc=f"{network.name}: score", unit="file", disable=None):
        found[runtime].append(scores.of(one, runtime))
    return found


def shortlist(files: Sequence[Scored]) -> list[Scored]:
    """The files of one runtime that are worth timing.

    Ours and float32's; of each peer's those with the most labels alike, of all and of those that
    took less processor time than float32 as they were scored.
    """
    run = [each for each in files if not each.error]
    exact = next(each for each in run if each.made.quantizer == FLOAT)
    chosen = [each for each in run if each.made.quantizer in (FLOAT, OURS)]
    for peer in dict.fromkeys(each.made.quantizer for each in run):
        own = [each for each in run if each.made.quantizer == peer and each not in chosen]
        own.sort(key=lambda each: -each.agreement)
        fast = [each for each in own if each.rough_ms <= _ROUGHLY * exact.rough_ms]
        chosen += [each for each in own if each in (*own[:1], *fast[:_TIMED])]
    return chosen


def record(
    network: Network, dataset: Dataset, metadata: ArtefactMetadata, rounds: int
) -> dict[str, Any]:
    """The JSON form of a network's two rows.

    Args:
        network: whose files were made.
        dataset: what they are scored on.
        metadata: of the float32 file.
        rounds: of the timing.
    """
    scores = Scores(network, dataset, metadata)
    files = score_all(network, scores)
    exact = scores.exact
    rows = [_row(network, runtime, each, exact, rounds) for runtime, each in files.items()]
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "network": network.name,
        "model_sha256": network.model_sha256,
        "weights_sha256": metadata.weights_sha256,
        "size": list(metadata.size or ()),
        "calibration_images": network.calibrated,
        "validation_images": network.validated,
        "protocol": exact.protocol().to_dict(),
        "float32": exact.to_dict(),
        "clocks": {name: clock.words for name, clock in CLOCKS.items()},
        "rounds": rounds,
        "tolerance": TOLERANCE,
        "machine": machine(),
        "rows": rows,
    }


def _row(
    network: Network, runtime: str, files: Sequence[Scored], exact: Score, rounds: int
) -> dict[str, Any]:
    """A network on a runtime: every file, and ours beside the best peer's."""
    chosen = {str(index): each for index, each in enumerate(files) if each in shortlist(files)}
    paths = {name: path_of(network, each.made) for name, each in chosen.items()}
    images = list(np.load(network.images, mmap_mode="r")[:4])
    seconds = {
        name: time_all(paths, runtime, images, rounds, clock) for name, clock in CLOCKS.items()
    }
    timed = {name: Timed.of(each, name, seconds) for name, each in chosen.items()}
    ran = [each for each in timed.values() if each is not None]
    reference = next(each for each in ran if each.scored.made.quantizer == FLOAT)
    peers = [each for each in ran if each.scored.made.quantizer not in (FLOAT, OURS)]
    best = best_of(peers, reference)
    candidates = [
        _candidate(each, timed.get(str(index)), reference, exact, best)
        for index, each in enumerate(files)
    ]
    content: dict[str, Any] = {"runtime": runtime, "version": version(runtime)}
    if ours := best_of_ours(candidates):
        content["ours"] = {
            "settings": ours["settings"],
            "holds": ours["against_best_peer"]["holds"],
        }
    return content | {"candidates": candidates}


def _candidate(
    scored: Scored, timed: Timed | None, reference: Timed, exact: Score, best: Timed | None
) -> dict[str, Any]:
    """One file: what it costs, how long it takes, and for ours whether it holds."""
    one = scored.made
    content: dict[str, Any] = {"quantizer": one.quantizer, "settings": one.settings}
    if one.sha256:
        content |= {"sha256": one.sha256, "made_in_seconds": one.seconds}
    if scored.error:
        return content | {"error": scored.error}
    cost = scored.cost(exact.images_counted, exact.dataset.label_set.names)
    content |= {
        "alike_percent": percent(cost.agreement),
        "miou_difference_points": cost.differences.miou.to_dict(),
        "lowest_class": cost.worst_class,
        "lowest_class_difference_points": cost.differences.classes[cost.worst_class].to_dict(),
    }
    if timed is not None:
        content["median_ms"] = {
            clock: round(1e3 * float(np.median(each)), 3) for clock, each in timed.seconds.items()
        }
        content["time_to_float32"] = timed.ratios(reference)
        content["best_peer"] = timed is best
        if one.quantizer == OURS and best is not None:
            content["against_best_peer"] = verdict(timed, best)
    return content
