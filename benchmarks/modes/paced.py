"""`icnet benchmark paced`: frames at a fixed rate, as a camera gives them, and what is missed."""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from icnet_deploy.benchmarks.arguments import (
    mode_parser,
    numbers,
    pictures,
    run_mode,
    runs_of,
)
from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.benchmarks.measurement_tables import mode_text, p90
from icnet_deploy.benchmarks.subjects import open_artefact
from icnet_deploy.command import Goal, command, number_type, options
from icnet_deploy.documents import POSITIVE
from icnet_deploy.images import UInt8
from icnet_deploy.report.tables import number
from icnet_deploy.timing import WARMUP, summary, tellable


@dataclass
class _Paced:
    """What came of a series of frames.

    Attributes:
        period: seconds from one frame to the next.
        deadline: seconds within which a label map is in time, from when its frame was due.
        due: how many frames were due.
        latencies: seconds from when a frame was due to its label map, of each labelled frame.
        finished: the clock's seconds when each label map was there.
    """

    period: float
    deadline: float
    due: int = 0
    latencies: list[float] = field(default_factory=list)
    finished: list[float] = field(default_factory=list)

    def values(self) -> dict[str, Any]:
        """See `Measurement.values`. Jitter is that of the gaps between label maps less a period."""
        off = 1e3 * (np.diff(self.finished) - self.period)
        late = sum(latency > self.deadline for latency in self.latencies)
        dropped = self.due - len(self.latencies)  # a newer one took their place
        jitter = {"std": off.std()} if off.size > 1 else {}
        jitter |= {"p99": np.percentile(off, 99)} if tellable(99, off.size) else {}
        return {
            "due_frames": self.due,
            "labelled_frames": len(self.latencies),
            "dropped_frames": dropped,
            "late_frames": late,
            "missed_percent": round(100 * (late + dropped) / self.due, 3),
            "latency": summary(self.latencies),
        } | {f"jitter_{name}_ms": round(float(value), 3) for name, value in jitter.items()}


def feed(
    label: Callable[[UInt8], object],
    images: Sequence[UInt8],
    rate: float,
    seconds: float,
    deadline: float | None = None,
    after: Callable[[int], object] = lambda frames: None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> _Paced:
    """Labels frames that are due every 1/rate seconds, whether or not the last one is done.

    Of the frames that come while one is worked on only the newest waits. When each is due is
    reckoned from the first, so that no error adds up.

    Args:
        label: labels one image; returns when its label map is there.
        images: the frames, taken in turn.
        rate: frames a second.
        seconds: for how long; at least one frame is due.
        deadline: seconds from when a frame is due; a period if None.
        after: is told after each label map how many more frames are past.
        clock: seconds, which only grow.
        sleep: waits for so many seconds.
    """
    period = 1 / rate
    series = _Paced(period, period if deadline is None else deadline, max(1, round(rate * seconds)))
    start = clock()
    taken = -1
    while taken < series.due - 1:
        wait = start + (taken + 1) * period - clock()
        if wait > 0:
            sleep(wait)
        newest = min(series.due - 1, math.floor((clock() - start) / period))
        newest = max(newest, taken + 1)  # rounding may put the frame slept for a hair ahead
        label(images[newest % len(images)])
        done = clock()
        series.latencies.append(done - (start + newest * period))
        series.finished.append(done)
        after(newest - taken)
        taken = newest
    return series


def _measure(arguments: argparse.Namespace) -> list[Measurement]:
    runs, images = runs_of(arguments), pictures(arguments)
    deadline = None if arguments.deadline is None else arguments.deadline / 1e3
    frames = len(runs) * sum(max(1, round(r * arguments.seconds)) for r in arguments.rate)
    measured = []
    with ExitStack() as stack:
        opened = [stack.enter_context(open_artefact(each, arguments.threads)) for each in runs]
        for subject in opened:
            for index in range(WARMUP):
                subject.label(images[index % len(images)])
        bar = stack.enter_context(tqdm(total=frames, desc="paced", unit="frame", disable=None))
        for rate in arguments.rate:
            for subject in opened:
                paced = feed(subject.label, images, rate, arguments.seconds, deadline, bar.update)
                setting = {
                    "size": list(images[0].shape[:2]),
                    "batch": 1,
                    "warmup": WARMUP,
                    "rate_per_s": rate,
                    "seconds": arguments.seconds,
                    "deadline_ms": round(1e3 * paced.deadline, 3),
                }
                row = (subject.facts, setting, paced.values())
                measured.append(Measurement("paced", "due-to-labels", *row))
    return measured


def _cells(each: Measurement) -> list[str]:
    values = each.values
    return [
        f"{each.setting['rate_per_s']:g}",
        *(str(values[f"{name}_frames"]) for name in ("due", "labelled", "dropped", "late")),
        number(values["missed_percent"], 1),
        number(values["latency"]["median_ms"], 1),
        p90(values["latency"]),
        number(values["latency"].get("p99_ms"), 1),
        *(number(values.get(f"jitter_{name}_ms"), 1) for name in ("std", "p99")),
    ]


def _text(measured: Sequence[Measurement]) -> str:
    header = ["Hz", "due", "labelled", "dropped", "late", "missed %", "p50", "p90", "p99"]
    deadlines = dict.fromkeys(each.setting["deadline_ms"] for each in measured)
    notes = [
        f"{measured[0].setting['seconds']:g} s at each rate after {WARMUP} warm-up runs; ms from "
        "the time when a frame was due to its label map",
        f"late: after the deadline of {', '.join(f'{ms:g}' for ms in deadlines)} ms; dropped: a "
        "newer frame came while it waited; missed: late or dropped",
        "p90 needs at least 10 label maps, p99 at least 100",
        "jitter: standard deviation and p99 of the gaps between label maps, minus one period",
    ]
    return mode_text(measured, [*header, "jitter", "jitter p99"], _cells, notes)


def _parser() -> argparse.ArgumentParser:
    parser = mode_parser(
        "paced",
        "Feeds frames at a fixed rate, as a camera does, and counts dropped and late frames.",
        "icnet benchmark paced icnet-int8.onnx --rate 10,15 --seconds 20 --json paced.jsonl",
    )
    run = options(parser, Goal.RUN)
    run.add_argument(
        "--rate",
        type=numbers(number_type(POSITIVE)),
        default=[15.0, 30.0, 60.0],
        metavar="HZ,...",
        help="frames a second; several rates run one after the other (default: 15,30,60)",
    )
    run.add_argument(
        "--seconds",
        type=number_type(POSITIVE),
        default=10.0,
        metavar="S",
        help="how long each rate runs (default: 10)",
    )
    options(parser, Goal.LIMITS).add_argument(
        "--deadline",
        type=number_type(POSITIVE),
        metavar="MS",
        help="time from when a frame is due to its label map; a later label map is late (default: "
        "one period, 1/rate)",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet benchmark paced`; returns its exit code."""
    return run_mode(_parser().parse_args(argv), _measure, _text)
