"""What the benchmarks of artefacts ask in the same words, and how they keep what they measured."""

import argparse
import sys
from collections.abc import Callable, Sequence
from os.path import exists
from pathlib import Path
from typing import Any

from icnet_deploy.benchmarks.measurement import Measurement, write_measurements
from icnet_deploy.benchmarks.measurement_report import report_page
from icnet_deploy.benchmarks.plots import read_scores, write_plot
from icnet_deploy.command import Goal, check_outputs, count, options, parser, size
from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.pairing import ROUNDED, Run, pair
from icnet_deploy.files import write_text
from icnet_deploy.images import UInt8, read_image, write_image
from icnet_deploy.runtime.auto.folder import kind_of
from icnet_deploy.runtime.predict.inputs import Item, find_items
from icnet_deploy.runtime.predictor import Predictor

_SCENES, _SEED = 3, 7


def mode_parser(name: str, description: str, example: str) -> argparse.ArgumentParser:
    """A parser with what all of them take: artefacts, images, where they run, and results."""
    mode = parser(f"icnet benchmark {name}", description, example)
    mode.add_argument(
        "artefacts",
        nargs="+",
        type=Path,
        metavar="ARTEFACT",
        help="an ONNX file, an engine, or a folder that icnet verify passed; of a folder, its "
        "fastest file is measured",
    )
    images = options(mode, Goal.IMAGES)
    images.add_argument(
        "--image",
        type=Path,
        action="append",
        metavar="FILE",
        help="measure with this image; may be repeated (default: drawn scenes)",
    )
    images.add_argument(
        "--size",
        type=size,
        default=(1024, 2048),
        metavar="HxW",
        help="height and width of the drawn scenes (default: 1024x2048)",
    )
    run = options(mode, Goal.RUN)
    run.add_argument(
        "--runtime",
        action="append",
        metavar="NAME",
        help="use this runtime; may be repeated (default: the installed runtimes that the artefact "
        "is meant for)",
    )
    run.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu or cuda (default: auto)"
    )
    run.add_argument(
        "--threads",
        type=count,
        metavar="N",
        help="CPU threads of each run (default: the runtime chooses)",
    )
    results = options(mode, Goal.RESULTS)
    results.add_argument(
        "--json",
        type=Path,
        metavar="FILE.jsonl",
        help="write the measurements as JSON Lines, with the raw samples",
    )
    results.add_argument(
        "--report", type=Path, metavar="FILE.html", help="write an HTML report in one file"
    )
    mode.set_defaults(miou=[], plot=None)
    return mode


def add_rounds(mode: argparse.ArgumentParser, default: int, what: str) -> None:
    """Adds how often each subject is measured.

    Args:
        mode: of `mode_parser`.
        default: rounds.
        what: is measured so often, in words.
    """
    options(mode, Goal.RUN).add_argument(
        "--rounds", type=count, default=default, metavar="N", help=f"{what} (default: {default})"
    )


def run_mode(
    arguments: argparse.Namespace,
    measure: Callable[[argparse.Namespace], Sequence[Measurement]],
    show: Callable[[Sequence[Measurement]], str],
) -> int:
    """What each of them does: looks where results go, measures, shows, and keeps what it measured.

    Returns:
        The exit code.

    Raises:
        OutputError: a place that cannot be written.
        InputError: `--miou` names no result or none of what was timed, or `--plot` has none.
    """
    # What cannot be read or written is found before the long work, not after it.
    check_outputs(arguments, "plot")
    scores = read_scores(arguments.miou)
    if arguments.plot and not scores:
        raise InputError(
            f"--plot {arguments.plot} needs the mIoU: name results of icnet evaluate, parity or "
            "verify with --miou"
        )
    measured = measure(arguments)
    print(show(measured))
    if arguments.json:
        write_measurements(arguments.json, measured)
    if arguments.report:
        write_text(arguments.report, report_page({"": measured}, scores))
    if arguments.plot:
        write_plot(arguments.plot, measured, scores)
    return 0


def numbers(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """An argument type: values of a kind with commas between them, each once, in order."""

    def read(text: str) -> list[Any]:
        return list(dict.fromkeys(kind(part.strip()) for part in text.split(",")))

    return read


def runs_of(arguments: argparse.Namespace, choose: bool = True) -> list[Run]:
    """Which file goes to which runtime; see `pairing.pair`.

    Args:
        arguments: of `mode_parser`.
        choose: put what `Predictor.from_folder` opens in a folder's place; otherwise the folder
            itself is in its run, which is chosen from when it is opened.

    Raises:
        InputError: a file is missing, or none is left to be measured.
        ModelError, UnavailableError: as `Predictor.from_folder`.
    """
    missing = [str(path) for path in arguments.artefacts if not exists(path)]
    if missing:
        raise InputError(f"there is no {', '.join(missing)}")
    folders = [path for path in dict.fromkeys(arguments.artefacts) if kind_of(path) == "folder"]
    named = dict.fromkeys(arguments.runtime or ["auto"])
    runs = [Run(path, runtime, arguments.device) for path in folders for runtime in named]
    if choose:
        runs = [_choose(each, arguments.threads) for each in runs]
    files = [path for path in arguments.artefacts if path not in folders]
    if files:
        pairing = pair(files, arguments.runtime, arguments.device)
        runs += [each for each in pairing.runs if each.runtime != ROUNDED]  # it is a stand-in
        for why in pairing.without.values():
            if not runs:
                raise why
            print(f"icnet: left out: {why}", file=sys.stderr)
    return runs


def _choose(each: Run, threads: int | None) -> Run:
    with Predictor.open(each.path, each.runtime, each.device, threads) as predictor:
        assert predictor.choice is not None  # since a folder was opened
        chosen = predictor.choice.winner
        return Run(each.path / chosen.file, chosen.runtime, chosen.device)


def pictures(arguments: argparse.Namespace) -> list[UInt8]:
    """The images that were named, or drawn scenes: uint8 H x W x 3, RGB.

    Raises:
        ImageError: a file is missing, or is no image.
    """
    if arguments.image:
        return [read_image(path) for path in arguments.image]
    return [draw_scene((_SEED, number), arguments.size).image for number in range(_SCENES)]


def image_files(
    images: Sequence[UInt8], suffixes: Sequence[str], folder: Path, paths: Sequence[Path] = ()
) -> list[Item]:
    """Image files as `icnet predict` takes them; their results go into a folder of their own.

    Args:
        images: written as files, unless there are some.
        suffixes: of these files, in turn.
        folder: theirs, and the results'.
        paths: files that are there already.
    """
    results = folder / "results"
    results.mkdir()
    if not paths:
        paths = [folder / f"{i:04}.{suffixes[i % len(suffixes)]}" for i in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            write_image(path, image)
    return find_items([str(path) for path in paths], results) if paths else []
