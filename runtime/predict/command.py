"""`icnet predict`: labels images, folders and videos, and draws what it found."""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from icnet_deploy import command as shared
from icnet_deploy.command import Goal
from icnet_deploy.documents import POSITIVE, PROBABILITY
from icnet_deploy.errors import ImageError, InputError
from icnet_deploy.files import PREDICTION_LOG, make_folder, require_folder_name
from icnet_deploy.formats.decode import LIMIT
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.labels import IGNORE, LabelSet
from icnet_deploy.runtime.answer import Prediction
from icnet_deploy.runtime.backends.registry import DEVICES, RUNTIMES
from icnet_deploy.runtime.predict.inputs import Item, find_items
from icnet_deploy.runtime.predict.labelling import Timings, label_files
from icnet_deploy.runtime.predict.log import PredictionLog
from icnet_deploy.runtime.predict.sure import SureLabels, check_unsure
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.runtime.signing.trusted import add_trust_options
from icnet_deploy.runtime.tiles import MOST_OVERLAP, OVERLAP, check_tiles

_Predict = Callable[..., Prediction]

_STAGES = ("preprocess", "inference", "label_map", "confidence", "total")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = shared.parser(
        "icnet predict",
        "Label images and videos, one by one or whole folders of them.",
        "icnet predict street.jpg --model icnet.onnx -o out",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="an image, a video, or a folder of them with its sub-folders",
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="FILE",
        help="an ONNX file (`icnet export -o icnet.onnx` writes one), an engine, or a folder that "
        "`icnet verify` checked: then the fastest file in it is used",
    )
    _add_results(parser)
    _add_large(parser)
    _add_run(parser)
    add_trust_options(parser)
    args = parser.parse_args(argv)
    if args.overlap is not None and not args.tiles:
        raise InputError("--overlap says how far tiles overlap: give --tiles also")
    return args


def _add_results(parser: argparse.ArgumentParser) -> None:
    group = shared.options(parser, Goal.RESULTS)
    group.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="the folder for the results; an image NAME gets NAME_labels.png (a class index for "
        "each pixel), NAME_colour.png and NAME_overlay.jpg, a video or an "
        f"animation gets NAME_overlay.mp4; {PREDICTION_LOG} records each file",
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="label every file again (default: skip a file if the same model and options labelled "
        "it before and its results are still there)",
    )
    group.add_argument(
        "--label-ids",
        action="store_true",
        help="write the ids that the data set's evaluation server expects (default: class indices)",
    )
    group.add_argument(
        "--unsure-below",
        type=shared.number_type(PROBABILITY),
        metavar="P",
        help="give no class to a pixel if the softmax share of its class is below P, 0 to 1: it is "
        "255 in NAME_labels.png (0 with --label-ids), black in NAME_colour.png, and unchanged in "
        "overlays; needs a model with the head logits (default: every pixel gets a class)",
    )


def _add_large(parser: argparse.ArgumentParser) -> None:
    group = shared.options(parser, "to label large images")
    group.add_argument(
        "--tiles",
        action="store_true",
        help="label overlapping tiles of the model's size and average their logits; needs a model "
        "with the head logits and a fixed size (default: resize the image to the model's size)",
    )
    group.add_argument(
        "--overlap",
        type=float,
        metavar="SHARE",
        help="with --tiles: the least share of a side that neighbours have in common, 0 to "
        f"{MOST_OVERLAP} (default: {OVERLAP})",
    )
    group.add_argument(
        "--max-megapixels",
        type=shared.number_type(POSITIVE),
        metavar="N",
        help="refuse images and video frames of more than N million pixels; the environment "
        f"variable {LIMIT} sets this for all commands (default: 100)",
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    group = shared.options(parser, Goal.RUN)
    group.add_argument(
        "--runtime",
        default="auto",
        metavar="NAME",
        help=f"what runs the model: auto, {', '.join(RUNTIMES)} (default: auto)",
    )
    group.add_argument(
        "--device",
        default="auto",
        choices=("auto", *DEVICES),
        help="where it runs; cuda fails if CUDA does not work (default: auto)",
    )
    group.add_argument(
        "--size",
        type=shared.size,
        metavar="HxW",
        help="use only files of this input size, if --model is a folder that holds several sizes "
        "(default: a folder must hold one size)",
    )
    group.add_argument(
        "--threads", type=shared.count, metavar="N", help="CPU threads (default: the runtime's)"
    )
    group.add_argument(
        "--streams",
        type=shared.count,
        default=1,
        metavar="N",
        help="how many images the network works on at once, on the CPU; one for each core gives "
        "the most images a second, but each image takes longer (default: 1)",
    )


@shared.command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet predict`; returns its exit code."""
    args = _arguments(argv)
    with _limited(args.max_megapixels):
        return _predicted(args)


@contextmanager
def _limited(megapixels: float | None) -> Iterator[None]:
    """Bounds pictures and frames for one command, as the environment does for all."""
    before = os.environ.get(LIMIT)
    try:
        if megapixels is not None:
            os.environ[LIMIT] = str(megapixels)
        yield
    finally:
        if before is not None:
            os.environ[LIMIT] = before
        elif megapixels is not None:
            del os.environ[LIMIT]


def _predicted(args: argparse.Namespace) -> int:
    require_folder_name(args.output, "-o")
    items = find_items(args.inputs, args.output)
    with Predictor.open(
        args.model,
        args.runtime,
        args.device,
        args.threads,
        streams=args.streams,
        size=args.size,
        require_manifest=args.require_manifest,
        trusted_key=args.trusted_key,
        sha256=args.sha256,
    ) as predictor:
        label_set = predictor.metadata.label_set
        table = _id_table(label_set) if args.label_ids else None
        predict, sure = _predict(predictor, args), None
        if args.unsure_below is not None:
            check_unsure(predictor.metadata, args.label_ids)
            predict = sure = SureLabels(partial(predict, confidence=True), args.unsure_below)
        choice = predictor.choice
        sha256 = choice.winner.sha256 if choice else artefact_sha256(Path(args.model))
        settings = _settings(predictor, args)
        with PredictionLog(make_folder(args.output), sha256, settings, label_set) as log:
            left = list(items) if args.overwrite else _left(log, items, args.output)
            timings, failures = label_files(predictor, left, table, predict, log)
        _summarise(predictor, left, timings, len(failures), args.output)
        if sure is not None and sure.pixels:
            print(sure.says(0 if args.label_ids else IGNORE))
    if len(failures) == 1 == len(left):
        raise failures[0]
    if failures:
        raise ImageError(
            f"{len(failures)} of {len(left)} inputs failed, the others are done: "
            f"{'; '.join(map(str, failures))}"
        )
    return 0


def _settings(predictor: Predictor, args: argparse.Namespace) -> dict[str, Any]:
    """What the results depend on, besides the files and the artefact."""
    return {
        "runtime": predictor.runtime,
        "device": predictor.device,
        "label_ids": args.label_ids,
        "unsure_below": args.unsure_below,
        "overlap": (OVERLAP if args.overlap is None else args.overlap) if args.tiles else None,
    }


def _left(log: PredictionLog, items: list[Item], output: Path) -> list[Item]:
    """The items that are to be done; says how many are not."""
    from tqdm import tqdm

    # A bar where it takes a while: each file that was done before is read.
    watch = partial(tqdm, total=len(items), unit="input", desc="before", delay=1, disable=None)
    left = log.left(items, partial(watch, leave=False))
    if before := len(items) - len(left):
        what = "inputs" if any(item.video for item in items) else "images"
        print(
            f"{before} of {len(items)} {what} were labelled before by this artefact: skipped; "
            f"their results are in {output}/ (--overwrite labels them again)"
        )
    return left


def _predict(predictor: Predictor, args: argparse.Namespace) -> _Predict:
    """What labels an image, as the options say."""
    if not args.tiles:
        return predictor.predict
    overlap = OVERLAP if args.overlap is None else args.overlap
    check_tiles(predictor.metadata, overlap)
    return partial(predictor.predict_tiles, overlap=overlap, progress=True)


def _id_table(label_set: LabelSet) -> Any:
    """A table, uint8 256, from a class index to its label id."""
    if label_set.label_ids is None:
        raise InputError(
            f"--label-ids: the model's label set {label_set.name!r} has no label ids; leave out "
            "the option to get class indices"
        )
    return np.frombuffer(label_set.train_to_label_ids(), np.uint8)


def _summarise(
    predictor: Predictor, items: list[Item], timings: Timings, failed: int, output: Path
) -> None:
    """Says what was done, how long it took, and where it is."""
    if not timings:
        return
    done = len(items) - failed
    of = f" of {len(items)}" if failed else ""
    stages = ", ".join(
        f"{stage.replace('_', ' ')} {median(one[stage] for one in timings):.1f}"
        for stage in _STAGES
        if stage in timings[0]
    )
    print(
        f"{done}{of} input{'s' if len(items) > 1 else ''} labelled with {predictor.runtime} on "
        f"{predictor.device}; the results are in {output}/"
    )
    if predictor.choice:
        print(f"chosen: {predictor.choice}")
    print(f"milliseconds for an image (median of {len(timings)}): {stages}")
