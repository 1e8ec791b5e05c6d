"""The tables of what was recorded: ours beside each peer's best, and the verdict of each row."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from icnet_deploy.calibration.sensitivity.report import points_text
from icnet_deploy.report.tables import Table, bounded
from tools.quantizers.scores import FLOAT
from tools.quantizers.settings import KIND, OURS, SCHEMA
from tools.quantizers.verdicts import best_of_ours

_RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
_HEADER = (
    "network on a runtime",
    "quantizer",
    "settings",
    "mIoU, points",
    "labels alike %",
    "time to float32, one thread",
    "all threads",
    "ours holds",
)
"""The columns."""


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """The table: of each row the file of ours that counts, and each peer's most labels alike."""
    rows: list[list[str]] = []
    for result in results:
        if result["kind"] == KIND and result["schema"] < SCHEMA:
            rows += map(_earlier, result["rows"])
        elif result["kind"] == KIND:
            for row in result["rows"]:
                shown = _shown(row["candidates"])
                rows += [_cells(result["network"], row["runtime"], one) for one in shown]
    return Table(_HEADER, rows).markdown()


def _earlier(row: Mapping[str, Any]) -> list[str]:
    """A row that was recorded before files were timed beside float32: of ICNet, on CamVid."""
    points, alike = points_text(row["miou_difference_points"]), f"{row['alike_percent']:.2f}"
    words = f"icnet on {_RUNTIMES[row['runtime']]}", row["quantizer"], row["ranges"]
    return [*words, points, alike, "-", "-", ""]


def _shown(candidates: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Our better file, and each peer's best, as `best_of` chooses; of one that failed, why."""
    ours = best_of_ours(candidates)
    yield from (c for c in candidates if c is ours or (not ours and c["quantizer"] == OURS))
    others = dict.fromkeys(c["quantizer"] for c in candidates)
    for name in (each for each in others if each not in (OURS, FLOAT)):
        own = [c for c in candidates if c["quantizer"] == name]
        timed = [c for c in own if "time_to_float32" in c]
        fast = [c for c in timed if c["time_to_float32"]["processor"]["value"] < 1]
        if timed:
            yield max(fast or timed, key=lambda c: float(c["alike_percent"]))
        else:
            yield own[0]


def _cells(network: str, runtime: str, one: Mapping[str, Any]) -> list[str]:
    name = f"{network} on {_RUNTIMES[runtime]}"
    words = f"**{one['quantizer']}**" if one.get("best_peer") else one["quantizer"]
    if "error" in one:
        return [name, words, one["settings"], one["error"], "-", "-", "-", ""]
    times = [f"{each['value']:.2f}" for each in one["time_to_float32"].values()]
    return [
        name,
        words,
        one["settings"],
        points_text(one["miou_difference_points"]),
        f"{one['alike_percent']:.2f}",
        *times,
        _verdict(one.get("against_best_peer")),
    ]


def _verdict(found: Mapping[str, Any] | None) -> str:
    """Whether ours holds against the best peer, and by how much."""
    if found is None:
        return ""
    points = found["alike_difference_points"]
    alike = bounded(points["value"], points["low"], points["high"], 2)
    times = [f"{each['value']:.2f}" for each in found["time_to_peer"].values()]
    answer = "yes" if found["holds"] else "no"
    return f"{answer}: {alike} points, time {' and '.join(times)}"
