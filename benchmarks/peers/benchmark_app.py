"""OpenVINO's `benchmark_app`, run on an artefact as its documentation says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.errors import BackendError, InputError
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime.backends.registry import check_available

# The script of that name does the same, but is not always beside the interpreter.
_TOOL = (sys.executable, "-c", "import openvino.tools.benchmark.main as m; m.main()")


def benchmark_app(path: Path, seconds: float = 10, threads: int | None = None) -> Measurement:
    """Times the bare inference of an artefact with OpenVINO's own tool, in a process of its own.

    It runs one image after the other (random pixels) on one stream, in float32 (an INT8 artefact's
    quantized operators stay INT8). It cannot take turns, and tells no raw samples, so that its
    numbers are a check on `openvino-bare` rather than a comparison.

    Args:
        path: an ONNX file of ours with a fixed size.
        seconds: how long it measures, after a first run of its own; whole seconds.
        threads: None is OpenVINO's default under the hint LATENCY. The tool refuses both the hint
            and a number, so a number goes with one stream and no hint, which is what the hint sets.

    Returns:
        Scope `network`; values `median_ms`, `mean_ms`, `min_ms`, `max_ms`, and `first_ms` of the
        first run; the setting has `own_process`, the number of `runs` and the tool's `options`.

    Raises:
        MissingPackage: OpenVINO is not installed.
        ModelError: the file is not ours.
        InputError: its size is free.
        BackendError: the tool failed.
    """
    check_available("openvino", "cpu")
    told = read_onnx_metadata(path)
    if told.size is None:
        raise InputError(f"benchmark_app takes one size, and {path} takes any: export it at one")
    height, width = told.size
    how = ["-hint", "latency"]
    if threads is not None:
        how = ["-hint", "none", "-nstreams", "1", "-nthreads", str(threads), "-api", "sync"]
    how += ["-infer_precision", "f32", "-d", "CPU", "-t", str(max(1, round(seconds)))]
    how += ["-shape", f"image[1,{height},{width},3]"]
    report = _run(path, how)
    subject = {
        "name": f"{path.stem}, benchmark_app",
        "file": path.name,
        "sha256": artefact_sha256(path),
        "precision": told.precision,
        "runtime": "openvino",
        "device": "cpu",
        "threads": threads,
    }
    setting = {
        "size": [height, width],
        "batch": 1,
        "own_process": True,
        "runs": int(report["execution_results"]["total number of iterations"]),
        "options": how,
    }
    return Measurement("latency", "network", subject, setting, values_of_report(report))


def values_of_report(report: dict[str, Any]) -> dict[str, float]:
    """Milliseconds by name, from what `-json_stats` writes.

    Raises:
        BackendError: it is not such a report.
    """
    names = {
        "median_ms": "latency (ms)",
        "mean_ms": "avg latency",
        "min_ms": "min latency",
        "max_ms": "max latency",
        "first_ms": "first inference time (ms)",
    }
    try:
        return {ours: float(report["execution_results"][its]) for ours, its in names.items()}
    except (LookupError, TypeError, ValueError) as error:
        raise BackendError(
            f"benchmark_app wrote a report that this version does not know ({error!r}): "
            f"{json.dumps(report):.300}"
        ) from error


def _run(path: Path, how: list[str]) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        where = ["-json_stats", "-report_type", "no_counters", "-report_folder", folder]
        command = [*_TOOL, "-m", str(path.resolve()), *how, *where]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
        written = Path(folder) / "benchmark_report.json"
        report = json.loads(written.read_text()) if written.is_file() else {}
        if done.returncode or not report:
            said = str(report.get("execution_results", {}).get("error", done.stderr))
            last = [line for line in said.splitlines() if line.strip()][-1:]
            raise BackendError(
                f"benchmark_app failed on {path} (exit code {done.returncode}): {''.join(last)}"
            )
        return dict(report)
