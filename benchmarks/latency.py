"""`icnet benchmark latency`: artefacts and peers timed in turn, one image at a time."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from icnet_deploy.benchmarks.bench_options import add_plot_options, check_result_options, keep
from icnet_deploy.benchmarks.bench_tables import text
from icnet_deploy.benchmarks.contestants import Contestant, open_artefact, open_folder
from icnet_deploy.benchmarks.measurement import SCOPES, Measurement
from icnet_deploy.benchmarks.modes import WARMUP, mode_parser, pairs_of, pictures
from icnet_deploy.benchmarks.pairing import Pair
from icnet_deploy.benchmarks.timing import interleave, summary
from icnet_deploy.command import command, count
from icnet_deploy.errors import CheckFailed, InputError

if TYPE_CHECKING:
    from icnet_deploy.benchmarks.latency_peers import ChosenPeers

__all__ = ["Latency", "main", "measure", "measurements"]

UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Latency:
    """What one contestant took.

    Attributes:
        contestant: who.
        stages: stage -> seconds a run, in the order taken; `total` is one of them.
    """

    contestant: Contestant
    stages: dict[str, list[float]] = field(default_factory=dict)


def measure(
    contestants: Sequence[Contestant], images: Sequence[UInt8], rounds: int = 20
) -> list[Latency]:
    """Times all in turn, A B A B, so that a drift of the machine meets them all.

    A turn begins when the one before has left nothing running, and with a run that is not counted:
    what is timed is an image that follows another, as alone, whoever was before.

    Args:
        contestants: each is warmed up by `WARMUP` runs first.
        images: uint8 H x W x 3, RGB, taken in turn; the same ones for every contestant.
        rounds: samples of each.

    Raises:
        CheckFailed: one failed as it ran.
    """
    rows = [Latency(each) for each in contestants]
    for each in contestants:
        for number in range(WARMUP):
            each.label(images[number % len(images)])

    def turn(row: Latency) -> float:
        taken = len(row.stages.get("total", ()))
        row.contestant.label(images[(taken - 1) % len(images)])
        told = row.contestant.label(images[taken % len(images)])
        for stage, milliseconds in told.items():
            row.stages.setdefault(stage, []).append(milliseconds / 1e3)
        return told["total"] / 1e3

    turns = {str(i): (lambda row=row: turn(row)) for i, row in enumerate(rows)}
    with tqdm(total=rounds * len(rows), desc="latency", unit="run", disable=None) as bar:
        _, failures = interleave(turns, rounds, lambda _: bar.update() and None)
    if failures:
        index, why = next(iter(failures.items()))
        raise CheckFailed(f"{contestants[int(index)]}: {why}")
    return rows


def measurements(rows: Sequence[Latency], size: tuple[int, int]) -> list[Measurement]:
    """What is kept of them.

    Args:
        rows: as `measure` returns them.
        size: (height, width) of the images, in pixels.
    """
    return [
        Measurement(
            "latency",
            row.contestant.scope,
            dict(row.contestant.subject),
            {
                "size": list(size),
                "batch": 1,
                "warmup": WARMUP,
                "rounds": len(row.stages["total"]),
            },
            {stage: summary(samples) for stage, samples in row.stages.items()},
        )
        for row in rows
    ]


def _parser() -> argparse.ArgumentParser:
    parser = mode_parser(
        "latency",
        "Times artefacts, and others' ways to run them, in turn, A B A B, one image at a time.\n"
        "A folder that icnet verify passed stands for what is fastest in it, as in from_folder.\n"
        f"Scope of an artefact's row: {SCOPES['image-to-labels']}.",
        "icnet benchmark latency icnet.onnx icnet-int8.onnx --peers all --json latency.jsonl",
    )
    parser.add_argument("--rounds", type=count, default=20, metavar="N", help="(default: 20)")
    parser.add_argument(
        "--precision",
        action="append",
        metavar="NAME",
        help="of a folder: choose among its files of this precision only; may be repeated",
    )
    parser.add_argument(
        "--peers",
        metavar="NAME,...",
        help="others' ways to time beside them, e.g. pytorch,onnxruntime, or `all`; a name that "
        "there is not is answered by those there are",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="the checkpoint of the artefacts, for the peers (default: the shipped one)",
    )
    add_plot_options(parser)
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet benchmark latency`; returns its exit code."""
    arguments = _parser().parse_args(argv)
    check_result_options(arguments)
    images = pictures(arguments)
    sizes = {image.shape[:2] for image in images}
    if len(sizes) > 1:
        told = ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
        raise InputError(
            f"the images are of {len(sizes)} sizes ({told}), and a latency is of one: give images "
            "of one size"
        )
    size = sizes.pop()
    peers = None if arguments.peers is None else _peers(arguments, size)
    with ExitStack() as stack:
        pairs, contestants = _artefacts(arguments, stack)
        outside = peers.outside(pairs) if peers else []
        if peers:
            contestants += peers.open(pairs, stack)
        rows = measure(contestants, images, arguments.rounds)
    found = [*measurements(rows, size), *outside]
    print(text(found))
    keep(arguments, found)
    return 0


def _artefacts(
    arguments: argparse.Namespace, stack: ExitStack
) -> tuple[list[Pair], list[Contestant]]:
    """Opens files on their runtimes, and what is fastest in each folder."""
    folders = [path for path in arguments.artefacts if path.is_dir()]
    arguments.artefacts = [path for path in arguments.artefacts if path not in folders]
    pairs = pairs_of(arguments) if arguments.artefacts else []
    found = [stack.enter_context(open_artefact(each, arguments.threads)) for each in pairs]
    for folder in folders:
        for opened in _from_folder(folder, arguments):
            chosen = stack.enter_context(opened)
            told = chosen.subject
            pairs.append(Pair(folder / told["file"], told["runtime"], told["device"]))
            found.append(chosen)
    return pairs, found


def _from_folder(
    folder: Path, arguments: argparse.Namespace
) -> Iterator[AbstractContextManager[Contestant]]:
    """A row for each runtime and precision that was named."""
    for runtime in arguments.runtime or ["auto"]:
        for precision in arguments.precision or [None]:
            yield open_folder(folder, runtime, arguments.device, arguments.threads, precision)


def _peers(arguments: argparse.Namespace, size: tuple[int, int]) -> ChosenPeers:
    from icnet_deploy.benchmarks.latency_peers import ChosenPeers  # they know of torch

    return ChosenPeers.from_text(arguments.peers, size, arguments.threads, arguments.weights)
