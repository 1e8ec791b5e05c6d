"""`icnet benchmark stages`: where the time of one image goes, from its file to the result files.

With `--layers` also operator by operator, by the runtime's own profile. Profiling costs time
itself, so it is taken in runs of its own, and only its shares are compared with other times.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from icnet_deploy.benchmarks.arguments import (
    add_rounds,
    image_files,
    mode_parser,
    pictures,
    run_mode,
    runs_of,
)
from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.benchmarks.measurement_tables import how, p90
from icnet_deploy.benchmarks.subjects import open_artefact
from icnet_deploy.command import Goal, command, count, options
from icnet_deploy.documents import parse
from icnet_deploy.drawing import with_legend
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.pairing import Run
from icnet_deploy.files import scratch_folder
from icnet_deploy.images import Fitting, UInt8, read_image
from icnet_deploy.report.tables import Table, number
from icnet_deploy.runtime.backends.openvino.backend import core
from icnet_deploy.runtime.backends.openvino.graph import for_one, prepare
from icnet_deploy.runtime.backends.registry import RUNTIMES
from icnet_deploy.runtime.predict.inputs import Item
from icnet_deploy.runtime.predict.labelling import write_results
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.timing import WARMUP, Subject, measure, summary

STAGES = ("decode", "preprocess", "inference", "label_map", "draw", "encode")
"""What `icnet predict` does with an image file, in order."""


def one_by_one(predictor: Predictor, item: Item) -> dict[str, float]:
    """Takes one image from its file to the result files of `icnet predict`, a stage at a time.

    Returns:
        Stage -> milliseconds, and their sum, `total`.

    Raises:
        ImageError: the file cannot be read. BackendError: the runtime failed.
    """
    start = time.perf_counter()
    image = read_image(item.path)
    decoded = time.perf_counter()
    prediction = predictor.predict(image)
    labelled = time.perf_counter()
    overlay = with_legend(prediction.overlay(), prediction.labels, prediction.label_set)
    drawn = time.perf_counter()
    write_results(item, prediction, overlay)
    encoded = time.perf_counter()
    stages = {
        "decode": 1e3 * (decoded - start),
        **{name: prediction.timings_ms[name] for name in ("preprocess", "inference", "label_map")},
        "draw": 1e3 * (drawn - labelled),
        "encode": 1e3 * (encoded - drawn),
    }
    return stages | {"total": sum(stages.values())}


def _measure(arguments: argparse.Namespace) -> list[Measurement]:
    runs = runs_of(arguments)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        images = pictures(arguments)
        items = image_files(images, [arguments.format], folder, arguments.image or ())
        opened = [stack.enter_context(open_artefact(each, arguments.threads)) for each in runs]
        subjects = [
            Subject(each.facts, partial(one_by_one, each.predictor), "files-to-files")
            for each in opened
        ]
        rows = measure(subjects, items, arguments.rounds, lead_in=0, name="stages")
        setting = {
            "size": list(images[0].shape[:2]),
            "batch": 1,
            "warmup": WARMUP,
            "rounds": arguments.rounds,
            "format": ", ".join(sorted({item.path.suffix[1:] for item in items})),
        }
        return [
            Measurement(
                "stages",
                row.subject.scope,
                row.subject.facts,
                setting,
                _values(row.stages) | _operators(arguments, run, one.predictor, items[0]),
            )
            for run, one, row in zip(runs, opened, rows, strict=True)
        ]


def _values(samples: dict[str, list[float]]) -> dict[str, Any]:
    whole = sum(samples["total"])
    shares = {f"{s}_percent": round(100 * sum(samples[s]) / whole, 2) for s in STAGES}
    return {stage: summary(samples[stage]) for stage in (*STAGES, "total")} | shares


def _operators(
    arguments: argparse.Namespace, run: Run, predictor: Predictor, item: Item
) -> dict[str, Any]:
    """The slowest operators, where they were asked for and the runtime tells them."""
    if not arguments.layers or predictor.runtime not in _PROFILED or predictor.device != "cpu":
        return {}
    fitting = Fitting.of(predictor.metadata)
    image = fitting.apply(read_image(item.path), predictor.size).pixels
    place = run._replace(runtime=predictor.runtime, device=predictor.device)
    operators = profile(place, image, arguments.threads)
    return {
        "operators": operators[: arguments.layers],
        "operators_sum_ms": round(sum(one["median_ms"] for one in operators), 3),
        "operators_count": len(operators),
    }


_Times = dict[tuple[str, str, str], list[float]]


def profile(
    each: Run, image: UInt8, threads: int | None = None, runs: int = 10
) -> list[dict[str, Any]]:
    """Profiles an artefact, slowest operator first.

    Args:
        each: the file and the runtime, one of `_PROFILED`, on the CPU.
        image: uint8 H x W x 3, RGB, of the artefact's size.
        threads: CPU threads a run; None leaves it to the runtime.
        runs: profiled runs, after 3 that are not.

    Returns:
        Of each that ran, as the runtime runs it, which may be several of the file's in one: `name`
        (as the runtime calls it, often by its last operator in the file), `kind` (what it does,
        e.g. `Convolution` or `Conv`), `implementation` (the runtime's name of the code that does
        it; empty where it tells none), `median_ms` of a run, and `share_percent` of the sum over
        all. OpenVINO leaves out what took less than a microsecond.

    Raises:
        InputError: the runtime has no profile that is read here.
    """
    if each.runtime not in _PROFILED or each.device == "cuda":
        raise InputError(
            f"icnet reads no profile of {each.runtime} on {each.device}: use "
            f"{' or '.join(_PROFILED)} on the CPU; for TensorRT, use `trtexec --dumpProfile`"
        )
    times = _PROFILED[each.runtime](each.path, image[None], threads, runs)
    medians = {key: median(values) for key, values in times.items()}
    total = sum(medians.values())
    return [
        {
            **dict(zip(("name", "kind", "implementation"), key, strict=True)),
            "median_ms": round(1e3 * seconds, 3),
            "share_percent": round(100 * seconds / total, 2),
        }
        for key, seconds in sorted(medians.items(), key=lambda item: -item[1])
    ]


def _open_vino(path: Path, batch: UInt8, threads: int | None, runs: int) -> _Times:
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    config |= {"NUM_STREAMS": 1, "PERF_COUNT": True}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    model, _ = prepare(core().read_model(path))
    compiled = core().compile_model(for_one(model) or model, "CPU", config)
    request = compiled.create_infer_request()
    executed = RUNTIMES["openvino"].imported().ProfilingInfo.Status.EXECUTED
    times: _Times = defaultdict(list)
    for turn in range(WARMUP + runs):
        request.infer([batch], share_inputs=True, share_outputs=True)
        for node in request.profiling_info:
            if turn >= WARMUP and node.status == executed:
                seconds = node.real_time.total_seconds()
                times[node.node_name, node.node_type, node.exec_type].append(seconds)
    return times


def _onnx_runtime(path: Path, batch: UInt8, threads: int | None, runs: int) -> _Times:
    import onnxruntime

    with scratch_folder() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        if threads is not None:
            options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: batch}
        for _ in range(WARMUP + runs):
            session.run(None, feed)
        events = parse(Path(session.end_profiling()).read_text(encoding="utf-8"), strict=False)
    ending = "_kernel_time"  # other events of a node are what it waits for
    times: _Times = defaultdict(list)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(ending):
            key = (event["name"].removesuffix(ending), event["args"]["op_name"], "")
            times[key].append(event["dur"] / 1e6)
    return {key: values[WARMUP:] for key, values in times.items()}


_PROFILED: Mapping[str, Callable[[Path, UInt8, int | None, int], _Times]] = {
    "onnxruntime": _onnx_runtime,
    "openvino": _open_vino,
}
"""Runtime -> what profiles a file in it."""


def _text(layers: int | None, measured: Sequence[Measurement]) -> str:
    parts = []
    for each in measured:
        row, values = each.subject, each.values
        parts.append(f"{row['name']} ({row['precision']}) on {row['runtime']}, {row['device']}")
        rows = [
            [
                stage.replace("_", " "),
                *(number(values[stage]["median_ms"], 1), p90(values[stage])),
                number(values.get(f"{stage}_percent", 100.0), 1),
            ]
            for stage in (*STAGES, "total")
        ]
        parts.append(Table(["stage", "median ms", "p90 ms", "share %"], rows).text())
        if layers:
            parts.append(_operators_text(values, row["runtime"]))
        parts.append("")
    setting = measured[0].setting
    notes = [
        f"{setting['rounds']} images each ({setting['format']}), in turn, after {WARMUP} warm-up "
        "images; the stages do not overlap",
        "the files are in the system's file cache; a share is of the sum over all images",
    ]
    return "\n".join([*parts, *how(measured, notes)])


def _operators_text(values: dict[str, Any], runtime: str) -> str:
    if "operators" not in values:
        return f"operators: icnet reads no profile of {runtime}"
    rows = [
        [
            *(o["name"], o["kind"], o["implementation"] or "-"),
            *(number(o["median_ms"], 2), number(o["share_percent"], 1)),
        ]
        for o in values["operators"]
    ]
    title = (
        f"\nthe {len(rows)} slowest of {values['operators_count']} operators, from {runtime}'s own "
        f"profile of other runs ({values['operators_sum_ms']:.1f} ms for all operators)"
    )
    header = ["operator", "kind", "implementation", "median ms", "share %"]
    return f"{title}\n{Table(header, rows, left=3).text()}"


def _parser() -> argparse.ArgumentParser:
    parser = mode_parser(
        "stages",
        "Measures how long each stage of `icnet predict` takes for one image file.",
        "icnet benchmark stages icnet-int8.onnx --runtime openvino --layers 10",
    )
    add_rounds(parser, 20, "images that each artefact labels; the artefacts take turns")
    options(parser, Goal.RESULTS).add_argument(
        "--layers",
        type=count,
        metavar="N",
        help="also show the N slowest operators, from the runtime's own profile (ONNX Runtime or "
        "OpenVINO, on the CPU)",
    )
    options(parser, Goal.IMAGES).add_argument(
        "--format",
        choices=("png", "jpg"),
        default="png",
        help="file format of the drawn scenes (default: png)",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet benchmark stages`; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_mode(arguments, _measure, partial(_text, arguments.layers))
