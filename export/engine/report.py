"""What TensorRT says: its log and progress while it builds, and its inspector's report after.

The classes that it calls back are made for the module at hand, since TensorRT and TensorRT-RTX each
have their own base. What such a method raises is printed and swallowed by TensorRT, so none may.

The report's layout is TensorRT's own and not stable: a tensor's type is in "Format/Datatype" up to
10.x ("Half", "Row major linear FP16 format", "... Int8 format"), a layer's origin in "Metadata" as
`[ONNX Layer: NAME]`, several with a control character between. A layer whose type it does not tell
("N/A due to dynamic shapes") counts as unknown and is no error.
"""

import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tqdm import tqdm

from icnet_deploy.documents import parse
from icnet_deploy.errors import BackendError, CheckFailed
from icnet_deploy.export.engine.graph import SourceGraph

_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_PRECISIONS = {
    "int8": re.compile(r"\bint8\b", re.IGNORECASE),
    "fp16": re.compile(r"\b(half|fp16|float16)\b", re.IGNORECASE),
    "fp32": re.compile(r"\b(float|fp32|float32)\b", re.IGNORECASE),
}
_TYPE_KEYS = ("Format/Datatype", "DataType", "Datatype", "Format")


def make_log(trt: ModuleType) -> Any:
    """A logger that keeps warnings and errors as (severity, text) in `lines`."""

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, msg: str) -> None:
            """Called from any thread."""
            if severity.name in ("INTERNAL_ERROR", "ERROR", "WARNING"):
                self.lines.append((severity.name, msg))

    return Log()


def errors_of(log: Any) -> str:
    """What went wrong, in TensorRT's words, for an error's message."""
    lines = [text.strip() for severity, text in log.lines if severity.endswith("ERROR")]
    return "; ".join(dict.fromkeys(lines)) or "TensorRT gave no reason"


def make_monitor(trt: ModuleType, quiet: bool | None) -> Any:
    """A progress monitor: a bar for the build's phases, and `stop`, an event that cancels it.

    Args:
        trt: the module.
        quiet: True: no bar; None: a bar on a terminal.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.stop = threading.Event()
            self.bar: Any = None
            self.outermost = ""

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """A phase begins; the one without a parent is the build."""
            if parent_phase is None and self.bar is None:
                self.outermost = phase_name
                self.bar = tqdm(desc=phase_name, total=num_steps, unit="step", disable=quiet)
            elif self.bar is not None:
                self.bar.set_postfix_str(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """A step ends; False stops the build."""
            if self.bar is not None and phase_name == self.outermost:
                self.bar.update(step + 1 - self.bar.n)
            return not self.stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            """A phase ends, also when the build is stopped."""
            if self.bar is not None and phase_name == self.outermost:
                self.bar.close()
                self.bar = None

    return Monitor()


@dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    Attributes:
        name: TensorRT's.
        origins: the ONNX nodes that became it.
        precision: what it computes in: `int8`, `fp16`, `fp32`, or `unknown`.
    """

    name: str
    origins: frozenset[str]
    precision: str


@dataclass(frozen=True)
class Report:
    """An engine's layers."""

    layers: tuple[Layer, ...]

    def counts(self) -> dict[str, int]:
        """Precision -> number of layers."""
        return dict(Counter(layer.precision for layer in self.layers))

    def to_list(self) -> list[dict[str, Any]]:
        """JSON values, one a layer."""
        return [
            {"name": layer.name, "onnx": sorted(layer.origins), "precision": layer.precision}
            for layer in self.layers
        ]

    def broken(self, expected: dict[str, str]) -> Iterator[str]:
        """Yields a line for every node that runs in another precision than expected.

        Args:
            expected: ONNX node -> `int8` or `fp16`.
        """
        for layer in self.layers:
            for node in sorted(layer.origins & expected.keys()):
                if layer.precision not in (expected[node], "unknown"):
                    yield f"{node} is {expected[node]} in the graph, but runs in {layer.precision}"


def inspect(
    trt: ModuleType, plan: bytes, graph: SourceGraph, loads: bool, host_code: bool, log: Any
) -> Report | None:
    """Loads a plan and reads its report.

    Args:
        trt: the module that built it.
        plan: the engine.
        graph: what it was built from.
        loads: whether it was built for the GPU here, so that failing to load it is an error.
        host_code: whether it holds some, as a version-compatible plan does; it was built here.
        log: the build's logger.

    Returns:
        The report; None if it cannot be loaded here, being for other GPUs.

    Raises:
        BackendError: TensorRT cannot load what it has built for the GPU here.
        CheckFailed: a layer is in another precision than the graph says.
    """
    log.lines.clear()
    try:
        runtime = trt.Runtime(log)
        runtime.engine_host_code_allowed = host_code
        engine = runtime.deserialize_cuda_engine(plan)
    except TypeError:  # "factory function returned nullptr"
        engine = None
    if engine is None:
        if loads:
            raise BackendError(f"TensorRT cannot load the engine that it built: {errors_of(log)}")
        return None
    report = read_report(
        engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    )
    if broken := list(report.broken(graph.precisions())):
        raise CheckFailed(
            f"TensorRT {trt.__version__} did not keep the graph's precisions: "
            f"{'; '.join(broken[:5])}{'; ...' if len(broken) > 5 else ''} ({len(broken)} in all)"
        )
    return report


def read_report(text: str) -> Report:
    """Reads what `get_engine_information` gives as JSON at detailed verbosity.

    Raises:
        BackendError: it is no such report.
    """
    try:
        layers = parse(text, strict=False)["Layers"]
    except (ValueError, LookupError, TypeError) as error:
        raise BackendError(f"the engine inspector's report cannot be read: {error!r}") from error
    return Report(tuple(_layer(value) for value in layers))


def _layer(value: Any) -> Layer:
    if not isinstance(value, dict):  # names only
        return Layer(str(value), frozenset(), "unknown")
    name = str(value.get("Name", ""))
    origins = _ORIGIN.findall(str(value.get("Metadata", ""))) or name.split(" + ")
    return Layer(name, frozenset(origins), _precision(value))


def _precision(layer: dict[str, Any]) -> str:
    """Of its weights where it has any, else of its first input."""
    weights, inputs = layer.get("Weights"), layer.get("Inputs")
    types = [str(weights.get("Type", ""))] if isinstance(weights, dict) else []
    if isinstance(inputs, list) and inputs and isinstance(inputs[0], dict):
        types += [str(inputs[0].get(key, "")) for key in _TYPE_KEYS]
    for text in types:
        for name, pattern in _PRECISIONS.items():
            if pattern.search(text):
                return name
    return "unknown"
