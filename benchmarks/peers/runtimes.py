"""ONNX Runtime and OpenVINO by themselves, each as its own documentation runs a network."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os.path import isfile
from pathlib import Path
from typing import Any

import numpy as np

from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.benchmarks.subjects import artefact_facts, labelling
from icnet_deploy.documents import parse
from icnet_deploy.errors import BackendError, InputError, ModelError
from icnet_deploy.files import real_path, scratch_folder
from icnet_deploy.images import Fitting, UInt8, unfit_labels
from icnet_deploy.labels import check_labels
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.processes import run_tool
from icnet_deploy.runtime.backends.openvino.backend import core
from icnet_deploy.runtime.backends.registry import check_available
from icnet_deploy.runtime.labelmap import label_map
from icnet_deploy.timing import Subject

Size = tuple[int, int]

_OPENVINO = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
"""What its docs ask for one image at a time, and float32 by name: some processors would get
bfloat16 by default, and that would be another job."""

_THREADS = "INFERENCE_NUM_THREADS"

_PREPROCESSING = ("Convert", "Transpose", "Subtract")
"""The operators between the image and the network, in OpenVINO's names."""


@contextmanager
def open_onnxruntime(
    name: str, path: Path, size: Size, threads: int | None = None
) -> Iterator[Subject]:
    """A float32 file that makes label maps, in ONNX Runtime as its "get started" runs it.

    Args:
        name: what to call it.
        path: an ONNX file.
        size: (height, width) of the images in pixels, which the file takes.
        threads: None is ONNX Runtime's default, one a physical core, and is told as None.

    Raises:
        MissingPackage: ONNX Runtime is not installed.
        ModelError: it cannot load the file.
    """
    check_available("onnxruntime", "cpu")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common root but this
        raise ModelError(f"ONNX Runtime cannot load {path}: {error}") from error
    given = session.get_inputs()[0].name

    def answer(image: UInt8) -> UInt8:
        return np.asarray(session.run(None, {given: image[None]})[0][0])

    yield labelling(_facts(name, path, "onnxruntime", threads), answer)


@contextmanager
def open_openvino(
    name: str, path: Path, size: Size, threads: int | None = None
) -> Iterator[Subject]:
    """A float32 file that makes label maps, in OpenVINO as its docs run one for latency.

    Args:
        name: what to call it.
        path: an ONNX file.
        size: (height, width) of the images in pixels, which the file takes.
        threads: None is OpenVINO's default.

    Raises:
        MissingPackage: OpenVINO is not installed.
        ModelError: it cannot load the file.
    """
    compiled = _compiled(_read(path, size), threads)

    def answer(image: UInt8) -> UInt8:
        return np.asarray(compiled(image[None])[0][0])

    yield labelling(_facts(name, path, "openvino", compiled.get_property(_THREADS)), answer)


@contextmanager
def open_bare_openvino(
    name: str,
    path: Path,
    size: Size,
    threads: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Subject]:
    """The inference call alone: its input is filled before the clock starts, its output left.

    Args:
        name: `openvino-bare`, or `openvino-bare-core`: without the preprocessing in the graph.
        path: an ONNX file of ours, of any precision.
        size: (height, width) that a file of free size is run at.
        threads: None is OpenVINO's default.
        clock: seconds.

    Raises:
        MissingPackage: OpenVINO is not installed.
        ModelError: OpenVINO cannot load the file, or there is no preprocessing in it.
    """
    metadata = read_onnx_metadata(path)
    size, fitting = metadata.size or size, Fitting.of(metadata)
    model = _read(path, size)
    before = _cut(model, path) if name == "openvino-bare-core" else None
    compiled = _compiled(model, threads)
    request = compiled.create_infer_request()
    inside = request.get_input_tensor().data
    prepare = None if before is None else _compiled(before, threads).create_infer_request()

    def fill(image: UInt8) -> tuple[int, int]:
        pixels, content = fitting.apply(image, size)
        if prepare is None:
            inside[:] = pixels[None]
        else:
            inside[:] = prepare.infer([pixels[None]], share_outputs=True)[0]
        return content

    def label(image: UInt8) -> Mapping[str, float]:
        fill(image)
        start = clock()
        request.infer(share_outputs=True)  # otherwise it returns a copy
        return {"total": 1e3 * (clock() - start)}

    def answer(image: UInt8) -> UInt8:
        content = fill(image)
        request.infer(share_outputs=True)
        output = np.array(request.get_output_tensor().data[0])
        shape = (image.shape[0], image.shape[1])
        if metadata.head == "labels":
            check_labels(output, metadata.label_set)
        else:
            finished = metadata.fit == "letterbox" or metadata.upsampling == "none"
            output = label_map(output, size if finished else shape, upsampling=metadata.upsampling)
            if not finished:
                return output
        return unfit_labels(output, content, shape)

    facts = _facts(f"{path.stem}, {name}", path, "openvino", compiled.get_property(_THREADS))
    yield Subject(facts, label, "network", answer)


def _facts(name: str, path: Path, runtime: str, threads: int | None) -> dict[str, Any]:
    precision = read_onnx_metadata(path).precision
    facts = artefact_facts(
        path, precision=precision, runtime=runtime, device="cpu", threads=threads
    )
    return facts | {"name": name}


def _read(path: Path, size: Size) -> Any:
    """Reads a file for one image of that size: OpenVINO plans better for shapes that are fixed."""
    check_available("openvino", "cpu")
    try:
        model = core().read_model(path)
        model.reshape([1, *size, 3])
    except RuntimeError as error:
        raise ModelError(
            f"OpenVINO cannot load {path} for images of {size[0]}x{size[1]}: {error}"
        ) from error
    return model


def _compiled(model: Any, threads: int | None) -> Any:
    own = {} if threads is None else {_THREADS: threads}
    return core().compile_model(model, "CPU", {**_OPENVINO, **own})


def _cut(model: Any, path: Path) -> Any:
    """Takes the preprocessing off a model, and returns it as a model of its own."""
    from openvino import Model, opset13

    image = model.inputs[0].get_node()
    end = image.output(0)
    while True:
        users = [each.get_node() for each in end.get_target_inputs()]
        if len(users) != 1 or users[0].get_type_name() not in _PREPROCESSING:
            break
        end = users[0].output(0)
    if end.get_node() == image:
        raise ModelError(f"{path} has no preprocessing after its input: use openvino-bare")
    before = Model([end], [image], "preprocessing").clone()
    pixels = opset13.parameter(end.get_shape(), end.get_element_type().to_dtype(), "pixels")
    for user in end.get_target_inputs():
        user.replace_source_output(pixels.output(0))
    model.add_parameters([pixels])
    model.remove_parameter(image)
    return before


# The script of that name does the same, but is not always beside the interpreter.
_WORDS = (
    "import sys; sys.modules['openvino_telemetry'] = None; "  # nothing is sent to its makers
    "import openvino.tools.benchmark.main as m; m.main()"
)
_TOOL = (sys.executable, "-c", _WORDS)


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
    size = read_onnx_metadata(path).size
    if size is None:
        raise InputError(f"benchmark_app needs one size, but {path} takes any: export it at one")
    hint = ["-hint", "latency"]
    if threads is not None:
        hint = ["-hint", "none", "-nstreams", "1", "-nthreads", str(threads), "-api", "sync"]
    how = [
        *(*hint, "-infer_precision", "f32", "-d", "CPU", "-t", str(max(1, round(seconds)))),
        *("-shape", f"image[1,{size[0]},{size[1]},3]"),
    ]
    report = _run(path, how)
    setting = {
        "size": list(size),
        "batch": 1,
        "own_process": True,
        "runs": int(report["execution_results"]["total number of iterations"]),
        "options": how,
    }
    facts = _facts(f"{path.stem}, benchmark_app", path, "openvino", threads)
    return Measurement("latency", "network", facts, setting, values_of_report(report))


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
    with scratch_folder() as folder:
        where = ["-json_stats", "-report_type", "no_counters", "-report_folder", str(folder)]
        done = run_tool([*_TOOL, "-m", str(real_path(path)), *how, *where], cwd=str(folder))
        written = folder / "benchmark_report.json"
        report = parse(written.read_text(), strict=False) if isfile(written) else {}
        if done.returncode or not report:
            said = str(report.get("execution_results", {}).get("error", done.stderr))
            last = [line for line in said.splitlines() if line.strip()][-1:]
            raise BackendError(
                f"benchmark_app failed on {path} (exit code {done.returncode}): {''.join(last)}"
            )
        return dict(report)
