"""The calibration that blocks are quantized with: the one that was kept, or one made now."""

import argparse
from collections.abc import Iterable
from contextlib import suppress
from os.path import exists
from pathlib import Path

import onnx
from tqdm import tqdm

from icnet_deploy.calibration.artefact import Recipe, load_float
from icnet_deploy.calibration.calibrate import (
    Calibration,
    calibrate_and_keep,
    load_calibration,
    save_calibration,
)
from icnet_deploy.calibration.content import require_content
from icnet_deploy.calibration.ladder.methods import settled
from icnet_deploy.calibration.ranges import AUTO
from icnet_deploy.calibration.selection import FEWEST, CalibrationSet, choose, stratified
from icnet_deploy.data import content_hashes
from icnet_deploy.data.options import open_split
from icnet_deploy.data.photos import photos
from icnet_deploy.errors import DatasetError, ImageError, InputError, OutputError
from icnet_deploy.images import Fitting, ImageFile
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.metadata import ArtefactMetadata

_CALIBRATED = 32  # images, and they are drawn as `icnet quantize` draws them


def calibration_of(args: argparse.Namespace, cache: Path) -> Calibration:
    """What `icnet quantize` kept of this file, else made now as it makes it.

    Its method of ranges for `args.placement` is the one that it names, else it is settled as
    `icnet quantize` does it, on the images that it is of. Where these are not at hand, it is the
    default of `Calibration.method`, and a note says so.

    Args:
        args: of `icnet sensitivity`.
        cache: where it is kept.

    Raises:
        InputError: it is of another file, or there is none, and no data set to make it from.
    """
    model, metadata, size = load_float(args.model)
    fitting = Fitting.of(metadata)
    parent = artefact_sha256(args.model)
    kept = load_calibration(cache, model, parent)
    if kept is not None:
        if args.placement in kept.methods:
            return kept
        again = _images_of(args, kept, size, fitting)
        if again is None:
            _note(args.placement, cache, kept)
            return kept
        kept = _settled(args.placement, kept, model, metadata, again)
        with suppress(OutputError):  # as where the folder is read-only: it is settled anew
            save_calibration(cache, kept)
        return kept
    if args.calibration is not None and exists(cache):
        raise InputError(
            f"{cache} is not a calibration of {args.model}: name the one that `icnet quantize` "
            "wrote for it, or a new file, which is then written"
        )
    if args.dataset is None:
        raise InputError(
            f"{cache} holds no calibration of {args.model}: run `icnet quantize` first, or give "
            "--dataset and --data, which has a split train to make it from"
        )
    train = open_split(args, "train")
    images = choose(stratified(train, _CALIBRATED), size, exif=args.exif, fitting=fitting)
    if note := require_content(images.files, images, FEWEST):
        print(f"note: {note}")
    calibration = calibrate_and_keep(cache, model, images, parent)
    calibration = _settled(args.placement, calibration, model, metadata, images)
    save_calibration(cache, calibration)
    return calibration


def _settled(
    placement: str,
    calibration: Calibration,
    model: onnx.ModelProto,
    metadata: ArtefactMetadata,
    images: CalibrationSet,
) -> Calibration:
    """The same, with the method that `icnet quantize` takes for a placement."""
    recipe = settled(Recipe(calibration, placement, AUTO), model, metadata, images)
    return calibration.taken_by({placement: recipe.method})


def _note(placement: str, cache: Path, kept: Calibration) -> None:
    method = kept.method(placement)
    print(
        f"note: the ranges of {placement} are chosen by {method}, the default: {cache} names no "
        f"method for {placement}, and not all of its calibration images were given to choose one. "
        f"Run `icnet quantize --placement {placement}` first, which chooses a method and writes it "
        "there, or give the data set of these images with --dataset and --data"
    )


def _images_of(
    args: argparse.Namespace, kept: Calibration, size: tuple[int, int], fitting: Fitting
) -> CalibrationSet | None:
    """The images that a calibration is of, found again by their pixels; None unless all are.

    They are looked for in the split train, or among the photos that are given in its place.
    """
    count = next(each.images for each in kept.statistics.values())
    turn = args.exif != "ignore"
    missing = dict.fromkeys(kept.images[:count])
    found: dict[str, Path] = {}
    for file in tqdm(_given(args), desc="find calibration images", unit="image", disable=None):
        with suppress(ImageError):  # it is none of them
            digest = content_hashes(ImageFile(file))[0 if turn else -1]
            if digest in missing:
                del missing[digest]
                found[digest] = file
        if not missing:
            files = tuple(found[digest] for digest in kept.images[:count])
            return CalibrationSet(files, kept.images, size, turn, fitting)
    return None


def _given(args: argparse.Namespace) -> Iterable[Path]:
    """The images that may have been calibrated on, of what is given."""
    if getattr(args, "images", None) is not None:
        return [image for image, _ in photos(args.images).files]
    with suppress(DatasetError):  # this copy has no such split
        if args.dataset is not None:
            return [image for image, _ in open_split(args, "train").files]
    return []
