"""`icnet predict`: labels images, folders and videos, and draws what it found."""

import argparse
import errno
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from icnet_deploy import command as shared
from icnet_deploy.documents import POSITIVE, PROBABILITY
from icnet_deploy.drawing import palette, with_legend
from icnet_deploy.errors import ImageError, InputError, MissingPackage, OutputError
from icnet_deploy.files import make_folder
from icnet_deploy.formats.decode import LIMIT
from icnet_deploy.images import IMAGE_SUFFIXES, ImageFile, write_image, write_labels
from icnet_deploy.labels import IGNORE, LabelSet
from icnet_deploy.runtime.ahead import ahead
from icnet_deploy.runtime.answer import Prediction
from icnet_deploy.runtime.backends.registry import DEVICES, RUNTIMES
from icnet_deploy.runtime.cores import usable_cores
from icnet_deploy.runtime.predict.inputs import Item, find_items
from icnet_deploy.runtime.predict.sure import SureLabels, check_unsure, overlay_of
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.runtime.signing.trusted import add_trust_options
from icnet_deploy.runtime.tiles import MOST_OVERLAP, OVERLAP, check_tiles
from icnet_deploy.runtime.video import VIDEO_SUFFIXES, Frame, open_frames, writing_video

_Timings = list[dict[str, float]]
_Predict = Callable[..., Prediction]

_STAGES = ("preprocess", "inference", "label_map", "confidence", "total")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = shared.parser(
        "icnet predict",
        "Label images, videos, and folders of both (with sub-folders).\n\n"
        "For an image NAME it writes NAME_labels.png (8 bits, a class index a pixel),\n"
        "NAME_colour.png (the same in colours) and, to look at, NAME_overlay.jpg; for a video or\n"
        "an animation, NAME_overlay.mp4; for a TIFF of several pages, what an image gets of each:\n"
        "NAME_page1_labels.png and so on.",
        "icnet predict street.jpg --model icnet.onnx -o out",
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="an image, a video or a folder")
    parser.add_argument(
        "--model",
        required=True,
        metavar="FILE",
        help="an exported ONNX file, an engine, or a folder of them: its fastest verified one",
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="the folder of the results"
    )
    parser.add_argument(
        "--runtime", default="auto", metavar="NAME", help=f"auto, {', '.join(RUNTIMES)}"
    )
    parser.add_argument(
        "--device", default="auto", choices=("auto", *DEVICES), help="cuda is CUDA or an error"
    )
    parser.add_argument(
        "--size",
        type=shared.size,
        metavar="HxW",
        help="of a folder that holds artefacts of several input sizes: which to choose among",
    )
    parser.add_argument(
        "--threads", type=shared.count, metavar="N", help="CPU threads (default: the runtime's)"
    )
    parser.add_argument(
        "--streams",
        type=shared.count,
        default=1,
        metavar="N",
        help="images that the network works on at once, on the CPU; as many as there are cores "
        "gives more images a second, and each takes longer (default: 1)",
    )
    add_trust_options(parser)
    parser.add_argument(
        "--label-ids",
        action="store_true",
        help="write the ids that the data set's evaluation server expects, not class indices",
    )
    _add_limit(parser)
    _add_unsure(parser)
    _add_tiles(parser)
    args = parser.parse_args(argv)
    if args.overlap is not None and not args.tiles:
        raise InputError("--overlap is of tiles: give --tiles, too")
    return args


def _add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-megapixels",
        type=shared.number_type(POSITIVE),
        metavar="N",
        help=f"refuse larger images and videos, whatever their files say that they hold; as the "
        f"environment's {LIMIT}, which holds for all commands (default: 100)",
    )


def _add_unsure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--unsure-below",
        type=shared.number_type(PROBABILITY),
        metavar="P",
        help="ignore the pixels whose class has a softmax share below P, 0 to 1: they are 255 in "
        "NAME_labels.png (0 with --label-ids), black in NAME_colour.png, and in overlays the image "
        "itself (needs the head logits)",
    )


def _add_tiles(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tiles",
        action="store_true",
        help="do not resize a large image: label overlapping tiles of the model's size and average "
        "their logits (needs the head logits and a fixed size)",
    )
    parser.add_argument(
        "--overlap",
        type=float,
        metavar="SHARE",
        help=f"of tiles: by how much of a side neighbours overlap at least, 0 to {MOST_OVERLAP} "
        f"(default: {OVERLAP})",
    )


@shared.command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet predict`; returns its exit code."""
    args = _arguments(argv)
    if args.max_megapixels is not None:
        os.environ[LIMIT] = str(args.max_megapixels)
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
        table = _id_table(predictor.metadata.label_set) if args.label_ids else None
        predict, sure = _predict(predictor, args), None
        if args.unsure_below is not None:
            check_unsure(predictor.metadata, args.label_ids)
            predict = sure = SureLabels(partial(predict, confidence=True), args.unsure_below)
        make_folder(args.output)
        timings, failures = label_files(predictor, items, table, predict)
        _summarise(predictor, items, timings, len(failures), args.output)
        if sure is not None and sure.pixels:
            print(sure.says(0 if args.label_ids else IGNORE))
    if len(failures) == 1 == len(items):
        raise failures[0]
    if failures:
        raise ImageError(
            f"{len(failures)} of {len(items)} inputs failed, the others are done: "
            f"{'; '.join(map(str, failures))}"
        )
    return 0


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
            f"--label-ids: the model's label set {label_set.name!r} has no label ids; leave the "
            "option away to get class indices"
        )
    return np.frombuffer(label_set.train_to_label_ids(), np.uint8)


def label_files(
    predictor: Predictor,
    items: Sequence[Item],
    table: Any = None,
    predict: _Predict | None = None,
) -> tuple[_Timings, list[InputError]]:
    """Labels every item; one that cannot be read does not keep the others from it.

    Images are read, drawn and written in as many threads as there are cores while the network works
    on others; videos come after them, one at a time.

    Args:
        predictor: what labels them.
        items: of `find_items`.
        table: uint8 256, what is written for each class index; None for the index.
        predict: labels one image; None: `predictor.predict`.

    Returns:
        `Prediction.timings_ms` of each image and frame; and what failed, with its path. Of a video
        that can be read in part, the frames that can be read are labelled, and it has failed.

    Raises:
        OutputError: a result cannot be written, as on a full disk.
    """
    from tqdm import tqdm

    predict = predict or predictor.predict
    timings: _Timings = []
    failures: list[InputError] = []

    def label(item: Item) -> tuple[_Timings, InputError | None, Item | None]:
        done: _Timings = []
        try:
            if item.video:
                _label_video(predictor, item, done, predict)
            elif not _label_image(predict, item, table, done):
                return done, None, replace(item, video=True)
        except (ImageError, MissingPackage) as error:
            named = str(item.path) in str(error)
            return done, error if named else ImageError(f"{item.path}: {error}"), None
        except OutputError as error:  # the next result may have a shorter name
            if getattr(error.__cause__, "errno", None) != errno.ENAMETOOLONG:
                raise
            return done, error, None
        return done, None, None

    images = [item for item in items if not item.video]
    videos = [item for item in items if item.video]
    # disable=None: no bar where stderr is not a terminal.
    with (
        tqdm(total=len(items), unit="input", disable=None) as bar,
        ahead(images, label, predictor.streams + usable_cores()) as labelled,
    ):
        for done, failure, animation in chain(labelled, map(label, videos)):
            if animation is not None:
                videos.append(animation)
                continue
            timings += done
            if failure is not None:
                failures.append(failure)
            bar.update()
    return timings, failures


def _label_image(predict: _Predict, item: Item, table: Any, timings: _Timings) -> bool:
    """Labels an image, or each page of one, and adds the timings; False if it is an animation."""
    try:
        file = ImageFile(item.path)
    except ImageError as error:
        if item.path.suffix.lower() in IMAGE_SUFFIXES:
            raise
        suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
        raise ImageError(f"{error}; a video is known by its suffix: {suffixes}") from error
    if file.pictures == 1:
        timings.append(_label_picture(predict, item, file.rgb(), table))
    elif item.pages == 1:
        return False
    else:
        for number, (image, _) in enumerate(file.frames(), 1):
            timings.append(_label_picture(predict, item.page(number), image, table))
    return True


def _label_picture(predict: _Predict, item: Item, image: Any, table: Any) -> dict[str, float]:
    prediction = predict(image)
    overlay = with_legend(overlay_of(prediction), prediction.labels, prediction.label_set)
    write_results(item, prediction, overlay, table)
    return prediction.timings_ms


def write_results(item: Item, prediction: Prediction, overlay: Any, table: Any = None) -> None:
    """Writes what an image gets: its label map, the same in colours, and the overlay.

    Args:
        item: names the files.
        prediction: of the image.
        overlay: uint8 H x W x 3, RGB.
        table: uint8 256, what is written for each class index; None for the index.
    """
    labels = prediction.labels
    write_labels(item.result("_labels.png"), labels if table is None else table[labels])
    write_labels(item.result("_colour.png"), labels, palette(prediction.label_set))
    write_image(item.result("_overlay.jpg"), overlay)


def _label_video(predictor: Predictor, item: Item, timings: _Timings, predict: _Predict) -> None:
    """Labels the frames of a video, or of an animation, and adds the timings of each.

    Raises:
        ImageError: it cannot be read, or in part only: the frames that can be read are written.
    """
    from tqdm import tqdm

    def draw(frame: Frame) -> tuple[Frame, Any, dict[str, float]]:
        prediction = predict(frame.image)
        labels, label_set = prediction.labels, prediction.label_set
        overlay = with_legend(overlay_of(prediction), labels, label_set, every_class=True)
        return frame, overlay, prediction.timings_ms

    with (
        closing(open_frames(item.path)) as reader,
        writing_video(item.overlay_video, reader) as writer,
        ahead(reader, draw, predictor.streams + 1) as drawn,
        tqdm(total=reader.count, unit="frame", leave=False, disable=None) as bar,
    ):
        for frame, overlay, milliseconds in drawn:
            writer.write(overlay, frame.time, frame.duration)
            timings.append(milliseconds)
            bar.update()
    if reader.note:
        print(f"{item.path}: {reader.note}")
    if reader.problem:
        raise ImageError(
            f"{item.path}: {reader.problem}; those are labelled in {item.overlay_video}"
        )


def _summarise(
    predictor: Predictor, items: list[Item], timings: _Timings, failed: int, output: Path
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
    print(f"median ms an image, of {len(timings)}: {stages}")
