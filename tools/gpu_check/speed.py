"""Contestants in turn, A B A B, in every scope and batch, beside the floor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any

import numpy as np

from icnet_deploy.errors import InputError
from icnet_deploy.timing import summary
from tools.gpu_check.setting import Setting
from tools.gpu_check.subjects import (
    EAGER,
    SCOPES,
    Subject,
    onnxruntime_ways,
    open_onnxruntime,
    open_torch,
)

WARMUP, IN_A_TURN = 5, 10
"""Runs before any is timed, and timed runs a turn, after one that is not."""

Opener = tuple[str, Callable[[Any], AbstractContextManager[Sequence[Subject]]]]
"""A name, and what opens its subjects for uint8 frames N x H x W x 3."""


def speed(setting: Setting) -> dict[str, Any]:
    """Batch -> what each contestant took, and what was left out or failed, and why."""
    openers: list[Opener] = [(f"PyTorch {way}", open_torch(setting, way)) for way in EAGER]
    for path, graph, nhwc in onnxruntime_ways(setting):
        name = f"ONNX Runtime {path.stem} graph={graph:d} nhwc={nhwc:d}"
        openers.append((name, open_onnxruntime(setting, path, graph, nhwc)))
    return contest(setting, "speed", openers)


def contest(
    setting: Setting,
    step: str,
    openers: Iterable[Opener],
    batches: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Opens contestants and times them in turn, batch by batch; the rows are saved as they come.

    Once the time is up no more are opened; those that are have one turn.

    Args:
        setting: how.
        step: whose results they are.
        openers: the cheapest and most telling first.
        batches: frames a run; None for the setting's.
    """
    told = setting.kept(step) | {"covers": SCOPES, "warmup": WARMUP, "in_a_turn": IN_A_TURN}
    setting.results[step] = told
    for batch in batches or setting.batches:
        name = f"batch {batch}"
        if setting.late:
            told.setdefault(name, {"left_out": {"all": "the time was up"}, "failed": {}})
            continue
        frames = np.ascontiguousarray(np.stack([setting.scenes(1)[0].image] * batch))
        row: dict[str, Any] = {"in_turn": False, "rows": [], "left_out": {}, "failed": {}}
        told.setdefault(name, row)
        with ExitStack() as stack:
            subjects = _open(setting, openers, frames, stack, row)
            told[name] = row

            def save(rows: list[dict[str, Any]], row: dict[str, Any] = row) -> None:
                row |= {"in_turn": True, "rows": rows}
                setting.save()

            time_all(setting, subjects, row["failed"], batch, setting.rounds, save)
    return told


def _open(
    setting: Setting,
    openers: Iterable[Opener],
    frames: Any,
    stack: ExitStack,
    told: dict[str, Any],
) -> list[Subject]:
    """Opens and warms up, which compiles what is compiled; one that fails takes no other along.

    Each has a turn alone at once, whose rows stand until all are open.
    """
    subjects: list[Subject] = []
    for name, opener in openers:
        if setting.late:
            told["left_out"][name] = "the time was up"
            continue
        try:
            opened = stack.enter_context(opener(frames))
        except InputError as error:
            told["left_out"][name] = str(error)
            continue
        except Exception as error:  # whatever a library raises here is the finding
            told["failed"][name] = f"{type(error).__name__}: {error}"
            continue
        for each in opened:
            label = f"{each.name}, {each.scope}"
            if setting.left < 0:
                told["left_out"][label] = "the time was up"
                continue
            try:
                for _ in range(WARMUP if setting.cuda else 1):
                    each.work()
                setting.wait()
            except Exception as error:  # as above
                told["failed"][label] = f"{type(error).__name__}: {error}"
                continue
            subjects.append(each)
            told["rows"] += time_all(setting, [each], {}, len(frames), 1)
            setting.save()
    return subjects


def time_all(
    setting: Setting,
    subjects: Sequence[Subject],
    failed: dict[str, str],
    batch: int,
    rounds: int,
    save: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
) -> list[dict[str, Any]]:
    """Times all in turn; after the first turn stops with what it has when the time is up.

    Args:
        setting: for the clock, and the floor that was found.
        subjects: what is timed, warmed up.
        failed: is given name -> message of those that raise, which have no later turn.
        batch: frames a run.
        rounds: turns of each.
        save: is given the rows after each turn.
    """
    samples: dict[int, list[float]] = {}
    out: set[int] = set()
    rows: list[dict[str, Any]] = []
    for turn in range(rounds):
        if turn and setting.late:
            break
        for i, each in enumerate(subjects):
            if i in out:
                continue
            try:
                each.work()
                clock = each.clock or partial(setting.seconds, events=each.events)
                taken = [clock(each.work) for _ in range(IN_A_TURN if setting.cuda else 1)]
                samples.setdefault(i, []).extend(taken)
            except Exception as error:  # as in `_open`
                out.add(i)
                failed[f"{each.name}, {each.scope}"] = f"{type(error).__name__}: {error}"
        rows = [_row(setting, subjects[i], taken, batch) for i, taken in sorted(samples.items())]
        save(rows)
    return rows


def _row(setting: Setting, subject: Subject, taken: list[float], batch: int) -> dict[str, Any]:
    told = summary(taken)
    on_stream = subject.clock is not None or (subject.events and setting.cuda)
    row = {
        "name": subject.name,
        "scope": subject.scope,
        "precision": subject.precision,
        "clock": "CUDA events" if on_stream else "wall",
        "time": told,
        "frames_per_s": round(1e3 * batch / max(told["median_ms"], 1e-3), 1),
    }
    kind = subject.precision.split("-")[0]  # int8-ort counts as int8
    floor = setting.results.get("floor", {}).get(kind, {}).get("floor_ms")
    if floor:
        row["times_the_floor"] = round(told["median_ms"] / batch / floor, 2)
    return row
