"""`icnet benchmark throughput`: images a second, in streams, in batches, and from file to file."""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np
from tqdm import tqdm

from icnet_deploy.benchmarks.arguments import (
    add_rounds,
    image_files,
    mode_parser,
    numbers,
    pictures,
    run_mode,
    runs_of,
)
from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.benchmarks.measurement_tables import mode_text
from icnet_deploy.benchmarks.subjects import Span, busy_percent, note_runs, open_artefact
from icnet_deploy.command import Goal, command, count, options
from icnet_deploy.evaluation.pairing import Run
from icnet_deploy.files import scratch_folder
from icnet_deploy.images import UInt8
from icnet_deploy.report.tables import number
from icnet_deploy.runtime.machine import machine
from icnet_deploy.runtime.predict.inputs import Item
from icnet_deploy.runtime.predict.labelling import label_files
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.timing import WARMUP, summary

_FRAMES, _FILES = "frames-to-labels", "files-to-files"


@dataclass
class Feed:
    """One way to give many images to a subject.

    Attributes:
        scope: a key of `SCOPES`.
        facts: of the subject; see `Measurement.subject`.
        setting: see `Measurement.setting`; `way` is what the table calls it.
        label_all: labels so many images that it is asked for.
        spans: when the network was at work in the pass.
        passes: of each pass: how many seconds it took, and the share of it with the network at
            work, and of the processor's cores, in percent.
    """

    scope: str
    facts: dict[str, Any]
    setting: dict[str, Any]
    label_all: Callable[[int], object]
    spans: list[Span]
    passes: list[tuple[float, float, float]] = field(default_factory=list)

    def turn(self, images: int) -> None:
        """Labels so many images in one pass, and notes how long it took."""
        self.spans.clear()
        start, cpu = time.perf_counter(), time.process_time()
        self.label_all(images)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        share = 100 * cpu / seconds / machine()["cores"]
        self.passes.append((seconds, busy_percent(self.spans), share))

    def measurement(self, images: int) -> Measurement:
        """What came of passes over so many images each."""
        seconds, busy, cpu = np.array(self.passes).T
        values = {
            "images_per_s": round(images * len(seconds) / float(seconds.sum()), 3),
            "pass": summary(seconds.tolist()),
            "busy_percent": round(float(np.average(busy, weights=seconds)), 2),
            "cpu_percent": round(float(np.average(cpu, weights=seconds)), 2),
        }
        return Measurement("throughput", self.scope, self.facts, self.setting, values)


def stream(images: Sequence[UInt8], predictor: Predictor, total: int) -> None:
    """Labels so many images, one after the other."""
    for _ in predictor.stream(islice(cycle(images), total)):
        pass


def batches(images: Sequence[UInt8], batch: int, predictor: Predictor, total: int) -> None:
    """Labels so many images, in batches."""
    frames = cycle(images)
    for start in range(0, total, batch):
        predictor.predict_batch(list(islice(frames, min(batch, total - start))))


def files(items: Sequence[Item], predictor: Predictor, total: int) -> None:
    """Labels so many image files into result files."""
    _, failures = label_files(predictor, items[:total])
    if failures:
        raise failures[0]


def _ways(
    arguments: argparse.Namespace, images: Sequence[UInt8], items: Sequence[Item]
) -> Iterator[tuple[str, str, int, int, Callable[[Predictor, int], None]]]:
    """Name, scope, streams, batch, and what labels so many images with a predictor."""
    if _FRAMES in arguments.scope:
        for streams in arguments.streams:
            yield _plural(streams), _FRAMES, streams, 1, partial(stream, images)
        for batch in arguments.batch:
            yield f"batches of {batch}", _FRAMES, 1, batch, partial(batches, images, batch)
    if _FILES in arguments.scope:
        for streams in arguments.streams:
            yield f"files, {_plural(streams)}", _FILES, streams, 1, partial(files, items)


def open_feeds(
    arguments: argparse.Namespace,
    run: Run,
    images: Sequence[UInt8],
    items: Sequence[Item],
    stack: ExitStack,
) -> Iterator[Feed]:
    """Opens an artefact once for each number of streams; batches run where there is one."""
    opened = {}
    for way, scope, streams, batch, label in _ways(arguments, images, items):
        if streams not in opened:
            subject = stack.enter_context(open_artefact(run, arguments.threads, streams))
            opened[streams] = subject, note_runs(subject.predictor.backend)
        subject, spans = opened[streams]
        setting = {"size": list(images[0].shape[:2]), "batch": batch, "warmup": WARMUP}
        setting |= {"way": way, "rounds": arguments.rounds, "images": arguments.images}
        if scope == _FILES:
            setting["format"] = ", ".join(sorted({item.path.suffix[1:] for item in items}))
        yield Feed(scope, subject.facts, setting, partial(label, subject.predictor), spans)


def _plural(streams: int) -> str:
    return f"{streams} stream{'s' * (streams != 1)}"


def run_in_turn(feeds: Sequence[Feed], rounds: int, images: int) -> None:
    """Warms all up, and then has each a pass over so many images, round by round."""
    for feed in feeds:
        feed.label_all(min(WARMUP, images))
    total = rounds * len(feeds)
    with tqdm(total=total, desc="throughput", unit="pass", disable=None) as bar:
        for _ in range(rounds):
            for feed in feeds:
                bar.set_postfix_str(f"{feed.facts['name']}, {feed.setting['way']}")
                feed.turn(images)
                bar.update()


def _measure(arguments: argparse.Namespace) -> list[Measurement]:
    runs, images = runs_of(arguments), pictures(arguments)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        files = islice(cycle(images), arguments.images if _FILES in arguments.scope else 0)
        items = image_files(list(files), ["png", "jpg"], folder)
        feeds = [
            feed for each in runs for feed in open_feeds(arguments, each, images, items, stack)
        ]
        run_in_turn(feeds, arguments.rounds, arguments.images)
    return [feed.measurement(arguments.images) for feed in feeds]


def _cells(each: Measurement) -> list[str]:
    rate = each.values["images_per_s"]
    return [
        each.setting["way"],
        number(rate, 2),
        number(1e3 / rate, 1),
        *(number(each.values[f"{what}_percent"], 1) for what in ("busy", "cpu")),
    ]


def _text(measured: Sequence[Measurement]) -> str:
    setting = measured[0].setting
    notes = [
        f"{setting['rounds']} passes over {setting['images']} images each, in turn, after "
        f"{WARMUP} warm-up images",
        "busy: the share of the time from the first inference to the last in which the network is "
        "at work; cpu: the share of all cores that the process uses",
    ]
    header = ["way", "images/s", "ms an image", "busy %", "cpu %"]
    return mode_text(measured, header, _cells, notes, left=4)


def _parser() -> argparse.ArgumentParser:
    parser = mode_parser(
        "throughput",
        "Measures images a second: in streams, in batches, and from image files to result files.",
        "icnet benchmark throughput icnet-int8.onnx --streams 1,2 --batch 4 --images 40",
    )
    run = options(parser, Goal.RUN)
    run.add_argument(
        "--streams",
        type=numbers(count),
        default=[1, 2],
        metavar="N,...",
        help="images that the runtime works on at the same time (default: 1,2)",
    )
    run.add_argument(
        "--batch",
        type=numbers(count),
        default=[1, 2, 4],
        metavar="N,...",
        help="images in each run; an artefact of batch 1 runs them one by one (default: 1,2,4)",
    )
    run.add_argument(
        "--scope",
        type=numbers(_scope),
        default=[_FRAMES, _FILES],
        metavar="NAME,...",
        help=f"{_FRAMES}: images in memory, in streams and batches; {_FILES}: image files to "
        "result files, in streams (default: both)",
    )
    run.add_argument(
        "--images", type=count, default=30, metavar="N", help="images in each pass (default: 30)"
    )
    add_rounds(parser, 3, "passes over the images of each artefact, which take turns")
    return parser


def _scope(text: str) -> str:
    if text not in (_FRAMES, _FILES):
        raise argparse.ArgumentTypeError(f"{text!r} is not a scope: expected {_FRAMES} or {_FILES}")
    return text


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet benchmark throughput`; returns its exit code."""
    return run_mode(_parser().parse_args(argv), _measure, _text)
