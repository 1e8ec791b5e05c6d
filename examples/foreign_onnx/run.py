"""`python run.py`: another program's ONNX file, from adoption to 8-bit files that are verified.

Without --file it makes one (`foreign.py`). It adopts the file, quantizes the artefact with both
placements, verifies all of them against the file itself, and labels a picture.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.images import write_image

HERE = Path(__file__).resolve().parent


def run(*command: object) -> None:
    """Runs a command; its failure ends the whole."""
    print("+", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True)


def icnet(*arguments: object) -> None:
    """Runs `icnet`."""
    run(sys.executable, "-m", "icnet_deploy", *arguments)


def draw(folder: Path, count: int, size: str) -> Path:
    """Draws scenes to calibrate on, in place of your photos."""
    height, width = map(int, size.split("x"))
    for index in tqdm(range(count), "drawing", unit="scene"):
        write_image(folder / f"{index:03}.png", draw_scene((2, index), (height, width)).image)
    return folder


def main() -> None:
    """Goes the whole way and says what it made."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--file", type=Path, help="an ONNX file of yours (default: foreign.py makes it)")
    p.add_argument(
        "--label-set", default="cityscapes", help="the file's classes (default: %(default)s)"
    )
    p.add_argument(
        "--preprocessing", default="imagenet", help="what its input expects (%(default)s)"
    )
    p.add_argument("--images", type=Path, help="photos to calibrate on (default: drawn scenes)")
    p.add_argument(
        "--out", type=Path, default=Path("runs/foreign_onnx"), help="a folder (%(default)s)"
    )
    p.add_argument("--size", default="64x128", help="size of the scenes (default: %(default)s)")
    p.add_argument("--steps", default=120, type=int, help="steps of training in foreign.py")
    p.add_argument("--scenes", default=24, type=int, help="scenes drawn for each purpose")
    p.add_argument("--drop", default=1.0, type=float, help="points of mIoU that INT8 may lose")
    args = p.parse_args()
    out, file = args.out.resolve(), args.file
    if file is None:
        file = out / "foreign.onnx"
        drawn = ("--size", args.size, "--scenes", args.scenes, "--steps", args.steps)
        run(sys.executable, HERE / "foreign.py", file, *drawn)
    images = args.images or draw(out / "images", args.scenes, args.size)
    release = out / "release"
    release.mkdir(parents=True, exist_ok=True)
    net = release / "net-fp32.onnx"
    says = ("--label-set", args.label_set, "--preprocessing", args.preprocessing)
    icnet("adopt", file, *says, "-o", net)
    icnet("quantize", net, "--images", images, "-o", release)
    budget = ("--max-miou-drop", args.drop, "--max-class-drop", 100, "--undecided", "pass")
    icnet("verify", release, "--reference", file, "--limit", args.scenes, *budget)
    picture = next(iter(sorted(images.iterdir())))
    icnet("predict", picture, "--model", release, "-o", out / "pictures")
    print(f"{out} holds:")
    for made in sorted(release.glob("*.onnx")):
        print(f"  {made.relative_to(out)}: {made.stat().st_size / 1e6:.2f} MB")
    print("what `icnet verify` says of each stands above, and in release/verified.json")


if __name__ == "__main__":
    main()
