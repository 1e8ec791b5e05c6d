"""`python -m tools.pages`: runs the commands that the documentation shows.

Every block of commands and of Python stands behind a comment that says where it is run:

    <!-- run: test -->       by the test suite
    <!-- run: long -->       by `make long`
    <!-- not run: WHY -->    nowhere

The blocks of a page run in their order, in one folder with small stand-ins for the files that the
pages speak of, but for a page that says that it makes its own.
"""

import argparse
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os.path import exists, islink
from pathlib import Path

import numpy as np
from tqdm import tqdm

from icnet_deploy.command import command, parser
from icnet_deploy.data.mapping import prediction_table
from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.files import make_folder, write_json
from icnet_deploy.images import write_image, write_labels
from icnet_deploy.labels import CAMVID, CITYSCAPES
from icnet_deploy.precisions import PRECISIONS
from icnet_deploy.processes import run_tool

ROOT = Path(__file__).parents[1]
_SIZE = (128, 256)
_SPLITS = {"train": 12, "val": 8}
_RUN = re.compile(r"<!-- (?:run: (?P<where>test|long)|not run: (?P<why>\S.*)) -->")
_FENCE = re.compile(r"( *)```(\S*)")
_RUNNABLE = ("sh", "python")
_OWN = "<!-- no stand-ins: this page makes its files -->"


_THEIRS = f"""
import torch, mynets
network = mynets.build()
network.load_state_dict(torch.load("net.pth"))
image = torch.zeros(1, 3, *{_SIZE})
torch.onnx.export(network.eval(), image, "theirs.onnx", opset_version=17, dynamo=False)
"""
"""Writes the network as other programs do."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: the page.
        line: of its first fence, from 1.
        language: after the fence; "" if there is none.
        text: what stands in it.
        where: `test` or `long`; "" if it is run nowhere.
        why: it is run nowhere; "" if nothing is said.
    """

    page: Path
    line: int
    language: str
    text: str
    where: str = ""
    why: str = ""

    @property
    def name(self) -> str:
        """The page and the line."""
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def pages() -> list[Path]:
    """The pages whose blocks are run."""
    examples = sorted(ROOT.glob("examples/*/README.md"))
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *examples]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    lines = page.read_text("utf-8").splitlines()
    number, before = 0, ""
    while number < len(lines):
        fence = _FENCE.fullmatch(lines[number])
        if not fence:
            before = lines[number].strip() or before
            number += 1
            continue
        end = lines.index(f"{fence[1]}```", number + 1)
        text = "\n".join(line.removeprefix(fence[1]) for line in lines[number + 1 : end]) + "\n"
        said = _RUN.fullmatch(before)
        where, why = (said["where"] or "", said["why"] or "") if said else ("", "")
        yield Block(page, number + 1, fence[2], text, where, why)
        number, before = end + 1, ""


def unmarked(page: Path) -> list[str]:
    """The blocks of a page that do not say what they are, or where they are run."""
    return [
        f"{block.name}: {'no language' if not block.language else 'not said where it is run'}"
        for block in blocks(page)
        if not block.language or (block.language in _RUNNABLE and not block.where and not block.why)
    ]


def _write_camvid(folder: Path) -> None:
    """Drawn scenes in the layout of CamVid at 480x360, two drives a split."""
    table = prediction_table(CITYSCAPES, CAMVID)
    for seed, (split, count) in enumerate(_SPLITS.items()):
        for number in range(count):
            scene = draw_scene((seed, number), _SIZE)
            name = f"{number % 2:04}{split[0].upper()}_{number:05}.png"
            write_image(folder / split / name, scene.image)
            labels = np.where(scene.labels == 255, np.uint8(11), table[scene.labels])
            labels[labels == 255] = 11
            write_labels(folder / f"{split}annot" / name, labels)


def _write_own(folder: Path) -> None:
    start = ROOT / "examples/own_network/start.py"
    _run(folder, sys.executable, start, ".", "--steps", 20, "--train", 12, "--val", 8)


def _exported(name: str, *options: object) -> Callable[[Path], None]:
    return lambda folder: _icnet(folder, "export", *options, "-o", name)


def _write_release(folder: Path) -> None:
    release = make_folder(folder / "release")
    for name in ("icnet", *_INT8):
        shutil.copy(folder / f"{name}.onnx", release)
    loose = ("--max-miou-drop", 50, "--max-class-drop", 90)
    _icnet(folder, "verify", "release", *_CAMVID, *loose)


_AT = ("--size", "x".join(map(str, _SIZE)))
_CAMVID = ("--dataset", "camvid", "--data", "camvid")
_INT8 = tuple(f"icnet-{name}" for name, row in PRECISIONS.items() if row.calibrated)
_QUANTIZE = ("quantize", "icnet.onnx", *_CAMVID, "--count", 8, "-o", ".")
_LATENCY = ("benchmark", "latency", "icnet.onnx", "--rounds", 10, "--json")

# What a page may name -> what is made before it, and how.
_MAKERS: dict[str, tuple[tuple[str, ...], Callable[[Path], object]]] = {
    "mynets": ((), _write_own),
    **dict.fromkeys(
        ("street", "photos", "net.pth", "classes.json"), (("mynets",), lambda folder: None)
    ),
    "photo.jpg": (
        ("photos",),
        lambda folder: shutil.copy(folder / "photos/0.jpg", folder / "photo.jpg"),
    ),
    "theirs.onnx": (("mynets",), lambda folder: _run(folder, sys.executable, "-c", _THEIRS)),
    "drive.mp4": ((), lambda folder: _write_video(folder / "drive.mp4")),
    "camvid": ((), lambda folder: _write_camvid(folder / "camvid")),
    "icnet.safetensors": (
        (),
        lambda folder: shutil.copy(
            ROOT / "networks/weights/icnet-street.safetensors", folder / "icnet.safetensors"
        ),
    ),
    "icnet.onnx": ((), _exported("icnet.onnx", *_AT)),
    "icnet-labels.onnx": ((), _exported("icnet-labels.onnx", *_AT, "--head", "labels")),
    "icnet-fp16.onnx": ((), _exported("icnet-fp16.onnx", *_AT, "--precision", "fp16")),
    "icnet-any.onnx": ((), _exported("icnet-any.onnx", "--dynamic-size")),
    _INT8[0]: (("icnet.onnx", "camvid"), lambda folder: _icnet(folder, *_QUANTIZE)),
    "release": (("icnet.onnx", _INT8[0]), _write_release),
    "evaluate.json": (
        ("icnet.onnx", "camvid"),
        lambda folder: _icnet(
            folder, "evaluate", "icnet.onnx", *_CAMVID, "--json", "evaluate.json"
        ),
    ),
    "parity.json": (
        (_INT8[0], "camvid"),
        lambda folder: _icnet(
            folder, "parity", "icnet.onnx", f"{_INT8[0]}.onnx", *_CAMVID, "--json", "parity.json"
        ),
    ),
    "before.jsonl": (("icnet.onnx",), lambda folder: _icnet(folder, *_LATENCY, "before.jsonl")),
    "after.jsonl": (("icnet.onnx",), lambda folder: _icnet(folder, *_LATENCY, "after.jsonl")),
}


def make_stand_ins(folder: Path, text: str) -> None:
    """Makes small files of the names that a text speaks of, where they are not made yet."""
    for name in _MAKERS:
        if re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w-])", text):
            _make(folder, name)


def _make(folder: Path, name: str) -> None:
    done = make_folder(folder / ".made") / name
    if exists(done):
        return
    before, make = _MAKERS[name]
    for each in before:
        _make(folder, each)
    make(folder)
    done.touch()


def _write_video(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width = _SIZE
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(draw_scene((9, number), _SIZE).image)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _icnet(folder: Path, *words: object) -> None:
    _run(folder, sys.executable, "-m", "icnet_deploy", *words)


def _run(folder: Path, *words: object) -> None:
    done = run_tool([*map(str, words)], cwd=str(folder))
    if done.returncode:
        shown = " ".join(map(str, words[1:6]))
        raise CheckFailed(f"{shown} ended with {done.returncode}: {done.stderr[-2000:]}")


def run_page(page: Path, made: Path, folder: Path, where: Sequence[str]) -> list[str]:
    """Runs the blocks of a page, in order.

    Args:
        page: the page.
        made: a folder that keeps the stand-ins from page to page.
        folder: is made anew; the stand-ins are copied into it.
        where: `test`, `long` or both.

    Returns:
        What failed, in words.
    """
    chosen = [block for block in blocks(page) if block.where in where and block.where]
    if not chosen:
        return []
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    if _OWN not in page.read_text("utf-8"):
        make_stand_ins(make_folder(made), "".join(block.text for block in chosen))
        shutil.copytree(made, folder, dirs_exist_ok=True)
    for name in ("examples", "tests", "tools", "benchmarks", "networks"):  # of the clone
        if not islink(folder / name):
            (folder / name).symlink_to(ROOT / name)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    failed = []
    for block in chosen:
        language = ["sh", "-e", "-c"] if block.language == "sh" else [sys.executable, "-c"]
        done = run_tool(
            ["env", f"PATH={path}", f"PYTHONPATH={ROOT}", *language, block.text], cwd=str(folder)
        )
        if done.returncode:
            failed.append(f"{block.name} ended with {done.returncode}: {done.stderr[-1500:]}")
    return failed


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    p = parser(
        "python -m tools.pages",
        "Runs the commands of the documentation, with small files in place of a user's own.",
        "python -m tools.pages docs/start.md --where test",
    )
    p.add_argument("pages", nargs="*", type=Path, metavar="PAGE", help="(default: all)")
    p.add_argument(
        "--where",
        choices=("test", "long", "all"),
        default="all",
        help="the blocks of the tests, of `make long`, or both (default)",
    )
    p.add_argument(
        "--folder",
        type=Path,
        default=Path("runs/pages"),
        metavar="DIR",
        help="for the stand-ins, which are made once, and the results (default: %(default)s)",
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="write what was run")
    return p.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _arguments(argv)
    chosen = [(ROOT / page).absolute() for page in args.pages] or pages()
    if unknown := [str(page) for page in chosen if page not in pages()]:
        raise InputError(f"{', '.join(unknown)}: not a page of the documentation")
    where = ("test", "long") if args.where == "all" else (args.where,)
    folder = args.folder.absolute()
    made = folder / "stand-ins"
    failed: list[str] = []
    counts: dict[str, int] = {}
    for page in tqdm(chosen, unit="page", disable=None):
        failed += run_page(page, made, folder / "here", where)
        for block in blocks(page):
            if block.language in _RUNNABLE:
                counts[block.where or "not run"] = counts.get(block.where or "not run", 0) + 1
    if args.json:
        write_json(args.json, {"schema": 1, "kind": "pages", "blocks": counts, "failed": failed})
    print(", ".join(f"{kind}: {number} blocks" for kind, number in sorted(counts.items())))
    if failed:
        raise CheckFailed(f"{len(failed)} blocks failed: " + "\n".join(failed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
