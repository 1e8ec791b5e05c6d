"""`icnet scenes`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from icnet_deploy.command import command, count, parser, size


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Draws labelled street scenes into a folder."""
    p = parser(
        "icnet scenes",
        "Draw labelled street scenes of all 19 Cityscapes classes, in the layout of Cityscapes.",
        "icnet scenes scenes --count 20 --size 1024x2048 --seed 7",
    )
    p.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    p.add_argument("--count", type=count, default=20, help="how many (default: %(default)s)")
    p.add_argument(
        "--size", type=size, default=(1024, 2048), help="HEIGHTxWIDTH (default: 1024x2048)"
    )
    p.add_argument("--seed", type=int, default=0, help="two seeds share no scene (default: 0)")
    p.add_argument(
        "--split", default="val", choices=("train", "val", "test"), help="(default: %(default)s)"
    )
    args = p.parse_args(argv)
    from icnet_deploy.data.scenes.write import write_scenes

    written = write_scenes(args.out, args.count, args.size, args.seed, args.split)
    height, width = args.size
    print(f"{len(written)} scenes of {height}x{width} in {written[0].parent}")
    print(f"read them with: --dataset scenes --data {args.out} --split {args.split}")
    return 0
