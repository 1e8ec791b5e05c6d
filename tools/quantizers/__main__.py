"""`python -m tools.quantizers`: quantizers of others at their best, and ours.

`make` writes every file of a network into a folder: ours with the options of `icnet quantize`, and
those of ONNX Runtime's quantizer, NNCF and onnxsim with the settings of `settings.py`, all from the
same calibration images. `record` scores each on images of another split, on ONNX Runtime and on
OpenVINO, times the best in turn, and writes a JSON file a network. NNCF's pins are not ours: it
runs in an environment of its own, whose interpreter `--nncf` names.
"""

import argparse
from collections.abc import Sequence
from os.path import exists
from pathlib import Path

from icnet_deploy.command import command, count
from icnet_deploy.command import parser as make_parser
from icnet_deploy.data.options import add_data_options, open_data, open_split
from icnet_deploy.errors import InputError
from icnet_deploy.files import make_folder, sha256, write_json
from tools.quantizers.folder import Network
from tools.quantizers.make import make_all, write_images
from tools.quantizers.record import record
from tools.quantizers.settings import RECIPES

_QUANTIZERS = tuple(dict.fromkeys(each.quantizer for each in RECIPES))
_OWN = ("verb", "model", "folder", "calibration", "validation", "nncf", "only", "settings", "again")


def _arguments() -> argparse.ArgumentParser:
    p = make_parser(
        "python -m tools.quantizers",
        "Compares the best files of several quantizers, made from float32 files with logits.",
        "python -m tools.quantizers make icnet.onnx peers/icnet --dataset camvid --data CamVid\n"
        "  python -m tools.quantizers record peers/* --json benchmarks/results",
    )
    verbs = p.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("make", help="write the files of every quantizer", allow_abbrev=False)
    make.add_argument("model", type=Path, metavar="MODEL", help="a float32 file of `icnet export`")
    make.add_argument("folder", type=Path, metavar="FOLDER", help="of the network, by its name")
    add_data_options(make)
    make.add_argument("--calibration", type=count, default=32, metavar="N", help="images of train")
    make.add_argument("--validation", type=count, default=24, metavar="N", help="others of train")
    make.add_argument("--nncf", type=Path, metavar="PYTHON", help="an interpreter that has nncf")
    make.add_argument(
        "--only", action="append", choices=_QUANTIZERS, default=[], help="may be repeated"
    )
    make.add_argument(
        "--settings",
        action="append",
        default=[],
        metavar="WORDS",
        help="only files of these settings, as tables name them; may be repeated",
    )
    make.add_argument("--again", action="store_true", help="make what is there, too")
    take = verbs.add_parser("record", help="score and time what was made", allow_abbrev=False)
    take.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="that `make` wrote")
    take.add_argument("--rounds", type=count, default=30, metavar="N", help="of the timing")
    take.add_argument(
        "--json", type=Path, required=True, metavar="DIR", help="where quantizers-NETWORK.json goes"
    )
    return p


def _data_options(args: argparse.Namespace) -> tuple[str, ...]:
    """The options of the data set as they were given."""
    texts: list[str] = []
    for name, value in vars(args).items():
        if name not in _OWN and value is not None:
            texts += [f"--{name.replace('_', '-')}", str(value)]
    return tuple(texts)


def _make(args: argparse.Namespace) -> None:
    from icnet_deploy.calibration.artefact import load_float

    _, metadata, size = load_float(args.model)
    if metadata.head != "logits":
        raise InputError(f"{args.model} has the head {metadata.head!r}: export it with `logits`")
    network = Network(
        make_folder(args.folder),
        args.model,
        sha256(args.model),
        _data_options(args),
        args.calibration,
        args.validation,
    )
    kept = args.folder / "network.json"
    if args.again or not exists(kept) or Network.read(args.folder) != network:
        write_images(network, open_split(args, "train"), metadata, size)
        network.write()
    make_all(network, args.nncf, args.only, args.settings, args.again)


def _record(args: argparse.Namespace) -> None:
    from icnet_deploy.metadata import read_onnx_metadata

    options = argparse.ArgumentParser()
    add_data_options(options)
    for folder in args.folders:
        network = Network.read(folder)
        dataset = open_data(options.parse_args(network.data))
        metadata = read_onnx_metadata(network.model)
        result = record(network, dataset, metadata, args.rounds)
        write_json(make_folder(args.json) / f"quantizers-{network.name}.json", result)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison; returns its exit code."""
    args = _arguments().parse_args(argv)
    {"make": _make, "record": _record}[args.verb](args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
