"""`python -m tools.relabel`: a checkpoint labels a teacher's images again, together with it.

A student that has learned from a teacher and from people knows what neither knew alone. Averaged
over sizes and over the mirror image it is surer of its labels than in one run.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from os.path import exists, isdir, isfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from icnet_deploy.command import command, number_type, parser
from icnet_deploy.data import Dataset, open_dataset
from icnet_deploy.data.teacher import Teacher
from icnet_deploy.documents import Kind
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.reference import read_checkpoint
from icnet_deploy.files import make_folder
from icnet_deploy.images import UInt8, resize_image, write_labels
from icnet_deploy.labels import IGNORE

if TYPE_CHECKING:
    from icnet_deploy.networks.checkpoint import Checkpoint

Shares = npt.NDArray[np.float32]
"""float32 C x H x W: a probability for each class."""

_SHARE = Kind(lambda value: isinstance(value, float) and 0 <= value <= 1, "a share from 0 to 1")
_FACTOR = Kind(lambda value: isinstance(value, float) and 0.1 <= value <= 10, "from 0.1 to 10")


def _arguments() -> argparse.ArgumentParser:
    p = parser(
        "python -m tools.relabel",
        "Labels the images of a folder again, by a checkpoint and the folder's teacher together.",
        "python -m tools.relabel icnet.safetensors taught -o taught-again --scales 1.5 2 3",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="a checkpoint, .safetensors")
    p.add_argument(
        "data", type=Path, metavar="DIR", help="a folder with labels/SPLIT and confidence/SPLIT"
    )
    p.add_argument("--split", default="train", help="(default: %(default)s)")
    p.add_argument(
        "--scales",
        nargs="+",
        type=number_type(_FACTOR),
        default=[1.0, 1.5, 2.0],
        metavar="FACTOR",
        help="the sizes that the checkpoint sees an image at, times its own (default: 1 1.5 2)",
    )
    p.add_argument(
        "--pixel-aspect",
        type=number_type(_FACTOR),
        default=1.0,
        metavar="WIDTH",
        help="how much wider than high a pixel is (default: 1)",
    )
    p.add_argument(
        "--share",
        type=number_type(_SHARE),
        default=0.5,
        metavar="P",
        help="what the checkpoint counts; the teacher counts the rest (default: %(default)s)",
    )
    p.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="a new folder")
    return p


def seen(
    checkpoint: "Checkpoint", image: UInt8, scales: Sequence[float], pixel_aspect: float = 1.0
) -> Shares:
    """What a network makes of an image, averaged over sizes and over the mirror image.

    Args:
        checkpoint: the network.
        image: uint8 H x W x 3, RGB, 0..255.
        scales: the sizes, times the image's own.
        pixel_aspect: how much wider than high its pixels are.

    Returns:
        float32 C x H x W, a probability for each class.
    """
    import torch

    network, (height, width) = checkpoint.network, image.shape[:2]
    step, least = network.side_multiple, network.min_side
    total = np.zeros((len(checkpoint.label_set), height, width), np.float32)
    for scale in scales:
        sides = (height * scale, width * scale * pixel_aspect)
        size = tuple(max(round(side / step), -(-least // step), 1) * step for side in sides)
        pixels = resize_image(image, (size[0], size[1]))
        for turn in (1, -1):
            given = checkpoint.preprocessing.tensor(np.ascontiguousarray(pixels[:, ::turn]))
            with torch.inference_mode():
                logits = network.upsample(network(given), (height, width))
                total += logits.softmax(1)[0].numpy()[..., ::turn]
    return total / np.float32(2 * len(scales))


def together(student: Shares, labels: UInt8, confidence: UInt8, share: float) -> Shares:
    """What a student and a teacher say together.

    Of the teacher only its label and how sure it is of it are known: what is left of its
    probability is spread over the other classes as the student would spread it.

    Args:
        student: float32 C x H x W, its probabilities.
        labels: uint8 H x W, the teacher's; at 255 it says nothing.
        confidence: uint8 H x W, 0 (a guess) to 255 (sure).
        share: what the student counts, 0 to 1; the teacher counts the rest.

    Returns:
        float32 C x H x W, a probability for each class.
    """
    known = labels != IGNORE
    chosen = labels.astype(np.int64) * known
    sure = (confidence / np.float32(255)).astype(np.float32)
    own = np.take_along_axis(student, chosen[None], 0)[0]
    teacher = student * ((1 - sure) / np.maximum(1 - own, 1e-6))
    np.put_along_axis(teacher, chosen[None], sure[None], 0)
    both = np.float32(share) * student + np.float32(1 - share) * teacher
    return np.where(known, both, student).astype(np.float32)


def _teacher(dataset: Dataset, checkpoint: "Checkpoint", root: Path) -> Teacher:
    if dataset.teacher is None:
        raise InputError(
            f"{root} has no confidence/{dataset.split}: expected a folder that a teacher labelled"
        )
    theirs, ours = dataset.teacher.label_set.names, checkpoint.label_set.names
    if theirs != ours:
        raise InputError(
            f"the teacher of {root} names {len(theirs)} classes, {dataset.teacher.label_set.name}, "
            f"and {checkpoint.path} {len(ours)}, {checkpoint.label_set.name}: expected the same "
            "classes in the same order"
        )
    return dataset.teacher


def _relabel(dataset: Dataset, checkpoint: "Checkpoint", args: argparse.Namespace) -> None:
    """Writes labels and confidences of all images below `args.out`, which is new."""
    teacher = _teacher(dataset, checkpoint, args.data)
    changed = pixels = 0
    for sample, (image, _) in zip(
        tqdm(dataset, "relabel", unit="image", disable=None), dataset.files, strict=True
    ):
        size = sample.labels.shape
        before = teacher.labels(image, size)
        student = seen(checkpoint, sample.image, args.scales, args.pixel_aspect)
        both = together(student, before, teacher.confidence(image, size), args.share)
        after = both.argmax(0).astype(np.uint8)
        sure = np.round(255 * both.max(0)).astype(np.uint8)
        for values, source in zip((after, sure), teacher.files[image], strict=True):
            path = args.out / source.relative_to(args.data).with_suffix(".png")
            make_folder(path.parent)
            write_labels(path, values)
        changed += int((after != before).sum())
        pixels += after.size
    print(
        f"{len(dataset)} images: {100 * changed / pixels:.1f} % of the pixels have another label "
        "than the teacher's"
    )


def _copy_rest(source: Path, out: Path, split: str) -> None:
    """Copies all else that the split's folder holds: its images, a person's labels, the classes."""
    for name in ("classes.json", "person.json"):
        if isfile(source / name):
            shutil.copyfile(source / name, out / name)
    for kind in ("images", "person"):
        if isdir(source / kind / split):
            shutil.copytree(source / kind / split, out / kind / split)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _arguments().parse_args(argv)
    if exists(args.out):
        raise InputError(f"{args.out} exists: name a new folder, or remove it")
    checkpoint = read_checkpoint(args.model)
    dataset = open_dataset("folder", args.data, args.split)
    _teacher(dataset, checkpoint, args.data)
    make_folder(args.out.parent)
    out = args.out
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        args.out = Path(folder) / out.name
        make_folder(args.out)
        _relabel(dataset, checkpoint, args)
        _copy_rest(args.data, args.out, args.split)
        args.out.rename(out)
    print(f"written: {out}: icnet train --dataset folder --data {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
