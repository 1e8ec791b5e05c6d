"""`icnet quantize`: a float32 artefact becomes 8-bit ones, calibrated on training images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from os.path import isdir
from pathlib import Path
from typing import TYPE_CHECKING

from icnet_deploy.calibration.content import require_content
from icnet_deploy.calibration.ladder.options import add_ladder_options, check_ladder
from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.calibration.ranges import AUTO, METHODS
from icnet_deploy.calibration.rebuilds.draws import Chosen, Draws, draw_each
from icnet_deploy.calibration.rebuilds.options import IMAGES, add_rebuild_options, check_rebuilds
from icnet_deploy.calibration.selection import (
    CHECKED,
    FEWEST,
    CalibrationSet,
    Checked,
    Pool,
    choose_each,
)
from icnet_deploy.command import Goal, check_outputs, command, count, options
from icnet_deploy.command import parser as make_parser
from icnet_deploy.data import Dataset
from icnet_deploy.data.dataset import Incomplete
from icnet_deploy.data.options import (
    OF_LABELS,
    add_dataset_options,
    add_exif_option,
    add_label_options,
    open_split,
    refuse_data_options,
)
from icnet_deploy.data.photos import photos
from icnet_deploy.errors import DatasetError, InputError, require
from icnet_deploy.files import (
    make_folder,
    real_path,
    require_folder_name,
    sha256,
    without_empty_folders,
)
from icnet_deploy.images import Fitting
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.precisions import PRECISIONS
from icnet_deploy.runtime.auto.folder import kind_of

if TYPE_CHECKING:
    import onnx

    from icnet_deploy.calibration.artefact import Recipe
    from icnet_deploy.calibration.calibrate import Calibration

_SPLIT = "train"  # unless another is asked for
_SCORED = ("val", "test")  # splits that models are scored on


def _parser() -> argparse.ArgumentParser:
    p = make_parser(
        "icnet quantize",
        "Make 8-bit ONNX files of a float32 one, with ranges that are calibrated on images of a "
        "training split.",
        "icnet quantize icnet.onnx --dataset camvid --data CamVid --max-miou-drop 0.1 "
        "--max-class-drop 0.5",
    )
    p.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="a float32 file of `icnet export` or `icnet adopt`, of a fixed size",
    )
    _add_images(p)
    _add_quantization(p)
    add_ladder_options(p)
    add_rebuild_options(p)
    _add_results(p)
    return p


def _add_results(parser: argparse.ArgumentParser) -> None:
    group = options(parser, Goal.RESULTS)
    group.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="PATH",
        help="write the artefacts into this folder; with one placement also a file that ends in "
        ".onnx (default: beside MODEL)",
    )
    group.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="with a limit or --rebuilds: write the result as JSON",
    )
    group.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="with --rebuilds: write an HTML report in one file",
    )
    group.add_argument(
        "--histogram",
        nargs=2,
        metavar=("NAME", "FILE"),
        help="draw the histogram and the ranges of a layer, a block or a tensor, as SVG",
    )


def _add_quantization(parser: argparse.ArgumentParser) -> None:
    group = options(parser, "to choose how layers are quantized")
    meant = [
        f"{name} is for {', '.join(PRECISIONS[name].runtimes) or 'any runtime'}"
        for name in PLACEMENTS
    ]
    group.add_argument(
        "--placement",
        default="both",
        choices=(*PLACEMENTS, "both"),
        help=f"which artefact to write: {'; '.join(meant)} (default: both)",
    )
    group.add_argument(
        "--method",
        default=AUTO,
        choices=(AUTO, *METHODS),
        help="how to choose ranges; auto tries percentile and mse on some calibration images, and "
        "takes the one that changes fewer labels (default: auto)",
    )
    group.add_argument(
        "--float",
        action="append",
        metavar="NAME",
        dest="exclude",
        help="keep a layer or block in float, by the name that `icnet sensitivity` prints; may be "
        "repeated (default: the convolutions that read a smaller copy of the image, and the "
        "classifier unless it is slow in float)",
    )
    group.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="the file of the ranges: it is written, and used again for the same model and images "
        "(default: MODEL.calibration.json beside the artefacts)",
    )


def _add_images(parser: argparse.ArgumentParser) -> None:
    add_dataset_options(parser)
    group = options(parser, Goal.IMAGES)
    group.add_argument(
        "--split", metavar="NAME", help=f"which part of the data set (default: {_SPLIT})"
    )
    group.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="use the photos below DIR, which need no labels, in place of a data set",
    )
    group.add_argument(
        "--held-out",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="never calibrate on the images below DIR, which you score models on; compare the "
        "artefact's labels with MODEL's on them; may be repeated (the split val of a data set is "
        "always held out; if nothing is, up to a fifth of the given images is)",
    )
    group.add_argument(
        "--count",
        type=count,
        default=32,
        metavar="N",
        help=f"how many images to calibrate on, at least {FEWEST} (default: 32)",
    )
    group.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="the seed that draws these images (default: 0)",
    )
    add_label_options(parser)
    add_exif_option(parser)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet quantize`; exit code 0 done, 1 a check failed, 2 a wrong request."""
    args = _parser().parse_args(argv)
    require("icnet quantize", "export", "onnx")
    require("icnet quantize", "cpu", "onnxruntime")
    histogram = Path(args.histogram[1]) if args.histogram else None
    with without_empty_folders(args.out, args.json, args.report, args.calibration, histogram):
        _quantize(args)
    return 0


def _quantize(args: argparse.Namespace) -> None:
    """Does what was asked for; see `main`."""
    from icnet_deploy.calibration.artefact import Recipe, load_float
    from icnet_deploy.calibration.calibrate import save_calibration
    from icnet_deploy.calibration.graph import Graph
    from icnet_deploy.calibration.histogram_plot import require_named, write_histogram
    from icnet_deploy.calibration.ladder.methods import settled
    from icnet_deploy.calibration.ladder.run import refine

    placements = tuple(PLACEMENTS) if args.placement == "both" else (args.placement,)
    check_rebuilds(args, placements)
    check_ladder(args, placements)
    model, metadata, size = load_float(args.model)
    outs = _outs(args.model, args.out, placements)
    args.out = [*outs.values()]
    args.histogram = args.histogram and (args.histogram[0], Path(args.histogram[1]))
    check_outputs(args, "out", "histogram")
    if args.histogram:
        require_named(Graph(model), args.histogram[0])
    chosen = _choose(args, size, metadata)
    images = chosen.sets[0]
    cache = args.calibration or next(iter(outs.values())).parent / (
        f"{args.model.stem}.calibration.json"
    )
    calibration = _calibration(args, model, images, cache)
    recipes = {
        placement: settled(
            Recipe(calibration, placement, args.method, args.exclude), model, metadata, images
        )
        for placement in placements
    }
    known, calibration = (
        calibration,
        calibration.taken_by({p: recipe.method for p, recipe in recipes.items()}),
    )
    if calibration.methods != known.methods:  # it may lie where nothing can be written
        save_calibration(cache, calibration)
    if args.histogram:
        name, target = args.histogram
        write_histogram(target, calibration, Graph(model), name)
    refined = refine(args, recipes, model, images, _val(args))
    for placement, recipe in refined.recipes.items():
        _write(args.model, model, outs[placement], recipe, chosen.checked(0))
    refined.require()
    if args.rebuilds:
        from icnet_deploy.calibration.rebuilds.run import run

        run(args, chosen, outs)


def _write(
    source: Path, model: onnx.ModelProto, out: Path, recipe: Recipe, checked: Checked
) -> None:
    """Writes an artefact, and prints what it is and what of it is in float."""
    import onnx

    from icnet_deploy.calibration.agreement import agreement_words
    from icnet_deploy.calibration.artefact import write_quantized
    from icnet_deploy.calibration.products import products

    found = write_quantized(source, out, recipe, checked.images(), checked.words)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256(out)[:16]}...")
    for line in agreement_words(found, checked.words):
        print(f"  {line}")
    if recipe.compared is not None:
        print(f"  ranges by {recipe.method}; {recipe.compared}")
    print(f"  {products(onnx.load(out))}")
    if unknown := PLACEMENTS[recipe.placement].unknown(model, recipe.exclude):
        named = ", ".join(f"{count} {operator}" for operator, count in unknown.items())
        print(f"  in float, because {recipe.placement} cannot round them: {named}")


def _choose(args: argparse.Namespace, size: tuple[int, int], metadata: ArtefactMetadata) -> Chosen:
    """Chooses the images of every build, and those that builds are measured on."""
    pool, val = _pool(args), _val(args)
    named = [photos(folder, args.group_by, print) for folder in args.held_out]
    held_out = [image for each in (*named, *val) for image, _ in each.files]
    count = _count(args, len(pool.files), keep_back=not held_out)
    most = args.rebuild_images or IMAGES
    if args.rebuilds:
        draws = draw_each(pool, count, args.seed, args.rebuilds, 0 if held_out else most)
    else:
        draws = Draws((args.seed,), (pool.draw(count, args.seed),))
    exif = "apply" if args.images else args.exif
    sets = choose_each(draws.files, size, held_out, exif, Fitting.of(metadata))
    for seed, each in zip(draws.seeds, sets, strict=True):
        if note := require_content(each.files, each, FEWEST):
            print(f"note: {note}" + (f" (the draw of seed {seed})" if args.rebuilds else ""))
    chosen = Chosen(pool, draws, sets, held_out)
    if not args.rebuilds:
        return chosen
    return chosen.measured_on([*val, *named], metadata.label_set, most)


def _outs(model: Path, out: Path | None, placements: Sequence[str]) -> dict[str, Path]:
    """Placement -> the file to write."""
    if out is not None and kind_of(out) == "onnx":
        if len(placements) > 1:
            raise InputError(
                f"-o {out} is one file, and {len(placements)} files are written by default: name a "
                f"folder, or choose {' or '.join(f'--placement {p}' for p in placements)}"
            )
        files = {placements[0]: out}
    elif out is not None and not isdir(out) and _is_of_a_file(out):
        raise InputError(f"-o {out}: name a folder, or a file that ends in .onnx")
    else:
        if out is not None:
            require_folder_name(out, "-o")
        stem = model.stem.removesuffix("-fp32")
        files = {p: (out or model.parent) / f"{stem}-{p}.onnx" for p in placements}
    for path in files.values():
        make_folder(path.parent)
        if real_path(path) == real_path(model):
            raise InputError(f"-o {path} would replace MODEL: name another file")
    return files


def _is_of_a_file(out: Path) -> bool:
    """Whether a path ends as an artefact does, in letters of any case: no folder is meant."""
    return kind_of(out.with_suffix(out.suffix.lower())) != "other"


def _pool(args: argparse.Namespace) -> Pool:
    """The images that may be calibrated on."""
    if (args.images is None) == (args.dataset is None):
        raise InputError(
            "name the images to calibrate on: either --dataset NAME --data DIR, or --images DIR"
        )
    if args.images is not None:
        every = "--images takes every photo below its folder, and turns it as EXIF says"
        refuse_data_options(args, ("data", "split", "label_set", *OF_LABELS, "exif"), every)
        return Pool(photos(args.images, args.group_by, print))
    if args.data is None:
        raise InputError(f"--dataset {args.dataset} needs its folder: --data DIR")
    split = args.split or _SPLIT
    if split in _SCORED:
        raise InputError(
            f"--split {split}: models are scored on it, and a model that is calibrated on it would "
            "score too well; calibrate on train"
        )
    return Pool(open_split(args, split))


def _count(args: argparse.Namespace, total: int, keep_back: bool) -> int:
    """How many of so many images are calibrated on: all but a fifth at most."""
    spare = min(CHECKED, total // 5, max(total - FEWEST, 0)) if keep_back else 0
    return min(int(args.count), total - spare)


def _val(args: argparse.Namespace) -> list[Dataset]:
    """The part of the data set that models are scored on, if this copy holds it."""
    if args.dataset is not None:
        with suppress(DatasetError):
            try:
                return [open_split(args, "val")]
            except Incomplete as error:  # what can be scored
                return [error.rest]
    return []


def _calibration(
    args: argparse.Namespace, model: onnx.ModelProto, images: CalibrationSet, cache: Path
) -> Calibration:
    """The calibration of this model and these images, from the cache or made now."""
    from icnet_deploy.calibration.calibrate import (
        calibrate_and_keep,
        load_calibration,
    )

    parent = artefact_sha256(args.model)
    calibration = load_calibration(cache, model, parent, images)
    if calibration is None:
        calibration = calibrate_and_keep(cache, model, images, parent)
        tensors = len(calibration.statistics)
        print(f"{cache}: the ranges of {tensors} tensors on {len(images)} images")
    else:
        print(f"{cache}: used again, since the model and the {len(images)} images are the same")
    return calibration
