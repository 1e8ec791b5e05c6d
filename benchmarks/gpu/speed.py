"""All contestants in turn, A B A B, in every scope and batch, beside the floor."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from icnet_deploy.benchmarks.gpu.setting import Setting
from icnet_deploy.benchmarks.gpu.subjects import (
    SCOPES,
    Subject,
    onnxruntime_ways,
    open_onnxruntime,
    open_torch,
    torch_ways,
)
from icnet_deploy.benchmarks.timing import summary

__all__ = ["IN_A_TURN", "WARMUP", "speed", "time_all"]

WARMUP, IN_A_TURN = 5, 10
"""Runs before any is timed, and timed runs a turn, after one that is not."""


def speed(setting: Setting) -> dict[str, Any]:
    """Batch -> what each contestant took, and what was left out and why."""
    from icnet_deploy.benchmarks.drawn import drawn_scenes

    scene = drawn_scenes(1, setting.size)[0].image
    told: dict[str, Any] = {"covers": SCOPES, "warmup": WARMUP, "in_a_turn": IN_A_TURN}
    for batch in setting.batches:
        if setting.late:
            told[f"batch {batch}"] = {"left_out": "the time was up"}
            continue
        frames = np.ascontiguousarray(np.stack([scene] * batch))
        with ExitStack() as stack:
            subjects, failures = _open(setting, frames, stack)
            told[f"batch {batch}"] = {
                "rows": time_all(setting, subjects, failures, batch),
                "left_out": failures,
            }
        setting.results["speed"] = told
        setting.save()
    return told


def _open(setting: Setting, frames: Any, stack: ExitStack) -> tuple[list[Subject], dict[str, str]]:
    subjects: list[Subject] = []
    failures: dict[str, str] = {}
    for way in torch_ways(setting):
        try:
            subjects += open_torch(setting, way, frames)
        except Exception as error:  # one that does not open takes no other with it
            failures[f"PyTorch {way}"] = f"{type(error).__name__}: {error}"
    for path, graph, nhwc in onnxruntime_ways(setting):
        try:
            subjects += stack.enter_context(open_onnxruntime(setting, path, graph, nhwc, frames))
        except Exception as error:  # as above
            name = f"ONNX Runtime {path.stem} graph={graph:d} nhwc={nhwc:d}"
            failures[name] = f"{type(error).__name__}: {error}"
    return subjects, failures


def time_all(
    setting: Setting, subjects: Sequence[Subject], failures: dict[str, str], batch: int
) -> list[dict[str, Any]]:
    """Times all in turn; stops with what it has when the time is up.

    Args:
        setting: for the rounds, the clock, and the floor that was found.
        subjects: what is timed.
        failures: is given name -> message of those that raise, which have no later turn.
        batch: frames a run.
    """
    samples: dict[int, list[float]] = {}
    failed: set[int] = set()
    in_a_turn = IN_A_TURN if setting.cuda else 1
    for turn in range(-1, setting.rounds):
        for i, each in enumerate(subjects):
            if i in failed or (setting.late and turn >= 0):
                continue
            try:
                for _ in range(1 if turn >= 0 else WARMUP if setting.cuda else 1):
                    each.work()
                if turn >= 0:
                    taken = [setting.seconds(each.work, each.events) for _ in range(in_a_turn)]
                    samples.setdefault(i, []).extend(taken)
            except Exception as error:  # as in `_open`
                failed.add(i)
                failures[f"{each.name}, {each.scope}"] = f"{type(error).__name__}: {error}"
    return [_row(setting, subjects[i], taken, batch) for i, taken in sorted(samples.items())]


def _row(setting: Setting, subject: Subject, taken: list[float], batch: int) -> dict[str, Any]:
    told = summary(taken)
    row = {
        "name": subject.name,
        "scope": subject.scope,
        "precision": subject.precision,
        "clock": "CUDA events" if subject.events and setting.cuda else "wall",
        "time": told,
        "frames_per_s": round(1e3 * batch / max(told["median_ms"], 1e-3), 1),
    }
    floor = setting.results.get("floor", {}).get(subject.precision, {}).get("floor_ms")
    if floor:
        row["times_the_floor"] = round(told["median_ms"] / batch / floor, 2)
    return row
