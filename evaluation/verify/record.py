"""Keeps the verdicts of `icnet verify` in the folder, where `Predictor.from_folder` reads them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from icnet_deploy.errors import InputError, OutputError
from icnet_deploy.evaluation.score import Protocol
from icnet_deploy.evaluation.verify.result import Result
from icnet_deploy.runtime.auto.folder import ENGINE_SUFFIXES
from icnet_deploy.runtime.auto.verdicts import (
    NAME,
    Verdict,
    Verdicts,
    read_verdicts,
    write_verdicts,
)
from icnet_deploy.runtime.machine import machine, versions


def record(result: Result) -> str:
    """Writes the verdicts, beside those found elsewhere of files that are unchanged.

    Returns:
        A line that says where they are, or why they could not be written: the check itself is
        none the worse for a folder that cannot be.
    """
    folder = result.folder
    try:
        known = read_verdicts(folder.path)
    except InputError:  # of a newer version, or damaged: it is written anew
        known = Verdicts()
    renewed = known.renewed(verdicts_of(result), (a.sha256 for a in folder.artefacts))
    try:
        write_verdicts(folder.path, renewed)
    except OutputError as error:
        return f"not recorded, so that `auto` will not take these files: {error}"
    return f"recorded for `auto`: {folder.path / NAME}"


def verdicts_of(result: Result) -> Iterator[Verdict]:
    """A verdict for each row, and for each failure that is not this machine's."""
    here: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": machine()["cpu"],
        "cpu_flags": tuple(machine()["cpu_flags"]),
        "versions": versions(),
    }
    digests = {a.path.name: a.sha256 for a in result.folder.artefacts}
    for row in result.rows:
        breaches = row.breaches()
        yield Verdict(
            file=row.artefact.name,
            sha256=row.sha256,
            runtime=row.runtime,
            device=row.device,
            passed=not breaches,
            reason="; ".join(breaches),
            miou_points=round(row.miou_points(), 6),
            scored_on=_scored_on(row.score.protocol()),
            limits=str(row.budget),
            **here,
        )
    for failure in result.failures:
        if failure in result.untried or not digests[failure.name]:
            continue
        anywhere = failure.runtime == "-" or failure.name.endswith(ENGINE_SUFFIXES)
        yield Verdict(
            file=failure.name,
            sha256=digests[failure.name],
            runtime=None if anywhere else failure.runtime,
            device=None,
            passed=False,
            reason=failure.reason,
            miou_points=None,
            scored_on="",
            limits="",
            **here,
        )


def _scored_on(protocol: Protocol) -> str:
    sizes = ", ".join(protocol.label_sizes)
    return f"{protocol.images} images of {protocol.dataset} {protocol.split}, {sizes}"
