"""What was found of a folder, in its record: `Predictor.open` reads there what it may take."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from icnet_deploy.errors import InputError, OutputError
from icnet_deploy.evaluation.parity.report import undecided
from icnet_deploy.evaluation.score import Protocol
from icnet_deploy.evaluation.verdicts import Verdict
from icnet_deploy.evaluation.verify.result import Result
from icnet_deploy.files import alone_in
from icnet_deploy.runtime.auto.verdicts import NAME, Entry, Verdicts, read_verdicts, write_verdicts
from icnet_deploy.runtime.machine import machine, versions


def record(result: Result) -> str:
    """Writes the verdicts, beside those found elsewhere of files that are unchanged.

    Returns:
        A line that says where they are, or why they could not be written: the check itself is
        none the worse for a folder that cannot be.
    """
    folder = result.folder
    entries, digests = list(_entries(result)), [a.sha256 for a in folder.artefacts]
    try:
        with alone_in(folder.path):  # another process may add its own
            try:
                known = read_verdicts(folder.path)
            except InputError:  # of a newer version, or damaged: it is written anew
                known = Verdicts()
            write_verdicts(folder.path, known.renewed(entries, digests))
    except OutputError as error:
        return f"the verdicts are not recorded, so `auto` will not use these files: {error}"
    return f"the verdicts are recorded, for `auto`, in {folder.path / NAME}"


def _entries(result: Result) -> Iterator[Entry]:
    """An entry for each row, and for each failure that is not this machine's."""
    here: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": machine()["cpu"],
        "cpu_flags": tuple(machine()["cpu_flags"]),
        "versions": versions(),
    }
    artefacts = {artefact.path.name: artefact for artefact in result.folder.artefacts}
    for row in result.rows:
        verdict = row.judgement().verdict
        yield Entry(
            file=row.artefact.name,
            sha256=row.sha256,
            runtime=row.runtime,
            device=row.device,
            verdict=str(verdict),
            reason="; ".join(row.breaches()),
            undecided="; ".join(undecided(row)) if verdict is Verdict.UNDECIDED else "",
            miou_points=round(row.miou_points(), 6),
            miou_difference_points=row.differences().miou.to_dict(),
            scored_on=_scored_on(row.score.protocol()),
            limits=str(row.budget),
            **here,
        )
    for failure in result.failures:
        artefact = artefacts[failure.name]
        if failure in result.untried or not artefact.sha256:
            continue
        anywhere = failure.runtime == "-" or artefact.file.is_engine
        yield Entry(
            file=failure.name,
            sha256=artefact.sha256,
            runtime=None if anywhere else failure.runtime,
            device=None,
            verdict=str(Verdict.PAST),
            reason=failure.reason,
            miou_points=None,
            scored_on="",
            limits="",
            **here,
        )


def _scored_on(protocol: Protocol) -> str:
    sizes = ", ".join(protocol.label_sizes)
    return f"{protocol.images} images of {protocol.dataset} {protocol.split}, {sizes}"
