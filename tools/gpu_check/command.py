"""`python -m tools.gpu_check`: all that there is to measure on an NVIDIA GPU, in one command.

docs/measuring.md says what each step needs. Results are written as they come; one step that fails
does not stop the next.
"""

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from os.path import isfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from icnet_deploy.command import command, count, parser, size
from icnet_deploy.documents import as_read, parse
from icnet_deploy.errors import InputError
from icnet_deploy.files import write_json
from icnet_deploy.runtime.auto.folder import ArtefactFile, read_artefacts
from icnet_deploy.runtime.machine import gpus, machine, versions
from tools.gpu_check import steps as work
from tools.gpu_check.found import found
from tools.gpu_check.kernel import kernel
from tools.gpu_check.steps import ROOT, Setting

Step = Callable[[Setting], dict[str, Any]]

STEPS: Mapping[str, tuple[Step, str]] = {
    "found": (found, "what is installed; the GPU's limits, and the least time of a frame"),
    "kernel": (kernel, "the label map's kernel: whether it equals the dense way, and its time"),
    "parity": (work.parity, "ONNX Runtime's artefacts against PyTorch float32 on the CPU"),
    "speed": (work.speed, "ONNX Runtime and PyTorch in turn, then batch by batch"),
    "engines": (work.engines, "TensorRT-RTX and TensorRT: build, parity and speed"),
    "compiled": (work.compiled, "compiled PyTorch, in turn with eager PyTorch"),
    "marked": (work.marked, "the tests marked for TensorRT or a GPU"),
}
"""Step -> what does it, and what it does, in their order: cheap ones that tell much first."""


def run_steps(setting: Setting, names: Sequence[str], known: Mapping[str, Any] = STEPS) -> None:
    """Runs steps into `setting.results`, saving after each; one that raises is recorded."""
    for name in names:
        start = time.monotonic()
        if setting.left < 0:
            setting.results.setdefault(name, {"left_out": "the time was up"})
        else:
            step, words = known[name]
            print(f"{name}: {words}", file=sys.stderr, flush=True)
            try:
                setting.results[name] = step(setting)
            except Exception as error:  # nothing that one step does may lose the others
                failed = {"error": f"{type(error).__name__}: {error}"}
                setting.results[name] = setting.kept(name) | failed
            seconds = round(time.monotonic() - start, 1)
            setting.results.setdefault("seconds", {})[name] = seconds
        setting.save()


def failures(results: Any, place: tuple[str, ...] = ()) -> Iterator[str]:
    """Where in the results an error stands, as `step, row: message`."""
    if isinstance(results, dict):
        for name, value in results.items():
            if name == "error" and isinstance(value, str):
                yield f"{', '.join(place)}: {value}"
            elif name != "doctor":  # what is not installed is no failure of a step
                yield from failures(value, (*place, str(name)))


def merged(out: Path, fresh: dict[str, Any]) -> dict[str, Any]:
    """What `out` holds already, if it is of the same machine, else `fresh`.

    Raises:
        InputError: it holds what is of another machine, other versions or another size.
    """
    if not isfile(out):
        return fresh
    try:
        held = parse(out.read_bytes())
        differ = [name for name, value in as_read(fresh).items() if held.get(name) != value]
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"{out} is not a file of this command ({error}): name another file with --out"
        ) from error
    if differ:
        name = differ[0]
        raise InputError(
            f"{out} was measured with another {name} ({held.get(name)}, now {fresh[name]}): name "
            "another file with --out"
        )
    return dict(held)


def summary_text(results: Mapping[str, Any]) -> str:
    """A few lines for a person."""
    lines = ["This was a rehearsal on the CPU: its numbers say nothing about a GPU."] * bool(
        results["rehearsal"]
    )
    for name in STEPS:
        if name in results:
            left_out = results[name].get("left_out")
            state = results[name].get("error") or (f"left out, {left_out}" if left_out else "done")
            lines.append(f"{name}: {state}")
    lines += _rows(results)
    bad = list(failures({name: results[name] for name in STEPS if name in results}))
    lines += [f"failed: {line}" for line in bad]
    return "\n".join([*lines, f"done, {len(bad)} failed"])


def _rows(results: Any) -> Iterator[str]:
    """A line for each latency, wherever in the results it stands."""
    if isinstance(results, dict):
        if results.get("kind") == "latency" and "total" in results.get("values", {}):
            milliseconds = results["values"]["total"]["median_ms"]
            subject = results["subject"]
            where = f"{subject['name']} on {subject.get('runtime')}, {results['scope']}"
            yield f"{milliseconds:9.3f} ms  {1e3 / milliseconds:8.1f} frames/s  {where}"
        for value in results.values():
            yield from _rows(value)
    elif isinstance(results, list):
        for value in results:
            yield from _rows(value)


def _parser() -> argparse.ArgumentParser:
    p = parser(
        "python -m tools.gpu_check",
        "Measures everything on an NVIDIA GPU, and writes one JSON file.",
        "python -m tools.gpu_check --artefacts release --seconds 480",
    )
    p.add_argument("--artefacts", type=Path, metavar="FOLDER", help="ONNX files to measure")
    p.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="added to, if it is of the same machine (default: benchmarks/results/gpu-NAME.json)",
    )
    p.add_argument("--only", metavar="STEP,...", help=f"of {', '.join(STEPS)}")
    p.add_argument("--seconds", type=count, default=1200, help="end it after (%(default)s)")
    p.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal")
    p.add_argument("--size", type=size, help="(default: 1024x2048; of a rehearsal 256x512)")
    p.add_argument("--batch", default="1,4,8", metavar="N,...", help="of speed (%(default)s)")
    p.add_argument("--rounds", type=count, default=10, help="turns in speed (%(default)s)")
    p.add_argument("--images", type=count, default=2, help="scenes of parity (%(default)s)")
    p.add_argument("--plan", action="store_true", help="only print the steps and the versions")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the check; 0 done, 1 a step failed, 2 a wrong request."""
    arguments = _parser().parse_args(argv)
    asked = arguments.only.split(",") if arguments.only else list(STEPS)
    if unknown := [name for name in asked if name not in STEPS]:
        raise InputError(f"unknown step {unknown[0]!r}; known: {', '.join(STEPS)}")
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", arguments.batch):
        raise InputError(f"--batch is {arguments.batch!r}: expected numbers, such as 1,4,8")
    names = [name for name in STEPS if name in asked]
    folder = arguments.artefacts
    artefacts = [a for a in read_artefacts(folder) if not a.is_engine] if folder else []
    if arguments.plan:
        print(_plan(arguments, names, artefacts))
        return 0
    rehearsal = arguments.device == "cpu"
    at = arguments.size or ((256, 512) if rehearsal else (1024, 2048))
    out = _out(arguments)
    fresh: dict[str, Any] = {"schema": 3, "rehearsal": rehearsal, "size": list(at)}
    results = merged(out, fresh | {"machine": machine(), "versions": versions()})
    with TemporaryDirectory(prefix="icnet-gpu-check-") as temporary:
        setting = Setting(
            arguments.device,
            at,
            Path(temporary),
            artefacts,
            [int(each) for each in arguments.batch.split(",")],
            arguments.rounds,
            arguments.images,
            time.monotonic() + arguments.seconds,
            results,
            lambda: write_json(out, results),
        )
        setting.save()
        run_steps(setting, names)
    print(summary_text(results))
    print(f"written: {out}")
    return 1 if any(failures({name: results.get(name) for name in names})) else 0


def _out(arguments: argparse.Namespace) -> Path:
    """Where results go; a rehearsal never where a GPU's would."""
    out: Path | None = arguments.out
    if arguments.device == "cpu":
        if out is None or out.name.startswith("gpu-"):
            raise InputError(
                "a rehearsal (--device cpu) is no result of a GPU: name a file with --out that "
                "does not begin with gpu-"
            )
        return out
    here = gpus()
    if not here:
        raise InputError(
            "nvidia-smi shows no GPU: give --device cpu for a rehearsal, or --plan to see the steps"
        )
    name = re.sub(r"[^a-z0-9]+", "-", here[0]["name"].lower()).strip("-")
    return out or ROOT / "benchmarks" / "results" / f"gpu-{name}.json"


def _plan(
    arguments: argparse.Namespace, names: Sequence[str], artefacts: Sequence[ArtefactFile]
) -> str:
    files = ", ".join(artefact.path.name for artefact in artefacts)
    return "\n".join(
        [
            *(f"{name}: {STEPS[name][1]}" for name in names),
            f"batches: {arguments.batch}; at most {arguments.seconds} s",
            f"artefacts: {files or 'none (--artefacts FOLDER)'}",
            *(f"{name} {version}" for name, version in versions().items()),
        ]
    )
