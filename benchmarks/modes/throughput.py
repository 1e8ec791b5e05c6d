"""`icnet benchmark throughput`: images a second, in streams, in batches, and from file to file."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from icnet_deploy.benchmarks.asked import (
    facts,
    mode_parser,
    numbers,
    open_timed,
    pairs_of,
    pictures,
    run_mode,
    tell_how,
    who,
)
from icnet_deploy.benchmarks.busy import Timed, busy_percent
from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.command import command, count
from icnet_deploy.evaluation.pairing import Pair
from icnet_deploy.images import write_image
from icnet_deploy.report.tables import number, text_table
from icnet_deploy.runtime.machine import machine
from icnet_deploy.runtime.predict.command import label_files
from icnet_deploy.runtime.predict.inputs import Item, find_items
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.timing import WARMUP, summary

UInt8 = npt.NDArray[np.uint8]

FRAMES, FILES = "frames-to-labels", "files-to-files"


@dataclass
class Way:
    """One way to label many images.

    Attributes:
        name: what the table calls it.
        scope: a key of `SCOPES`.
        row: see `Measurement.subject`.
        setting: see `Measurement.setting`.
        label_all: labels so many images that it is asked for.
        network: notes when it was at work.
        seconds, busy, cpu: of each pass: how long it took, the share of it with the network at
            work, and of the processor's cores, in percent.
    """

    name: str
    scope: str
    row: dict[str, Any]
    setting: dict[str, Any]
    label_all: Callable[[int], object]
    network: Timed
    seconds: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def measurement(self, images: int) -> Measurement:
        """What came of passes over so many images each."""
        weights = np.array(self.seconds)
        values = {
            "images_per_s": round(images * len(self.seconds) / sum(self.seconds), 3),
            "pass": summary(self.seconds),
            "busy_percent": round(float(np.average(self.busy, weights=weights)), 2),
            "cpu_percent": round(float(np.average(self.cpu, weights=weights)), 2),
        }
        return Measurement("throughput", self.scope, self.row, self.setting, values)


def turn(way: Way, images: int) -> None:
    """Labels so many images in one pass, and notes how long it took."""
    way.network.spans.clear()
    start, cpu = time.perf_counter(), time.process_time()
    way.label_all(images)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    way.seconds.append(seconds)
    way.busy.append(busy_percent(way.network.spans))
    way.cpu.append(100 * cpu / seconds / machine()["cores"])


def _stream(predictor: Predictor, images: Sequence[UInt8], total: int) -> None:
    for _ in predictor.stream(islice(cycle(images), total)):
        pass


def _batches(predictor: Predictor, images: Sequence[UInt8], batch: int, total: int) -> None:
    frames = cycle(images)
    for start in range(0, total, batch):
        predictor.predict_batch(list(islice(frames, min(batch, total - start))))


def _files(predictor: Predictor, items: Sequence[Item]) -> None:
    _, failures = label_files(predictor, items)
    if failures:
        raise failures[0]


def _ways(
    arguments: argparse.Namespace,
    each: Pair,
    images: Sequence[UInt8],
    items: list[Item],
    stack: ExitStack,
) -> list[Way]:
    """Opens an artefact once for each number of streams; batches run where there is one."""
    threads, ways = arguments.threads, []
    opened: dict[int, tuple[Predictor, Timed]] = {}

    def add(name: str, scope: str, streams: int, batch: int, label_all: Callable[..., Any]) -> None:
        if streams not in opened:
            opened[streams] = stack.enter_context(open_timed(each, threads, streams))
        predictor, network = opened[streams]
        setting = {"size": list(images[0].shape[:2]), "batch": batch, "warmup": WARMUP}
        setting |= {"way": name, "rounds": arguments.rounds, "images": arguments.images}
        if scope == FILES:
            setting["format"] = ", ".join(sorted({item.path.suffix[1:] for item in items}))
        row = facts(each, predictor, threads, streams)
        run = lambda total: label_all(predictor, total)  # noqa: E731
        ways.append(Way(name, scope, row, setting, run, network))

    if FRAMES in arguments.scope:
        for streams in arguments.streams:
            add(_plural(streams), FRAMES, streams, 1, lambda p, total: _stream(p, images, total))
        for batch in arguments.batch:
            add(
                f"batches of {batch}",
                FRAMES,
                1,
                batch,
                lambda p, total, batch=batch: _batches(p, images, batch, total),
            )
    if FILES in arguments.scope:
        for streams in arguments.streams:
            name = f"files, {_plural(streams)}"
            add(name, FILES, streams, 1, lambda p, total: _files(p, items[:total]))
    return ways


def _plural(streams: int) -> str:
    return "1 stream" if streams == 1 else f"{streams} streams"


def _write_files(images: Sequence[UInt8], total: int, folder: Path) -> list[Item]:
    """Writes the images in turn as PNG and JPEG; the results have a folder of their own."""
    for name in ("images", "results"):
        (folder / name).mkdir()
    for index, image in enumerate(islice(cycle(images), total)):
        write_image(folder / "images" / f"{index:04}.{('png', 'jpg')[index % 2]}", image)
    return find_items([str(folder / "images")], folder / "results")


def _measure(arguments: argparse.Namespace) -> list[Measurement]:
    pairs, images = pairs_of(arguments), pictures(arguments)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="icnet-throughput-")))
        items = _write_files(images, arguments.images, folder) if FILES in arguments.scope else []
        ways = [way for each in pairs for way in _ways(arguments, each, images, items, stack)]
        for way in ways:
            way.label_all(min(WARMUP, arguments.images))
        total = arguments.rounds * len(ways)
        with tqdm(total=total, desc="throughput", unit="pass", disable=None) as bar:
            for _ in range(arguments.rounds):
                for way in ways:
                    bar.set_postfix_str(f"{way.row['name']}, {way.name}")
                    turn(way, arguments.images)
                    bar.update()
    return [way.measurement(arguments.images) for way in ways]


def _print(found: Sequence[Measurement]) -> None:
    heads = ["artefact", "precision", "on", "how", "images/s", "ms an image", "busy %", "cpu %"]
    rows = []
    for each in found:
        values = each.values
        cells = [*who(each), each.setting["way"]]
        cells += [number(values["images_per_s"], 2), number(1e3 / values["images_per_s"], 1)]
        cells += [number(values[f"{what}_percent"], 1) for what in ("busy", "cpu")]
        rows.append(cells)
    print(text_table(heads, rows, left=4))
    setting = found[0].setting
    lines = [
        f"{setting['rounds']} passes over {setting['images']} images each, in turn, after "
        f"{WARMUP} warm-up images",
        "busy: the share of the time, from the first inference to the last, with the network at "
        "work; cpu: the share of all cores that the process used",
    ]
    tell_how(found, lines)


def _parser() -> argparse.ArgumentParser:
    parser = mode_parser(
        "throughput",
        "Counts images a second: frames in memory through `Predictor.stream` with one or more\n"
        "streams, and in batches; and image files through all that `icnet predict` does. Tells\n"
        "how much of the time the network was at work.",
        "icnet benchmark throughput icnet-int8.onnx --streams 1,2 --batch 4 --images 40",
    )
    parser.add_argument(
        "--streams",
        type=numbers(count),
        default=[1, 2],
        metavar="N,...",
        help="how many images are worked on at once (default: 1,2)",
    )
    parser.add_argument(
        "--batch",
        type=numbers(count),
        default=[1, 2, 4],
        metavar="N,...",
        help="images a run; an artefact of batch 1 runs them one by one (default: 1,2,4)",
    )
    parser.add_argument(
        "--scope",
        type=numbers(_scope),
        default=[FRAMES, FILES],
        metavar="NAME,...",
        help=f"{FRAMES}: streams and batches; {FILES}: image files (default: both)",
    )
    parser.add_argument(
        "--images", type=count, default=30, metavar="N", help="in a pass (default: 30)"
    )
    parser.add_argument("--rounds", type=count, default=3, metavar="N", help="passes (default: 3)")
    return parser


def _scope(text: str) -> str:
    if text not in (FRAMES, FILES):
        raise argparse.ArgumentTypeError(f"{text!r} is neither {FRAMES} nor {FILES}")
    return text


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet benchmark throughput`; returns its exit code."""
    return run_mode(_parser().parse_args(argv), _measure, _print)
