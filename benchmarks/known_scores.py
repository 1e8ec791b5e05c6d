"""mIoU from results of `icnet evaluate`, `icnet parity` and `icnet verify`, for what was timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.documents import (
    COUNT,
    OBJECT,
    PERCENT,
    TEXT,
    Schema,
    list_of,
    object_with,
    one_of,
    or_null,
)
from icnet_deploy.evaluation.score import OF_THE_MODEL, Protocol, require_same_protocol

_SCORE = object_with({"miou_percent": PERCENT})
_SCORED = {"sha256": TEXT, "runtime": TEXT, "score": _SCORE, "protocol": OBJECT}
_ROW = object_with({"artefact": TEXT, "precision": or_null(TEXT), **_SCORED})
_SIZE = or_null(list_of(COUNT, 2))
_REFERENCE = object_with({"weights_sha256": TEXT, "score": _SCORE, "size": _SIZE, "head": TEXT})
_KINDS: Mapping[str, Mapping[str, Any]] = {
    "evaluate": {"model": TEXT, **_SCORED},
    "parity": {"rows": list_of(_ROW), "references": list_of(_REFERENCE)},
    "verify": {"parity": OBJECT},
}
"""Kind of result -> what it holds."""

_ALL = {name: kind for fields in _KINDS.values() for name, kind in fields.items()}
_RESULT = Schema(
    "JSON of icnet evaluate, icnet parity or icnet verify, which tell mIoU",
    {"kind": one_of(*_KINDS), "precision": or_null(TEXT), **_ALL},
    optional=("precision", *_ALL),
)

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
    known = [score for path in paths for score in _scores(_RESULT.read(path), str(path))]
    for each in known[1:]:
        require_same_protocol(known[0].protocol, each.protocol, but=_MAY_DIFFER)
    return known


def find_score(measured: Measurement, scores: Sequence[KnownScore]) -> KnownScore | None:
    """The score of what was measured: of that file on that runtime; else of that file on any, or
    of a file of that name and precision (one that was exported again).
    """
    subject = measured.subject
    on_runtime = [each for each in scores if each.runtime == subject.get("runtime")]
    for rule in (_same_file, _same_name):
        for each in (*on_runtime, *scores):
            if rule(subject, each):
                return each
    return None


def protocol_line(score: KnownScore) -> str:
    """What was scored, in words."""
    protocol = score.protocol
    return f"{protocol.dataset} {protocol.split}, {protocol.images} images"


def _same_file(subject: Mapping[str, Any], each: KnownScore) -> bool:
    return subject.get("sha256") == each.sha256


def _same_name(subject: Mapping[str, Any], each: KnownScore) -> bool:
    return (subject.get("file"), subject.get("precision")) == (each.name, each.precision)


def _scores(result: Mapping[str, Any], where: str) -> list[KnownScore]:
    kind = result["kind"]
    replace(_RESULT, fields=_KINDS[kind], optional=()).fit(result, where)
    if kind == "verify":
        return _scores(_RESULT.fit(result["parity"], where), where)
    if kind == "evaluate":
        return [_score(Path(result["model"]).name, result, result["protocol"], where)]
    scores = [_score(row["artefact"], row, row["protocol"], where) for row in result["rows"]]
    # The checkpoints that the artefacts were compared with, each scored as its artefacts were.
    for told in result["references"]:
        like = [r for r in result["rows"] if all(r.get(k) == told[k] for k in ("size", "head"))]
        if like:
            row = {**told, "sha256": told["weights_sha256"], "runtime": "pytorch"}
            scores.append(_score("checkpoint", row, like[0]["protocol"], where))
    return scores


def _score(
    name: str, row: Mapping[str, Any], protocol: Mapping[str, Any], where: str
) -> KnownScore:
    return KnownScore(
        name,
        row["sha256"],
        row["runtime"],
        row.get("precision"),
        row["score"]["miou_percent"],
        Protocol.from_dict(protocol, where),
    )
