"""Where a network's time goes, operator by operator, by the runtime's own profile.

Profiling costs time itself, so the profile is taken in runs of its own and only its shares are
compared with other times. The options are those that the runtime's backend loads a model with.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.documents import parse
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.pairing import Run
from icnet_deploy.runtime.backends.openvino.backend import core
from icnet_deploy.runtime.backends.openvino.graph import for_one, prepare

UInt8 = npt.NDArray[np.uint8]

_Times = dict[tuple[str, str, str], list[float]]

_WARMUP = 3


@dataclass(frozen=True)
class Operator:
    """One operator as the runtime runs it, which may be several of the file's in one.

    Attributes:
        name: as the runtime calls it, often by its last operator in the file.
        kind: what it does, e.g. `Convolution` or `Conv`.
        implementation: the runtime's name of the code that does it; empty where it tells none.
        median_ms: milliseconds a run.
        share_percent: of the sum over all operators.
    """

    name: str
    kind: str
    implementation: str
    median_ms: float
    share_percent: float

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def profile(each: Run, image: UInt8, threads: int | None = None, runs: int = 10) -> list[Operator]:
    """Profiles an artefact, slowest operator first.

    Args:
        each: the file and the runtime, one of `PROFILED`, on the CPU.
        image: uint8 H x W x 3, RGB, of the artefact's size.
        threads: CPU threads a run; None leaves it to the runtime.
        runs: profiled runs, after 3 that are not.

    Returns:
        Those that ran. OpenVINO leaves out what took less than a microsecond.

    Raises:
        InputError: the runtime has no profile that is read here.
    """
    if each.runtime not in PROFILED or each.device == "cuda":
        raise InputError(
            f"the profile of {each.runtime} on {each.device} is not read here, only that of "
            f"{' and '.join(PROFILED)} on the CPU; `trtexec --dumpProfile` tells TensorRT's"
        )
    times = PROFILED[each.runtime](each.path, image[None], threads, runs)
    medians = {key: median(values) for key, values in times.items()}
    total = sum(medians.values())
    return [
        Operator(*key, round(1e3 * seconds, 3), round(100 * seconds / total, 2))
        for key, seconds in sorted(medians.items(), key=lambda item: -item[1])
    ]


def _open_vino(path: Path, batch: UInt8, threads: int | None, runs: int) -> _Times:
    import openvino

    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    config |= {"NUM_STREAMS": 1, "PERF_COUNT": True}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    model, _ = prepare(core().read_model(path))
    compiled = core().compile_model(for_one(model) or model, "CPU", config)
    request = compiled.create_infer_request()
    times: _Times = defaultdict(list)
    for number in range(_WARMUP + runs):
        request.infer([batch], share_inputs=True, share_outputs=True)
        if number < _WARMUP:
            continue
        for node in request.profiling_info:
            if node.status == openvino.ProfilingInfo.Status.EXECUTED:
                key = (node.node_name, node.node_type, node.exec_type)
                times[key].append(node.real_time.total_seconds())
    return times


def _onnx_runtime(path: Path, batch: UInt8, threads: int | None, runs: int) -> _Times:
    import onnxruntime

    with TemporaryDirectory(prefix="icnet-profile-") as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        if threads is not None:
            options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: batch}
        for _ in range(_WARMUP + runs):
            session.run(None, feed)
        events = parse(Path(session.end_profiling()).read_text(encoding="utf-8"), strict=False)
    ending = "_kernel_time"  # other events of a node are what it waits for
    times: _Times = defaultdict(list)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(ending):
            key = (event["name"].removesuffix(ending), event["args"]["op_name"], "")
            times[key].append(event["dur"] / 1e6)
    return {key: values[_WARMUP:] for key, values in times.items()}


PROFILED: Mapping[str, Callable[[Path, UInt8, int | None, int], _Times]] = {
    "onnxruntime": _onnx_runtime,
    "openvino": _open_vino,
}
"""Runtime -> what profiles a file in it."""
