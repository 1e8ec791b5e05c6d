"""`python run.py`: five networks of other libraries, each from training to files that are verified.

For each network it trains (`train.py`), exports in float32 and in float16 (`icnet export
--network`), makes 8-bit files of the float32 one, calibrated on scenes that it was trained on
(`icnet quantize`), and verifies all on every runtime that is installed (`icnet verify --network`).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from streets import ROAD, STREETS, write_streets

HERE = Path(__file__).resolve().parent
NETWORKS = {"lraspp": 200, "unet": 60, "deeplabv3plus": 60, "segformer": 120, "road": 60}
"""Name -> training steps, after which its map shows most of the classes."""

PRECISIONS = ("fp32", "fp16", "int8")
"""The last is made of the first's file."""


def run(*command: object) -> None:
    """Runs a command in this folder, where my_networks.py is; its failure ends the whole."""
    print("+", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True, cwd=HERE)


def icnet(*arguments: object) -> None:
    """Runs `icnet`."""
    run(sys.executable, "-m", "icnet_deploy", *arguments)


def make(name: str, args: argparse.Namespace) -> None:
    """Trains, exports, quantizes and verifies one network; its files come to lie in `OUT/NAME`."""
    out = args.out.resolve()
    folder, weights = out / name, out / f"{name}.pth"
    folder.mkdir(parents=True, exist_ok=True)
    data = out / "data" / ("road" if name == "road" else "streets")
    training = ("--steps", args.steps or NETWORKS[name], "--batch", args.batch)
    run(sys.executable, "train.py", name, "--data", data, *training, "-o", weights)
    network = ("--network", f"my_networks:{name}", "--weights", weights)
    says = ("--label-set", data / "classes.json", "--preprocessing", "imagenet")
    for precision in filter(args.precisions.__contains__, PRECISIONS):
        if precision == "int8":
            icnet("quantize", folder / f"{name}-fp32.onnx", "--dataset", "folder", "--data", data)
            continue
        file = folder / f"{name}-{precision}.onnx"
        form = ("--size", args.size, "--precision", precision)
        icnet("export", *network, *says, *form, "-o", file)
    result = ("--json", out / f"{name}.json")
    icnet("verify", folder, *network, "--dataset", "folder", "--data", data, *result)


def main() -> None:
    """Goes through the networks and says what it made."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument(
        "--out", type=Path, default=Path("runs/own_network"), help="a folder (%(default)s)"
    )
    p.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS], metavar="NAME")
    p.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    p.add_argument("--size", default="128x256", help="HEIGHTxWIDTH (default: %(default)s)")
    p.add_argument("--steps", type=int, help="steps of training (default: each network's own)")
    p.add_argument("--batch", type=int, default=8, help="images in a step (default: %(default)s)")
    p.add_argument("--train", type=int, default=64, help="scenes to train on")
    p.add_argument("--val", type=int, default=40, help="scenes to verify on")
    args = p.parse_args()
    out = args.out.resolve()
    height, width = map(int, args.size.split("x"))
    counts = {"train": args.train, "val": args.val}
    if set(args.networks) - {"road"}:
        write_streets(out / "data" / "streets", STREETS, counts, (height, width))
    if "road" in args.networks:
        write_streets(out / "data" / "road", ROAD, counts, (height, width))
    for name in args.networks:
        make(name, args)
    print(f"{out} holds:")
    for file in sorted(out.glob("*/*.onnx")):
        print(f"  {file.relative_to(out)}: {file.stat().st_size / 1e6:.1f} MB, verified")


if __name__ == "__main__":
    main()
