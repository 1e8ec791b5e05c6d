"""The steps: each runs `icnet` in a process of its own, so that one that dies ends no other."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os.path import isdir, isfile
from pathlib import Path
from typing import Any

from icnet_deploy.documents import parse
from icnet_deploy.precisions import precision_of
from icnet_deploy.processes import run_tool
from icnet_deploy.runtime.auto.folder import ArtefactFile
from icnet_deploy.runtime.backends.registry import RUNTIMES

ROOT = Path(__file__).resolve().parents[2]

MARKED = ("-rs", "-q", "-m", "tensorrt or gpu")
"""What chooses the tests that need TensorRT or a GPU."""


def run_python(
    arguments: Sequence[str], limit: float | None, folder: Path | None = None
) -> tuple[str, str]:
    """Runs Python in a process of its own, at most so many seconds.

    Returns:
        What it printed; and of a failure what it was, with the last line of its errors, else "".
    """
    done = run_tool([sys.executable, *arguments], limit, str(folder) if folder else None)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return done.stdout, f"exit code {done.returncode}: {last}" if done.returncode else ""


@dataclass
class Setting:
    """How the steps run.

    Attributes:
        device: `cuda`, or `cpu` for a rehearsal.
        size: (height, width) of the frames, in pixels.
        folder: for engines and results; the caller removes it.
        artefacts: ONNX files.
        batches: images a batch, of `speed`.
        rounds: turns of each subject.
        images: how many scenes parity is measured on.
        deadline: `time.monotonic()` at which nothing new begins, and what runs is ended.
        results: step -> what came of it so far.
        save: writes `results`; called after each part of a step.
        run: see `run_python`.
    """

    device: str
    size: tuple[int, int]
    folder: Path
    artefacts: Sequence[ArtefactFile] = ()
    batches: Sequence[int] = (1, 4, 8)
    rounds: int = 10
    images: int = 2
    deadline: float = float("inf")
    results: dict[str, Any] = field(default_factory=dict)
    save: Callable[[], None] = lambda: None
    run: Callable[..., tuple[str, str]] = run_python

    @property
    def left(self) -> float:
        """Seconds until the time is up."""
        return self.deadline - time.monotonic()

    @property
    def size_text(self) -> str:
        """As `--size` takes it."""
        return f"{self.size[0]}x{self.size[1]}"

    def python(self, *arguments: str | Path, folder: Path | None = None) -> tuple[str, str]:
        """Runs Python until it ends or the time is up; see `run_python`."""
        limit = None if self.left == float("inf") else max(1.0, self.left)
        return self.run([str(each) for each in arguments], limit, folder)

    def icnet(self, *arguments: str | Path) -> str:
        """Runs a command of the product; what it said of a failure, or nothing."""
        return self.python("-m", "icnet_deploy", *arguments)[1]

    def kept(self, step: str) -> dict[str, Any]:
        """What an earlier run of the step found, which this one adds to."""
        before = self.results.get(step, {})
        return {name: value for name, value in before.items() if name not in ("error", "left_out")}

    def scenes(self) -> Path:
        """A folder of drawn scenes."""
        folder = self.folder / "scenes"
        if not isdir(folder):
            count = ("--count", str(self.images), "--size", self.size_text)
            self.icnet("scenes", str(folder), *count, "--seed", "90000")
        return folder


def lines_of(path: Path) -> list[Any]:
    """The JSON lines of a file; none where there is no file."""
    text = path.read_text(encoding="utf-8") if isfile(path) else ""
    return [parse(line) for line in text.splitlines() if line.strip()]


def parity(setting: Setting) -> dict[str, Any]:
    """ONNX Runtime on the device against PyTorch float32 on the CPU, a result a file."""
    results = setting.kept("parity")
    for artefact in setting.artefacts:
        if refusal := _refusal(artefact, "onnxruntime", setting.device):
            results[artefact.path.name] = {"left_out": refusal}
            continue
        where = ("--runtime", "onnxruntime", "--device", setting.device)
        results[artefact.path.name] = _parity_of(setting, artefact.path, *where)
        setting.results["parity"] = results
        setting.save()
    return results or {"left_out": "no artefact: name a folder with --artefacts"}


def _parity_of(setting: Setting, path: Path, *where: str) -> dict[str, Any]:
    """What `icnet parity` wrote; a breach of the budget is in its verdict, and no failure."""
    if setting.left < 0:
        return {"left_out": "the time was up"}
    out = setting.folder / f"{path.name}.parity.json"
    data = ("--dataset", "scenes", "--data", setting.scenes(), "--limit", str(setting.images))
    failed = setting.icnet("parity", path, *where, *data, "--json", out)
    if not isfile(out):
        return {"error": failed}
    return dict(parse(out.read_text(encoding="utf-8")))


def speed(setting: Setting) -> dict[str, Any]:
    """ONNX Runtime beside PyTorch in turn, then batch by batch."""
    return setting.kept("speed") | _measured(
        setting,
        _files(setting),
        ("--runtime", "onnxruntime", "--device", setting.device),
        "pytorch,pytorch-channels-last",
    )


def compiled(setting: Setting) -> dict[str, Any]:
    """PyTorch compiled, which takes minutes, beside PyTorch as it comes."""
    if setting.device == "cpu":
        return {"left_out": "a rehearsal compiles nothing"}
    where = ("--runtime", "onnxruntime", "--device", "cuda")
    return _measured(setting, _files(setting)[:1], where, "pytorch,torch-compile", False)


def _files(setting: Setting) -> list[Path]:
    """The artefacts that ONNX Runtime runs on the device."""
    found = setting.artefacts
    return [each.path for each in found if not _refusal(each, "onnxruntime", setting.device)]


def _refusal(artefact: ArtefactFile, runtime: str, device: str) -> str | None:
    """Why a runtime refuses an artefact, or None."""
    row = precision_of(artefact.precision)
    return row.refusal(runtime, device, RUNTIMES[runtime].engines) if row else None


def _measured(
    setting: Setting,
    files: Sequence[Path],
    where: Sequence[str],
    peers: str,
    throughput: bool = True,
) -> dict[str, Any]:
    """The measurements of files, as `icnet benchmark` wrote them."""
    if not files:
        return {"left_out": "no artefact runs there: name a folder with --artefacts"}
    rounds = ("--size", setting.size_text, "--rounds", str(setting.rounds))
    common: tuple[str | Path, ...] = (*files, *where, *rounds)
    modes: dict[str, tuple[str, ...]] = {"latency": ("--peers", peers)}
    if throughput:
        batches = ",".join(map(str, setting.batches))
        modes["throughput"] = ("--scope", "frames-to-labels", "--batch", batches, "--images", "16")
    results: dict[str, Any] = {}
    for mode, options in modes.items():
        if setting.left < 0:
            results[mode] = {"left_out": "the time was up"}
            continue
        out = setting.folder / f"{mode}.jsonl"
        out.unlink(missing_ok=True)
        failed = setting.icnet("benchmark", mode, *common, *options, "--json", out)
        rows = lines_of(out)
        results[mode] = {"rows": rows} if rows else {"error": failed}
    return results


def engines(setting: Setting) -> dict[str, Any]:
    """Runtime of engines -> file -> its build and parity; then all of them timed in turn."""
    if setting.device == "cpu":
        return {"left_out": "a rehearsal builds no engine"}
    results = setting.kept("engines")
    for flavour in reversed([name for name, row in RUNTIMES.items() if row.engines]):
        rows = results.setdefault(flavour, {})
        built = []
        for artefact in setting.artefacts:
            engine = setting.folder / f"{artefact.path.stem}.{flavour}.engine"
            rows[artefact.path.name] = row = _engine(setting, artefact, engine, flavour)
            built += [engine] * ("bytes" in row)
            setting.results["engines"] = results
            setting.save()
        if built:
            where = ("--runtime", flavour, "--device", "cuda")
            rows["speed"] = _measured(setting, built, where, "pytorch")
    return results


def _engine(setting: Setting, artefact: ArtefactFile, engine: Path, flavour: str) -> dict[str, Any]:
    """Builds for this GPU as `icnet build-engine` does, and compares."""
    refusal = _refusal(artefact, flavour, "cuda")
    if refusal or setting.left < 0:
        return {"left_out": refusal or "the time was up"}
    start = time.monotonic()
    failed = setting.icnet("build-engine", artefact.path, "-o", engine, "--with", flavour)
    if failed:
        return {"error": failed}
    seconds = round(time.monotonic() - start, 1)
    compared = _parity_of(setting, engine, "--runtime", flavour)
    return {"bytes": engine.stat().st_size, "build_seconds": seconds, "parity": compared}


def marked(setting: Setting) -> dict[str, Any]:
    """The tests that need TensorRT or a GPU: pytest's closing line, and what failed."""
    return run_tests(setting, MARKED, ROOT)


def run_tests(setting: Setting, options: Sequence[str], folder: Path) -> dict[str, Any]:
    """Runs pytest in a folder."""
    printed, failed = setting.python("-m", "pytest", *options, folder=folder)
    lines = printed.strip().splitlines() or [failed]
    found = {
        "closing": lines[-1],
        "failed": [line for line in lines if line.startswith(("FAILED", "ERROR"))],
    }
    return found | ({"error": failed} if failed else {})
