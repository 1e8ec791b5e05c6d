"""What `icnet evaluate` prints, and the words that its reports share with the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from icnet_deploy.data import RegionAccuracy
from icnet_deploy.evaluation.evaluate.compare import Result, names
from icnet_deploy.evaluation.evaluate.plot import FEW, bin_words
from icnet_deploy.evaluation.score import Protocol
from icnet_deploy.report.tables import number, signed, text_table

SMALL = f"regions below {RegionAccuracy.bin_pixels:,} pixels"


def score_text(result: Result) -> str:
    """One model's score, as the screen shows it."""
    protocol, score = result["protocol"], result["score"]
    rows = [[name, number(iou)] for name, iou in score["iou_percent"].items()]
    rows.append(["mIoU", number(score["miou_percent"])])
    return "\n".join(
        [
            f"{model_words(result)} on {protocol['dataset']} {protocol['split']}, "
            f"{protocol['images']} images\n",
            text_table(["class", "IoU %"], rows),
            "",
            f"{'pixel accuracy':<26} {number(score['pixel_accuracy_percent'])} %",
            f"{SMALL:<26} {number(score['small_region_accuracy_percent'])} %",
            *_protocol_lines([result]),
            f"\ntime {time_words(result)}",
        ]
    )


def comparison_text(result: Mapping[str, Any]) -> str:
    """Two models' scores, as the screen shows them."""
    models = result["models"]
    protocol = models[0]["protocol"]
    first, second = names(models)
    lines = [
        f"A  {model_words(models[0], first)}",
        f"B  {model_words(models[1], second)}",
        f"on {protocol['dataset']} {protocol['split']}, {protocol['images']} images\n",
        text_table(["IoU %", "A", "B", "A - B"], difference_rows(result)),
        "",
        text_table(["", "A", "B", "A - B"], summary_rows(result)),
        *(f"\n{note}" for note in unlike_means(result)),
        "",
        text_table(["pixels of a region", "regions", "A %", "B %", "A - B"], region_rows(result)),
        *_protocol_lines(models),
        *(
            f"\ntime {letter}  {time_words(model)}"
            for letter, model in zip("AB", models, strict=True)
        ),
    ]
    return "\n".join(lines)


def model_words(result: Result, name: str | None = None) -> str:
    """A model's file or name, how its network was built, and what ran it."""
    network = network_words(result.get("network", {}))
    name = name or names([result])[0]
    ran = f"{result['runtime']}, {result['device']}"
    return f"{name} ({network}; {ran})" if network else f"{name} ({ran})"


def network_words(network: Mapping[str, Any]) -> str:
    """How a network was built, e.g. `icnet, sub24, width 0.5`; empty where it is not known."""
    if not network:
        return ""
    words = [str(network.get("architecture", "icnet"))]
    if "stages" in network:
        words.append(str(network["stages"]))
    if "downsampling" in network:
        words.append(f"downsampling {network['downsampling']}")
    if "width" in network:
        words.append(f"width {network['width']}")
    if network.get("channels"):
        words.append("pruned")
    return ", ".join(words)


def difference_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Class, IoU of both, difference."""
    a, b = (model["score"]["iou_percent"] for model in result["models"])
    points = result["difference"]["iou_points"]
    return [[name, number(a[name]), number(b[name]), signed(points[name], 2)] for name in a]


def summary_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Measure, value of both, difference: the few numbers that a reader came for."""
    a, b = (model["score"] for model in result["models"])
    told = {
        "mIoU %": "miou",
        "pixel accuracy %": "pixel_accuracy",
        f"{SMALL}, right %": "small_region_accuracy",
    }
    return [
        [
            words,
            number(a[f"{key}_percent"]),
            number(b[f"{key}_percent"]),
            signed(result["difference"][f"{key}_points"], 2),
        ]
        for words, key in told.items()
    ]


def region_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Sizes, number of regions, accuracy of both, difference."""
    a, b = (model["score"]["regions"] for model in result["models"])
    return [
        [
            bin_words(one),
            f"{one['regions']:,}" + (" (few)" if one["regions"] < FEW else ""),
            number(left["accuracy_percent"]),
            number(right["accuracy_percent"]),
            signed(one["points"], 2),
        ]
        for one, left, right in zip(result["difference"]["regions"], a, b, strict=True)
    ]


def unlike_means(result: Mapping[str, Any]) -> list[str]:
    """A warning where the two mean IoUs run over different classes."""
    a, b = (model["score"]["iou_percent"] for model in result["models"])
    only = [name for name in a if (a[name] is None) != (b[name] is None)]
    if not only:
        return []
    return [
        f"{', '.join(only)}: in no ground truth, and predicted by one of the two only, so that "
        "the two means run over different classes. Over the classes of both, mIoU differs by "
        f"{signed(result['difference']['miou_points_over_common_classes'], 2)} points."
    ]


def protocol_words(results: Sequence[Result]) -> dict[str, str]:
    """The protocol as a reader reads it; where two differ, both."""
    told = [Protocol.from_dict(result["protocol"]).to_words() for result in results]
    return {
        name: value if all(words[name] == value for words in told) else _both(name, told)
        for name, value in told[0].items()
    }


def _both(name: str, told: Sequence[Mapping[str, str]]) -> str:
    return "; ".join(f"{letter}: {words[name]}" for letter, words in zip("AB", told, strict=False))


def _protocol_lines(results: Sequence[Result]) -> list[str]:
    words = protocol_words(results)
    return ["\nprotocol", *(f"  {name:<16} {value}" for name, value in words.items())]


def time_words(result: Result) -> str:
    """How long an image took, with what that covers."""
    return f"{result['time']['milliseconds']:.1f} ms ({result['time']['scope']})"
