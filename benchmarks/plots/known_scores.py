"""mIoU from results of `icnet evaluate`, `icnet parity` and `icnet verify`, for what was timed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.documents import OBJECT, PERCENT, TEXT, or_null, read, take
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.score import OF_THE_MODEL, Protocol, require_same_protocol

_TOLD = {"sha256": TEXT, "runtime": TEXT, "precision": or_null(TEXT), "score": OBJECT}

# How logits were resized is the model's head, which is its own affair, too.
_MAY_DIFFER = (*OF_THE_MODEL, "logits_resize")


@dataclass(frozen=True)
class KnownScore:
    """What a file scored.

    Attributes:
        name: of the file.
        sha256: of the file: an artefact, or a checkpoint.
        runtime: what ran it.
        precision: of an artefact; None of a checkpoint.
        miou_percent: 0..100.
        protocol: how it was scored.
    """

    name: str
    sha256: str
    runtime: str
    precision: str | None
    miou_percent: float
    protocol: Protocol


def read_scores(paths: Sequence[Path]) -> list[KnownScore]:
    """Reads result files.

    Raises:
        InputError: a file is none of these, or two scores are of different protocols, whose
            points must not stand in one picture.
    """
    found: list[KnownScore] = []
    for path in paths:
        try:
            found += _scores(read(path))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"cannot read mIoU from {path} ({error}): expected JSON of icnet evaluate, "
                "icnet parity or icnet verify"
            ) from error
    for each in found[1:]:
        require_same_protocol(found[0].protocol, each.protocol, but=_MAY_DIFFER)
    return found


def find_score(measured: Measurement, scores: Sequence[KnownScore]) -> KnownScore | None:
    """The score of what was measured: of that file on that runtime; else of that file on any, or
    of a file of that name and precision (one that was exported again).
    """
    told = measured.subject
    on_runtime = [each for each in scores if each.runtime == told.get("runtime")]
    for rule in (_same_file, _same_name):
        for some in (on_runtime, scores):
            for each in some:
                if rule(told, each):
                    return each
    return None


def protocol_line(score: KnownScore) -> str:
    """What was scored, in words."""
    told = score.protocol
    return f"{told.dataset} {told.split}, {told.images} images"


def _same_file(told: Mapping[str, Any], each: KnownScore) -> bool:
    return told.get("sha256") == each.sha256


def _same_name(told: Mapping[str, Any], each: KnownScore) -> bool:
    return (told.get("file"), told.get("precision")) == (each.name, each.precision)


def _scores(result: Mapping[str, Any]) -> list[KnownScore]:
    if result["kind"] == "evaluate":
        return [_score(Path(result["model"]).name, result, result["protocol"])]
    if result["kind"] == "parity":
        rows = [_score(row["artefact"], row, row["protocol"]) for row in result["rows"]]
        return rows + list(_references(result))
    if result["kind"] == "verify" and result["parity"]:
        return _scores(result["parity"])
    raise ValueError(f"its kind is {result['kind']}")


def _references(result: Mapping[str, Any]) -> Iterator[KnownScore]:
    """The checkpoints that the artefacts were compared with, each scored as its artefacts were."""
    for told in result["references"]:
        like = [r for r in result["rows"] if (r["size"], r["head"]) == (told["size"], told["head"])]
        if like:
            row = {**told, "sha256": told["weights_sha256"], "runtime": "pytorch"}
            yield _score("checkpoint", row, like[0]["protocol"])


def _score(name: str, told: Mapping[str, Any], protocol: Mapping[str, Any]) -> KnownScore:
    known = take(told, _TOLD, optional=("precision",))
    miou = take(known["score"], {"miou_percent": PERCENT})["miou_percent"]
    precision = known.get("precision")
    return KnownScore(
        name, known["sha256"], known["runtime"], precision, miou, Protocol.from_dict(protocol)
    )
