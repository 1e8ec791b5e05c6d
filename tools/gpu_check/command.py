"""`python -m tools.gpu_check.command`: all there is to measure on an NVIDIA GPU, in one command.

It needs torch, NumPy and a GPU; docs/gpu.md says what each step needs besides. Its results are
written as they come, and one step that fails does not stop the next.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

_ROOT = Path(__file__).resolve().parents[1]

if find_spec("icnet_deploy") is None:  # a bare machine, where nothing is installed
    sys.path.insert(0, str(_ROOT / "src"))
    import icnet_deploy as _package

    _package.__path__.append(str(_ROOT))

from icnet_deploy.command import command, count, parser, size  # noqa: E402
from icnet_deploy.errors import InputError  # noqa: E402
from icnet_deploy.files import write_json  # noqa: E402
from tools.gpu_check.bare import stand_in  # noqa: E402
from tools.gpu_check.scenes import CARRIED, write_scenes  # noqa: E402

if TYPE_CHECKING:
    from tools.gpu_check.setting import Setting

STEPS = {
    "found": "the libraries, and the ceilings: a copy's bytes a second, products a second",
    "floor": "operations and fewest bytes of a frame, and what they take at those ceilings",
    "kernel": "the label map's kernel: equal to the dense way, and its time beside its bytes",
    "parity": "ONNX Runtime's artefacts against PyTorch float32 on the CPU",
    "speed": "PyTorch's eager and ONNX Runtime's ways in turn, by batch and scope",
    "engines": "TensorRT-RTX and TensorRT: build, parity, and speed in turn",
    "compiled": "PyTorch compiled, in turn with the best of the others",
    "marked": "the tests marked for TensorRT or a GPU",
}
"""Step -> what it does, in the order in which they are done; cheap ones that tell much first."""


def run_steps(setting: Setting, steps: Sequence[str]) -> None:
    """Runs steps into `setting.results`, saving after each; one that raises is recorded."""
    for name in steps:
        start = time.monotonic()
        if setting.late:
            setting.results.setdefault(name, {"left_out": "the time was up"})
        else:
            print(f"{name}: {STEPS[name]}", file=sys.stderr, flush=True)
            try:
                step = getattr(import_module(f"tools.gpu_check.{name}"), name)
                setting.results[name] = step(setting)
            except Exception as error:  # nothing that one step does may lose the others
                setting.results[name] = setting.kept(name) | {
                    "error": f"{type(error).__name__}: {error}"
                }
            setting.results.setdefault("seconds", {})[name] = round(time.monotonic() - start, 1)
        setting.save()


def failures(results: dict[str, Any]) -> list[str]:
    """Where in the results an error stands or a contestant failed, as `step, row: message`."""

    def visit(told: Any, place: tuple[str, ...]) -> Iterator[str]:
        if not isinstance(told, dict):
            return
        for name, value in told.items():
            if name == "error":
                yield f"{', '.join(place)}: {value}"
            elif name == "failed" and isinstance(value, dict):
                yield from (f"{', '.join(place)}, {who}: {why}" for who, why in value.items())
            else:
                yield from visit(value, (*place, name))

    return list(visit(results, ()))


def merged(out: Path, fresh: dict[str, Any]) -> dict[str, Any]:
    """What `out` holds already, if it is of the same machine, else `fresh`.

    Raises:
        InputError: it holds what is of another machine, other versions or another size.
    """
    if not out.is_file():
        return fresh
    try:
        held = json.loads(out.read_text(encoding="utf-8"))
        differ = [name for name, value in fresh.items() if held.get(name) != value]
    except (ValueError, AttributeError) as error:
        raise InputError(f"{out} is no file of this command: {error}") from error
    if differ:
        name = differ[0]
        raise InputError(
            f"{out} was measured with another {name} ({held.get(name)}, now {fresh[name]}): name "
            "another file with --out"
        )
    return dict(held)


def summary_text(results: dict[str, Any]) -> str:
    """A few lines for a person."""
    lines = ["A rehearsal on the CPU: no number of it is of a GPU."] * bool(results["rehearsal"])
    lines += [f"{name}: {_state(results[name])}" for name in STEPS if name in results]
    for step in ("speed", "engine_speed", "compiled"):
        for batch, told in results.get(step, {}).items():
            for row in told.get("rows", ()) if batch.startswith("batch") else ():
                lines.append(
                    f"{batch}  {row['scope']:8} {row['frames_per_s']:9.1f} frames/s  "
                    f"{row['time']['median_ms']:9.3f} ms  {row['name']}"
                    + f"  {row.get('times_the_floor')} x floor"
                    * ("times_the_floor" in row)
                )
    bad = failures(results)
    lines += [f"failed: {line}" for line in bad]
    return "\n".join([*lines, f"done, {len(bad)} failed"])


def _state(told: dict[str, Any]) -> str:
    left_out = told.get("left_out")
    return str(told.get("error") or (f"left out, {left_out}" if left_out else "done"))


def _parser() -> argparse.ArgumentParser:
    p = parser(
        "gpu_check",
        "Measures all that it can on an NVIDIA GPU, and writes one JSON file.",
        "python tools/gpu_check/command.py --artefacts release --seconds 480",
    )
    p.add_argument("--artefacts", type=Path, metavar="FOLDER", help="ONNX files to measure")
    p.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="added to, if it is of the same machine (default: results/gpu-NAME.json)",
    )
    p.add_argument("--only", metavar="STEP,...", help=f"of {', '.join(STEPS)}")
    p.add_argument("--seconds", type=count, default=1200, help="begin nothing after (%(default)s)")
    p.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal")
    p.add_argument("--size", type=size, help="(default: 1024x2048; of a rehearsal 256x512)")
    p.add_argument("--batch", default="1,4,8", metavar="N,...", help="of speed (%(default)s)")
    p.add_argument("--rounds", type=count, default=10, help="turns in speed (%(default)s)")
    p.add_argument("--images", type=count, default=2, help="scenes of parity (%(default)s)")
    p.add_argument("--draw", action="store_true", help=f"only write {CARRIED} beside the artefacts")
    p.add_argument("--plan", action="store_true", help="only say what it would do, and with what")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the check; 0 done, 1 a step failed, 2 a wrong request."""
    arguments = _parser().parse_args(argv)
    stood_in = stand_in()
    steps = arguments.only.split(",") if arguments.only else list(STEPS)
    if unknown := [name for name in steps if name not in STEPS]:
        raise InputError(f"unknown step {unknown[0]!r}; known: {', '.join(STEPS)}")
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", arguments.batch):
        raise InputError(f"--batch is {arguments.batch!r}: expected numbers, such as 1,4,8")
    if arguments.artefacts and not arguments.artefacts.is_dir():
        raise InputError(f"--artefacts is {arguments.artefacts}: expected a folder of ONNX files")
    steps = [name for name in STEPS if name in steps]
    if arguments.plan:
        print(_plan(arguments, steps, stood_in))
        return 0
    rehearsal = arguments.device == "cpu"
    height_width = arguments.size or ((256, 512) if rehearsal else (1024, 2048))
    if arguments.draw:
        if arguments.artefacts is None:
            raise InputError("--draw writes into the folder of --artefacts: name it")
        path = write_scenes(arguments.artefacts, arguments.images, height_width)
        print(f"written: {path}")
        return 0
    return _run(arguments, steps, height_width, stood_in)


def _run(
    arguments: argparse.Namespace,
    steps: Sequence[str],
    size: tuple[int, int],
    stood_in: Sequence[str],
) -> int:
    out = _out(arguments)
    from tools.gpu_check import found
    from tools.gpu_check.setting import Setting

    found.STOOD_IN[:] = stood_in
    rehearsal = arguments.device == "cpu"
    fresh: dict[str, Any] = {"schema": 2, "rehearsal": rehearsal, "size": list(size)}
    results = merged(out, fresh | {"machine": found.identity(not rehearsal)})
    setting = Setting(
        arguments.device,
        size,
        tuple(int(each) for each in arguments.batch.split(",")),
        arguments.rounds,
        arguments.artefacts,
        arguments.images,
        time.monotonic() + arguments.seconds,
        results,
        lambda: write_json(out, results),
    )
    setting.save()
    run_steps(setting, steps)
    print(summary_text(results))
    print(f"written: {out}")
    now = (*steps, *["engine_speed"] * ("engines" in steps))
    return 1 if failures({name: results[name] for name in now if name in results}) else 0


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
    try:
        import torch
    except ImportError as error:
        raise InputError("torch is not installed; --plan says what is") from error
    if not torch.cuda.is_available():
        raise InputError("torch finds no GPU here; --device cpu rehearses, --plan only tells")
    name = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(0).lower()).strip("-")
    return out or _ROOT / "benchmarks" / "results" / f"gpu-{name}.json"


def _there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ImportError:  # an import hook that forbids it
        return False


def _plan(arguments: argparse.Namespace, steps: Sequence[str], stood_in: Sequence[str]) -> str:
    packages = ("torch", "numpy", "onnx", "onnxruntime", "cv2", "pytest")
    engines = ("tensorrt_rtx", "tensorrt", "cuda", "pycuda")
    names = (
        sorted(path.name for path in arguments.artefacts.glob("[!.]*.onnx"))
        if arguments.artefacts
        else []
    )
    return "\n".join(
        [
            *(f"{name}: {STEPS[name]}" for name in steps),
            f"batches: {arguments.batch}; at most {arguments.seconds} s",
            f"artefacts: {', '.join(names) or 'none (--artefacts FOLDER)'}",
            *(f"{name}: a stand-in of this command's own" for name in stood_in),
            *(f"{name}: {'there' if _there(name) else 'missing'}" for name in packages + engines),
        ]
    )


if __name__ == "__main__":
    # By path this file is `__main__`; the packaged module is the one that everything else imports.
    from tools.gpu_check.command import main as packaged_main

    raise SystemExit(packaged_main())
