"""What was found of a folder, in its record: `Predictor.open` reads there what it may take."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from icnet_deploy.data.scenes.dataset import DRAWN
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

    A verdict on drawn scenes replaces none on images of a data set, which says more.

    Returns:
        A line that says where they are, or why they could not be written: the check itself is
        none the worse for a folder that cannot be.
    """
    folder = result.folder
    entries, digests = list(_entries(result)), [a.sha256 for a in folder.artefacts]
    better: list[Entry] = []
    try:
        with alone_in(folder.path):  # another process may add its own
            try:
                known = read_verdicts(folder.path)
            except InputError:  # of a newer version, or damaged: it is written anew
                known = Verdicts()
            better = _on_real_images(known, entries)
            places = {_place(one) for one in better}
            new = [one for one in entries if not (_is_drawn(one) and _place(one) in places)]
            write_verdicts(folder.path, known.renewed(new, digests))
    except OutputError as error:
        return f"the verdicts are not recorded, so `auto` will not use these files: {error}"
    if better:
        scored_on = ", ".join(dict.fromkeys(one.scored_on for one in better))
        return (
            f"{folder.path / NAME} keeps its verdicts on {scored_on}: verdicts on drawn scenes do "
            "not replace them"
        )
    return f"the verdicts are recorded, for `auto`, in {folder.path / NAME}"


def _on_real_images(known: Verdicts, entries: Sequence[Entry]) -> list[Entry]:
    """Known verdicts on images of a data set, where new ones are on drawn scenes."""
    drawn = {_place(one) for one in entries if _is_drawn(one)}
    return [o for o in known.entries if o.scored_on and not _is_drawn(o) and _place(o) in drawn]


def _place(one: Entry) -> tuple[str, str | None, str | None]:
    return one.sha256, one.runtime, one.device


def _is_drawn(one: Entry) -> bool:
    """Whether it is of the scenes that the command draws where no data set is named."""
    return f"images of scenes {DRAWN}" in one.scored_on


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
