"""Files of JSON, JSON Lines and TOML, each read and then used as its command uses it."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from icnet_deploy.documents import sealed
from icnet_deploy.labels import CITYSCAPES, VOC
from tools.fuzz.corpus import old_files
from tools.fuzz.mutate.tree import changed_json, changed_lines, loads, to_toml
from tools.fuzz.target import Run, Target

_Read = Callable[[Path], object]

_FEW = 3
_GOAL, _SLOW_GOAL = 45_000, 10_000


def _old(*names: str) -> list[bytes]:
    return [old_files()[name] for name in names]


def _bytes(*values: Any) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


def _reading(name: str, read: _Read) -> Callable[[Path], Run]:
    """What writes an input under a name and has it read."""

    def prepare(folder: Path) -> Run:
        def run(data: bytes) -> Iterator[str]:
            path = folder / name
            path.write_bytes(data)
            read(path)
            yield "read"

        return run

    return prepare


def _label_sets() -> list[bytes]:
    small = {"name": "two", "names": ["a", "b"], "palette": [[0, 0, 0], [9, 9, 9]]}
    return _bytes(
        CITYSCAPES.to_dict(),
        small,
        {"label_set": {"name": "n", "names": ["x", "y", "z"]}, "ignore": [255, [1, 2, 3]]},
        {"label_set": "camvid", "group_by": "^(.)", "label_values": "indices"},
    )


def _use_label_set(path: Path) -> None:
    from icnet_deploy.drawing import palette, with_legend
    from icnet_deploy.labels import LabelSet, load_label_set

    known = load_label_set(path)
    picture = np.zeros((32, 48, 3), np.uint8)
    if len(known) < 40:
        with_legend(picture, np.zeros((32, 48), np.uint8), known, every_class=True)
    assert palette(known).shape == (256, 3)
    assert LabelSet.from_dict(known.to_dict()) == known


def _class_maps() -> list[bytes]:
    return _bytes(
        {"from": "cityscapes", "to": "camvid", "classes": {"truck": "car", "sky": None}},
        {
            "from": {"name": "p", "names": ["a", "b", "c"]},
            "to": {"name": "q", "names": ["a", "d"]},
            "classes": {"b": "d", "c": ["a", "d"]},
        },
    )


def _use_class_map(path: Path) -> None:
    from icnet_deploy.data.mapping import load_class_map, prediction_table, target_table

    known = load_class_map(path)
    str(known)
    known.unanswered()
    prediction_table(known.source, known.target, known)
    target_table(known.source, known.target, known)


def _metadata() -> list[bytes]:
    from icnet_deploy.metadata import ArtefactMetadata

    one = ArtefactMetadata(VOC, (64, 96), "logits", "fp32", {"width": 0.5}, {"mean": [1, 2, 3]})
    sidecar = loads(old_files()["tiny.engine.json"])
    return _bytes(one.to_dict(), sidecar["metadata"])


def _use_metadata(path: Path) -> None:
    from icnet_deploy.images import Fitting
    from icnet_deploy.metadata import ArtefactMetadata

    known = ArtefactMetadata.from_json(path.read_bytes().decode("utf-8", "replace"))
    assert ArtefactMetadata.from_json(known.to_json()) == known
    Fitting.of(known)


_ENGINE = b"ftrt" + bytes(64)


def _sidecars() -> list[bytes]:
    """One that describes `_ENGINE`, and one that describes another."""
    old = old_files()["tiny.engine.json"]
    digest = hashlib.sha256(_ENGINE).hexdigest()
    return [*_bytes(loads(old) | {"engine_sha256": digest}), old]


def _use_sidecar(path: Path) -> None:
    from icnet_deploy.engine_sidecar import read_sidecar
    from icnet_deploy.runtime.backends.tensorrt.engine import read_plan

    engine = path.with_suffix("")
    engine.write_bytes(_ENGINE)
    sidecar = read_sidecar(engine)
    assert sidecar is not None
    str(sidecar.gpu)
    sidecar.to_dict()
    read_plan(engine, True)


def _use_verdicts(path: Path) -> None:
    from icnet_deploy.runtime.auto.verdicts import read_verdicts

    known = read_verdicts(path.parent)
    for entry in known.entries:
        str(entry)
        known.of(entry.sha256, "openvino", "cpu")
        known.changed(entry.file, entry.sha256)


def _calibrations() -> list[bytes]:
    """One with few tensors, whose values lie in few bins: the whole is a megabyte."""
    from icnet_deploy.calibration.placements.registry import PLACEMENTS

    value = loads(old_files()["release/tiny-logits-fp32.calibration.json"])
    value["tensors"] = dict(list(value["tensors"].items())[:_FEW])
    for tensor in value["tensors"].values():
        counts = tensor["histogram"]["counts"]
        empty = [0] * (len(counts) - 2)
        tensor["histogram"]["counts"] = [sum(counts) - counts[-1], *empty, counts[-1]]
    value["factors"] = dict(list(value["factors"].items())[:_FEW])
    value.pop("ranges_by")
    return _bytes(sealed({**value, "methods": dict.fromkeys(PLACEMENTS, "mse")}))


def _use_calibration(path: Path) -> None:
    from icnet_deploy.calibration.calibrate import Calibration
    from icnet_deploy.calibration.ranges import METHODS

    known = Calibration.read(path)
    for method in METHODS:
        known.ranges(method)
    json.dumps(known.to_dict(), allow_nan=False)


def _configs() -> list[bytes]:
    return _bytes(
        {"width": 0.03125, "stages": "sub124", "steps": 5, "batch": 8, "crop": [97, 161]},
        {"architecture": "bisenetv2", "width": 0.25, "rate": 3e-3, "guidance": [1, 0.4, 0.4]},
        {"steps": 9, "resize": [0.9, 1.2], "size": [96, 160], "seed": 1, "colour": 0.5},
        {"appearance": {"shadow": 0.5, "gamma": [0.5, 2.0]}, "rare_crops": 0.5, "shares": [1, 2]},
    )


def _config_text(path: Path) -> None:
    """Documents are kept as JSON; what is none is taken for TOML as it is."""
    from icnet_deploy.training.config import load_config

    data = path.read_bytes()
    try:
        value = loads(data)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        path.write_text(to_toml(value), "utf-8", "surrogatepass")
    load_config(str(path)).settings()


def _results() -> list[bytes]:
    new = loads(old_files()["results/evaluate.json"])
    classes = len(new["score"]["iou_percent"])
    count = {"right": [3] * classes, "truth": [5] * classes, "predicted": [4] * classes}
    images = [
        {**count, "name": f"s{n}", "group": f"g{n}", "small_regions": 3, "small_right": 1.5}
        for n in range(new["protocol"]["images"])
    ]
    # Of the newest schema, as results with counts are.
    return _bytes(new, {**new, "schema": 2, "images": images, "notes": []})


def _use_result(path: Path, others: list[dict[str, Any]]) -> None:
    from icnet_deploy.errors import InputError
    from icnet_deploy.evaluation.evaluate.compared import compare
    from icnet_deploy.evaluation.evaluate.compared_report import comparison_text
    from icnet_deploy.evaluation.evaluate.result import read_result

    one = read_result(path)
    refused: InputError | None = None
    for other in (one, *others):
        for pair in ((one, other), (other, one)):
            try:
                compared = compare(*pair)
            except InputError as error:
                refused = error
                continue
            comparison_text(compared)
            json.dumps(compared.to_dict(), allow_nan=False)
    if refused is not None:
        raise refused


def _prepare_result(folder: Path) -> Run:
    others = [loads(data) for data in _results()]
    return _reading("result.json", lambda path: _use_result(path, others))(folder)


def _use_scores(path: Path) -> None:
    from icnet_deploy.benchmarks.plots import protocol_line, read_scores

    for score in read_scores([path]):
        protocol_line(score)


def _use_measurements(path: Path) -> None:
    from icnet_deploy.benchmarks.measurement import read_measurements
    from icnet_deploy.benchmarks.measurement_report import report_page

    report_page({path.name: read_measurements(path)}, [])


def _use_comparison(path: Path) -> None:
    from icnet_deploy.benchmarks.regression import main

    _use_command(main, [str(path), str(path)])


def _use_command(main: Callable[[Sequence[str]], int], arguments: list[str]) -> None:
    """Runs what reports errors itself; it is told by its exit code."""
    from tools.fuzz.targets.options import exit_of

    exit_of("benchmark compare", main, arguments)


def _records() -> list[bytes]:
    lines = Path("benchmarks/results/accuracy.jsonl").read_bytes().splitlines()
    return [b"\n".join(lines[:2])]


def _use_records(path: Path) -> None:
    from icnet_deploy.evaluation.evaluate.records import read_records

    for record in read_records(path):
        str(record.key)


def _runs() -> list[bytes]:
    result = loads(_results()[1])
    row = {
        **{name: result[name] for name in ("sha256", "protocol", "score", "images")},
        **dict.fromkeys(("network", "size", "head", "runtime", "device"), "x"),
        "precision": "fp32",
    }
    head = {"schema": 1, "kind": "accuracy", "date": "2026-01-01", "version": "0.2.0"}
    return _bytes({**head, "versions": {}, "machine": {}, "rows": [row]})


def _use_run(path: Path) -> None:
    import lzma

    from icnet_deploy.evaluation.evaluate.records import read_run
    from icnet_deploy.evaluation.evaluate.releases import compare_releases

    data = path.read_bytes()
    # What begins as the format does is taken as it is: it may be cut off.
    path.write_bytes(data if data.startswith(b"\xfd7zXZ") else lzma.compress(data, preset=0))
    run = read_run(path)
    found = compare_releases([run], [run])
    json.dumps(found.to_dict(), allow_nan=False)


def _use_choice(path: Path) -> None:
    from icnet_deploy.runtime.auto.choice import read_choice

    known = read_choice(path)
    if known is not None:
        str(known[1])


def _preprocessings() -> list[bytes]:
    whole = {"mean": [1, 2, 3], "scale": [0.1, 0.2, 0.3], "channels": "bgr", "fit": "letterbox"}
    return _bytes(whole, {"mean": [0, 0, 0], "scale": [1, 1, 1], "channels": "rgb"})


def _use_preprocessing(path: Path) -> None:
    from icnet_deploy.networks.preprocessing import load_preprocessing

    known = load_preprocessing(str(path))
    known.tensor(np.zeros((8, 8, 3), np.uint8))


_Change = Callable[[bytes, Random], bytes]


def _target(
    name: str,
    what: str,
    seeds: Callable[[], list[bytes]],
    file: str,
    read: _Read | Callable[[Path], Run],
    change: _Change = changed_json,
) -> Target:
    prepare = read if read is _prepare_result else _reading(file, read)
    goal = _SLOW_GOAL if name in ("calibration", "config") else _GOAL
    return Target(name, what, seeds, change, prepare, goal)


def _old_results() -> list[bytes]:
    return [
        *_old("results/evaluate.json", "results/parity.json"),
        *_results(),
    ]


def _old_measurements() -> list[bytes]:
    return _old("results/latency.jsonl", "results/memory.jsonl", "results/stages.jsonl")


_sealed = partial(changed_json, seal=True)

TARGETS = (
    _target("label_set", "label sets", _label_sets, "set.json", _use_label_set),
    _target("class_map", "class maps", _class_maps, "map.json", _use_class_map),
    _target("metadata", "an artefact's metadata", _metadata, "metadata.json", _use_metadata),
    _target(
        "sidecar",
        "an engine's sidecar",
        _sidecars,
        "tiny.engine.json",
        _use_sidecar,
        _sealed,
    ),
    _target(
        "verified",
        "`verified.json`",
        lambda: _old("release/verified.json"),
        "verified.json",
        _use_verdicts,
    ),
    _target(
        "calibration",
        "calibration files",
        _calibrations,
        "x.calibration.json",
        _use_calibration,
        _sealed,
    ),
    _target("config", "training configurations", _configs, "config.toml", _config_text),
    _target("preprocessing", "a preprocessing", _preprocessings, "pre.json", _use_preprocessing),
    _target("result", "JSON for `evaluate --against`", _results, "result.json", _prepare_result),
    _target("scores", "JSON for `benchmark --miou`", _old_results, "scores.json", _use_scores),
    _target(
        "measurements",
        "measurements of `benchmark`",
        _old_measurements,
        "latency.jsonl",
        _use_measurements,
        changed_lines,
    ),
    _target(
        "compared_measurements",
        "measurements for `benchmark compare`",
        _old_measurements,
        "latency.jsonl",
        _use_comparison,
        changed_lines,
    ),
    _target(
        "records", "records of accuracy", _records, "accuracy.jsonl", _use_records, changed_lines
    ),
    _target("counts", "counts for `evaluate --compare`", _runs, "counts.json.xz", _use_run),
    _target(
        "choice",
        "what `auto` remembers",
        lambda: [v for k, v in old_files().items() if k.startswith("cache/choices/")],
        "choice.json",
        _use_choice,
    ),
)
