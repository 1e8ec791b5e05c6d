"""`python -m tools.yardstick`: scores a checkpoint on streets that a recipe is chosen by.

Held-out drives of CamVid's training frames, by people's labels, and KITTI's frames of urban roads,
by a teacher's; at the sizes that are deployed; and under other light.
"""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from icnet_deploy.command import command, count, parser
from icnet_deploy.data import Dataset
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.float_network import PytorchNetwork
from icnet_deploy.evaluation.reference import Reference, read_checkpoint
from icnet_deploy.export.artefact import training_data
from icnet_deploy.files import make_folder, write_json
from icnet_deploy.runtime.machine import machine, versions
from tools.yardstick.looks import LOOKS, PLAIN
from tools.yardstick.report import classes, comparison, table
from tools.yardstick.rows import compared, read_result, result, score_street
from tools.yardstick.streets import DEPLOYED, DRIVES, ROADS, camvid, kitti

_LOOKED_AT = ("512x1024",)
"""The sizes at which other light is tried, unless others are named: it takes seven runs more."""


def _arguments() -> argparse.ArgumentParser:
    p = parser(
        "python -m tools.yardstick",
        "Scores a checkpoint on streets that icnet train --leave-out REGEX held out, at the "
        "deployed sizes and in other light.",
        "python -m tools.yardstick icnet.safetensors --camvid CamVid --kitti kitti --limit 8",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="a checkpoint, .safetensors")
    p.add_argument("--camvid", type=Path, metavar="DIR", help="CamVid's folder: train, trainannot")
    p.add_argument(
        "--kitti", type=Path, metavar="DIR", help="a folder of image/, label/ and confidence/"
    )
    p.add_argument(
        "--held-out-camvid",
        default=DRIVES,
        metavar="REGEX",
        help="the frames in whose names it finds something (default: %(default)s)",
    )
    p.add_argument(
        "--held-out-kitti", default=ROADS, metavar="REGEX", help="the same (default: %(default)s)"
    )
    p.add_argument("--sizes", nargs="+", choices=DEPLOYED, default=DEPLOYED, help="(default: all)")
    p.add_argument(
        "--looks",
        nargs="*",
        choices=[*LOOKS],
        default=[*LOOKS],
        help="kinds of light (default: all)",
    )
    p.add_argument(
        "--looks-at",
        nargs="+",
        choices=DEPLOYED,
        default=_LOOKED_AT,
        metavar="SIZE",
        help=f"the sizes at which they are tried (default: {', '.join(_LOOKED_AT)})",
    )
    p.add_argument("--limit", type=count, metavar="N", help="frames of each street (default: all)")
    p.add_argument("--against", type=Path, metavar="FILE", help="a result that --json wrote")
    p.add_argument("--json", type=Path, metavar="FILE", help="where to record it")
    return p


def _streets(args: argparse.Namespace) -> list[Dataset]:
    streets = []
    if args.camvid is not None:
        streets.append(camvid(args.camvid, args.held_out_camvid))
    if args.kitti is not None:
        streets.append(kitti(args.kitti, args.held_out_kitti))
    if not streets:
        raise InputError("there is nothing to score on: give --camvid DIR, --kitti DIR, or both")
    return [street.first(args.limit) for street in streets]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _arguments().parse_args(argv)
    other = None if args.against is None else read_result(args.against)
    if args.json is not None:
        make_folder(args.json.parent)
    streets = _streets(args)
    looks = [PLAIN, *(look for look in args.looks if look != PLAIN)]
    deployed = {size: looks if size in args.looks_at else looks[:1] for size in args.sizes}
    checkpoint = read_checkpoint(args.model)
    network = Reference(PytorchNetwork(checkpoint), None)
    rows = [
        row for street in streets for row in score_street(network, args.model, street, deployed)
    ]
    data = training_data(checkpoint.info)
    found = result(args.model, checkpoint.sha256, data, rows)
    today = datetime.now(UTC).date().isoformat()
    found |= {"date": today, "versions": versions(), "machine": machine()}
    if args.json is not None:
        write_json(args.json, found)
    parts = [table(found["rows"]), *classes(found["rows"])]
    if other is not None:
        parts.append(comparison(compared(found["rows"], other["rows"]), other["model"]))
    print("\n\n".join(part.text() for part in parts))
    print(f"\n{args.model.name} was trained on {data or 'data that the checkpoint does not name'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
