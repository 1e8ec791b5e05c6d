"""`icnet import-weights`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from icnet_deploy.command import command, parser
from icnet_deploy.errors import LabelSetError, require
from icnet_deploy.files import require_place
from icnet_deploy.labels import CITYSCAPES, LabelSet, load_label_set
from icnet_deploy.report.tables import Table

if TYPE_CHECKING:
    from icnet_deploy.networks.released.mapping import Row


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Imports released weights; exit code 0 done, 2 the file is not a whole ICNet."""
    p = parser(
        "icnet import-weights",
        "Turn the weights that ICNet's authors released into a checkpoint.",
        "icnet import-weights icnet_cityscapes_train_30k_bnnomerge.caffemodel \\\n"
        "    -o icnet-cityscapes.safetensors",
    )
    p.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="the .caffemodel or .npy file, with batch norm or with it merged; nothing in it is "
        "executed",
    )
    p.add_argument(
        "-o",
        "--out",
        required=True,
        type=Path,
        metavar="FILE.safetensors",
        help="the checkpoint to write",
    )
    p.add_argument(
        "--stages",
        default="sub124",
        choices=("sub124", "sub24", "sub4"),
        help="which branches to import: sub124: all; sub24 and sub4: without the finer ones "
        "(default: %(default)s)",
    )
    p.add_argument(
        "--label-set",
        metavar="NAME|FILE.json",
        help="the classes of the network: cityscapes, camvid, or a file (default: cityscapes, if "
        "there are 19 classes)",
    )
    args = p.parse_args(argv)
    require_place(args.out, ".safetensors")
    require("the import of weights", "export", "torch", "safetensors")
    from icnet_deploy.networks.released.importer import SIZE, read_released, save_released

    released = read_released(args.file, args.stages)
    found = released.match
    _print_table(found.rows)
    save_released(released, args.out, _label_set(args.label_set, found.num_classes))
    print(
        f"{args.out}: ICNet ({args.stages}) of width {found.width:g} with {found.num_classes} "
        f"classes from {released.form}'s form, batch norm {found.batch_norm}"
    )
    print(f"next: icnet export --weights {args.out} --size {SIZE[0]}x{SIZE[1]}")
    return 0


def _print_table(rows: Sequence[Row]) -> None:
    """What became of every tensor, and the sums."""
    kinds = [row.where.split(":")[0] for row in rows]
    other = {kind: kinds.count(kind) for kind in ("left out", "skipped", "WRONG")}
    taken = len(kinds) - sum(other.values())
    sums = ", ".join(f"{count} {kind.lower()}" for kind, count in other.items())
    note = f"{len(kinds)} tensors: {taken} taken, {sums}"
    print(Table(("layer", "blob", "shape", "where it went"), rows, left=4, notes=[note]).text())


def _label_set(name: str | None, num_classes: int) -> LabelSet:
    if name is not None:
        return load_label_set(name)
    if num_classes == len(CITYSCAPES):
        return CITYSCAPES
    raise LabelSetError(
        f"the file's classifier has {num_classes} classes, which are not Cityscapes' "
        f"{len(CITYSCAPES)}: name them with --label-set"
    )
