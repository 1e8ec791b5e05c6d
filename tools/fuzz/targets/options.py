"""The command line: options with values of every kind, in a folder with small right files."""

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np

from icnet_deploy.cli import COMMANDS
from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.precisions import PRECISIONS
from tests.fakes.tiny_model import build_model
from tools.fuzz.corpus import old_files
from tools.fuzz.mutate.tree import loads
from tools.fuzz.target import Run, Target

# What is right, and takes no time; names are of files in the folder.
_RIGHT = (
    "predict a.png --model tiny.onnx -o out --runtime onnxruntime --threads 1 --streams 1",
    "predict a.png pictures --model tiny.onnx -o out --unsure-below 0.5 --max-megapixels 1",
    "predict a.png --model tiny.onnx -o out --tiles --overlap 0.2 --label-ids --device cpu",
    "predict a.png --model release -o out --size 96x160",
    "evaluate evaluate.json --against evaluate.json --json out/c.json --report out/c.html",
    "evaluate tiny.onnx --dataset folder --data set --split val --limit 1 --exif apply",
    "evaluate tiny.onnx --dataset folder --data set --label-values ids --group-by (.)",
    "evaluate --compare 0.2.0 1 --records accuracy.jsonl --json out/r.json",
    "evaluate --network my:make --network-args {} --preprocessing unit --label-set set.json",
    "parity tiny.onnx --images pictures --weights tiny.safetensors --max-miou-drop 0.5 --limit 1",
    "parity tiny.onnx --images pictures --reference tiny.onnx --min-agreement 90 --limit 1",
    "verify nothing --weights tiny.safetensors --max-class-drop 1 --undecided fail --limit 1",
    "quantize nothing.onnx --images pictures --count 2 --seed 1 --method mse --placement both",
    "quantize tiny.onnx --images pictures --rebuilds 2 --rounds 2 --effort float -o q.onnx",
    "export --weights nothing.safetensors --size 64x96 --head labels -o e.onnx",
    "adopt nothing.onnx --label-set set.json --preprocessing unit --threshold 0.5 -o f.onnx",
    "train --dataset folder --data nothing --config train.toml --steps 1 -o t.safetensors",
    "compress nothing.safetensors --dataset folder --data nothing -o c.safetensors",
    "import-weights net.caffemodel -o i.safetensors",
    "sensitivity nothing.onnx --dataset folder --data set --limit 1",
    "build-engine nothing.onnx -o b.engine",
    "dataset check set --dataset folder --split val --label-set set.json --report out/d.html",
    "scenes drawn --count 1 --size 64x96 --seed 7 --split val",
    "benchmark compare latency.jsonl latency.jsonl --max-slowdown 1.05",
    "benchmark report latency.jsonl -o out/b.html",
    "benchmark latency nothing.onnx --rounds 1 --threads 1 --size 64x96",
    "--version",
)
_VALUES = (
    *("", " ", "-", "--", "-1", "0", "1", "2", "0.5", "1.5", "nan", "inf", "-inf", "1e999", "{}"),
    *("9" * 5000, "1" + "0" * 30, "0x10", "1_0", "٣", "²", "½", "true", "None", "null", "[]"),
    *("64x96", "0x0", "1x1", "64x", "x", "99999x99999", "64X96", "a", "é", "\udcff", "a\nb"),
    *("a\0b", "x" * 300, "x/" * 2000, "nothing", "a.png", "set", "set.json", "tiny.onnx", "out"),
    *("tiny.safetensors", "accuracy.jsonl", "evaluate.json", "fifo", "dangling", "loop", "out/"),
    *(
        "no/such/place",
        "train.toml",
        "(",
        "[a-z",
        "*",
        "?",
        "%s",
        "{0}",
        "$HOME",
        ";",
        ":",
        "a:b:c",
    ),
    *(
        "cpu",
        "cuda",
        "auto",
        "openvino",
        "onnxruntime",
        "tensorrt",
        *PRECISIONS,
        "fp32",
        "my:make",
        "@a",
    ),
)
_OPTIONS = (
    *("--json", "--report", "--limit", "--size", "--seed", "--split", "--data", "--dataset", "-o"),
    *("--help", "--no-such-option", "--label-set", "--class-map", "--runtime", "--threads"),
)
_WRITE = {"-o", "--out", "--output", "--json", "--report", "--plot", "--save-predictions"}
"""Options that name what is written: never a file of the folder's own that other cases need."""


def _seeds() -> list[bytes]:
    return [json.dumps(line.split()).encode() for line in _RIGHT]


def _changed(data: bytes, rng: Random) -> bytes:
    try:
        words = [str(word) for word in loads(data)]
    except (ValueError, TypeError, RecursionError):
        words = rng.choice(_RIGHT).split()
    for _ in range(rng.choice((1, 1, 2, 3))):
        if len(words) < 2:
            words = rng.choice(_RIGHT).split()
        at = rng.randrange(1, len(words)) if len(words) > 1 else 0
        way = rng.randrange(6)
        if way == 0:
            del words[at]
        elif way == 1:
            words.insert(at, rng.choice(words[1:] or words))
        elif way == 2:
            words[at:at] = [rng.choice(_OPTIONS), rng.choice(_VALUES)]
        else:
            words[at] = rng.choice(_VALUES)
    return json.dumps(words).encode()


def exit_of(name: str, main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Runs a command as the shell does.

    Returns:
        0.

    Raises:
        InputError, CheckFailed: it ended with 2 or 1, and said why.
        AssertionError: it ended otherwise, or said nothing.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    said = err.getvalue()
    assert code in (0, 1, 2), f"icnet {name} ended with {code}"
    if code == 0:
        return 0
    lines = [line for line in said.splitlines() if "error: " in line]
    assert "Traceback" not in said
    assert lines or code == 1, f"icnet {name} ended with {code} and said no error: {said[-300:]}"
    if code == 2:
        raise InputError(lines[-1])
    raise CheckFailed(lines[-1] if lines else f"icnet {name} ended with 1: a check failed")


def _furnish(folder: Path) -> None:
    """Small right files, and what a path can be besides."""
    from icnet_deploy.images import write_image, write_labels

    build_model(folder / "tiny.onnx", (32, 48))
    picture = np.zeros((32, 48, 3), np.uint8)
    for place in ("a.png", "pictures/b.png", "set/images/val/a.png"):
        write_image(folder / place, picture)
    write_labels(folder / "set/labels/val/a.png", picture[:, :, 0])
    classes = {"label_set": "cityscapes", "label_values": "indices"}
    (folder / "set/classes.json").write_text(json.dumps(classes), "utf-8")
    (folder / "set.json").write_text('{"name": "n", "names": ["a", "b"]}', "utf-8")
    (folder / "train.toml").write_bytes(old_files()["tiny.toml"])
    for name in ("results/evaluate.json", "results/latency.jsonl", "tiny.safetensors"):
        (folder / Path(name).name).write_bytes(old_files()[name])
    lines = Path("benchmarks/results/accuracy.jsonl").read_bytes().splitlines()[:1]
    (folder / "accuracy.jsonl").write_bytes(lines[0])
    (folder / "net.caffemodel").write_bytes(b"\x0a\x01a")
    with contextlib.suppress(FileExistsError):
        os.mkfifo(folder / "fifo")
        os.symlink("nowhere", folder / "dangling")
        os.symlink("loop", folder / "loop")


def _is_outside(word: str) -> bool:
    """Whether a word may lead out of the folder."""
    value = word.partition("=")[2] if word.startswith("-") else word
    return value.startswith(("/", "~")) or ".." in value


def _prepare(folder: Path) -> Run:
    _furnish(folder)
    before = {path.name for path in folder.iterdir()}
    # Imported in the folder that the fuzz was begun in.
    names = dict.fromkeys(line.split()[0] for line in _RIGHT)
    modules = {name: import_module(COMMANDS[name][0]) for name in names if name in COMMANDS}

    def run(data: bytes) -> Iterator[str]:
        from icnet_deploy.cli import main

        try:
            words = [str(word) for word in loads(data)]
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"a case that is no command: {error!r:.80}") from error
        if any(map(_is_outside, words)) or (_WRITE & set(words) and _would_replace(words, before)):
            raise InputError("a case that may write outside of what it should: left out")
        if not words or (words[0] not in modules and not words[0].startswith("-")):
            words = ["predict", *words]
        home = os.getcwd()
        os.chdir(folder)
        try:
            exit_of(words[0], main, words)
        finally:
            os.chdir(home)
        yield "done"

    return run


def _would_replace(words: Sequence[str], names: set[str]) -> bool:
    after = [b for a, b in pairwise(words) if a in _WRITE]
    return any(Path(word).parts[:1] and Path(word).parts[0] in names for word in after)


TARGETS: tuple[Target, ...] = (
    Target(
        "options",
        "commands with options of every value",
        _seeds,
        _changed,
        _prepare,
        40_000,
        may_fail=True,
        seconds=60,
        megabytes=2048,
    ),
)
