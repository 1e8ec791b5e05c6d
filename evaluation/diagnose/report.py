"""What `icnet evaluate --diagnose` shows: the verdict in words, then all that was tried."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from icnet_deploy.data import Dataset
from icnet_deploy.evaluation.confidence.differences import FEWEST_IMAGES, Interval
from icnet_deploy.evaluation.diagnose.diagnosis import (
    LEVEL,
    MARGINS,
    Diagnosis,
    Outcome,
    Round,
    Try,
)
from icnet_deploy.evaluation.diagnose.slips import Kind, Reading, Slip
from icnet_deploy.evaluation.float_network import PytorchNetwork
from icnet_deploy.evaluation.interval_plot import Bar, interval_plot
from icnet_deploy.evaluation.score import Size, size_text
from icnet_deploy.report.html import Html, page, tag
from icnet_deploy.report.tables import Table, bounded, facts, number, where
from icnet_deploy.runtime.machine import machine, versions

if TYPE_CHECKING:
    from icnet_deploy.networks.checkpoint import Checkpoint
    from icnet_deploy.networks.preprocessing import Preprocessing

SCHEMA = 1
"""Of the JSON result; raised when a reader of today could misunderstand it."""

_HOPELESS = 10.0
"""A network that scores fewer percent of mIoU than this has something wrong with it."""

_HEADER = ["changed", "mIoU %", "difference, points", "images", ""]


class Diagnosed(NamedTuple):
    """A diagnosis, and what it is of.

    Attributes:
        diagnosis: what was found.
        checkpoint: the network as it was said to be.
        dataset: the images.
        size: (height, width) of the input; None: each image's own.
        own: whether it is a network of one's own, which the command line describes.
    """

    diagnosis: Diagnosis
    checkpoint: Checkpoint
    dataset: Dataset
    size: Size | None
    own: bool

    @property
    def notes(self) -> tuple[str, ...]:
        """What its reader must know of the network, in words."""
        return PytorchNetwork(self.checkpoint).origin.notes

    def facts(self) -> dict[str, str]:
        """Name -> value: what was looked at, and how it was said to be read."""
        said, data = self.diagnosis.said, self.dataset
        return {
            "model": str(self.checkpoint.path),
            "preprocessing": _name_of(said.preprocessing) or json.dumps(_short(said.preprocessing)),
            "upsampling": said.upsampling,
            "size": "each image's own" if self.size is None else size_text(self.size),
            "classes": f"{self.checkpoint.label_set.name}, {len(self.checkpoint.label_set)}",
            "data": f"{data.name} {data.split}, {self.diagnosis.images} images",
            "classes of the data": f"{data.label_set.name}, {len(data.label_set)}",
        }

    def to_dict(self) -> dict[str, Any]:
        """The JSON result."""
        found = self.diagnosis
        return {
            "schema": SCHEMA,
            "kind": "diagnose",
            "versions": versions(),
            "machine": machine(),
            "model": str(self.checkpoint.path),
            "sha256": self.checkpoint.sha256,
            "network": self.checkpoint.network.description(),
            "notes": list(self.notes),
            "data": {
                "dataset": self.dataset.name,
                "split": self.dataset.split,
                "images": found.images,
                "label_set": self.dataset.label_set.name,
            },
            "size": None if self.size is None else list(self.size),
            "label_set": self.checkpoint.label_set.name,
            "basis": found.basis,
            "level": LEVEL,
            "margins_points": {str(kind): margin for kind, margin in MARGINS.items()},
            "said": _reading(found.said),
            "best": _reading(found.best),
            "found": [slip.name for slip in found.found],
            "difference_points": found.total and found.total.to_dict(),
            "rounds": [each.to_dict() for each in found.rounds],
            "verdict": _headline(found),
            "advice": _advice(found, self.own),
        }


def diagnosis_text(diagnosed: Diagnosed) -> str:
    """For the terminal: the verdict first, what to change, then every try."""
    found = diagnosed.diagnosis
    lines = [_headline(found), *_advice(found, diagnosed.own), *_notes(found), ""]
    lines += [*diagnosed.notes]
    lines += [f"{name:<20} {value}" for name, value in diagnosed.facts().items()]
    for index, each in enumerate(found.rounds):
        lines += ["", f"{_title(found, index)}: {number(each.miou)} % mIoU", _table(each).text()]
    return "\n".join(lines)


def diagnosis_page(diagnosed: Diagnosed) -> str:
    """As one HTML document."""
    found = diagnosed.diagnosis
    parts: list[Html] = []
    for index, each in enumerate(found.rounds):
        bars = [Bar(one.slip.name, one.difference, None) for one in each.tries]
        title = _title(found, index)
        plot = interval_plot(bars, None, title="difference of mIoU, with its interval")
        parts += [
            tag("h2", title),
            tag("p", f"mIoU now: {number(each.miou)} %."),
            tag("div", plot, class_="scroll"),
            _table(each).html(),
        ]
    return page(
        "Are the settings of the network right?",
        tag("p", tag("b", _headline(found))),
        [tag("p", line) for line in _advice(found, diagnosed.own)],
        [tag("p", line, class_="quiet") for line in _notes(found)],
        [tag("p", line, class_="quiet") for line in diagnosed.notes],
        facts(diagnosed.facts()),
        parts,
        where(machine() | versions()),
    )


def _headline(found: Diagnosis) -> str:
    """The verdict in one line."""
    if found.total is not None:
        slips, verb = [f"`{slip.name}`" for slip in found.found], "scores"
        if len(slips) > 1:
            verb = "together score"
        causes = "; ".join(slip.cause for slip in found.found)
        return f"{' and '.join(slips)} {verb} {_better(found.total)}: {causes}."
    if not found.enough:
        count = f"{found.images} image{'s are' if found.images != 1 else ' is'}"
        return f"Undecided: {count} too few; give at least {FEWEST_IMAGES} (--limit)."
    return "No other setting scores clearly better than yours."


def _better(total: Interval) -> str:
    value, low, high = (number(one, 1) for one in (total.value, total.low, total.high))
    return f"{value} points better ({low} to {high})"


def _advice(found: Diagnosis, own: bool) -> list[str]:
    """What to change, a sentence for each thing; none where nothing scores clearly better.

    Args:
        found: the diagnosis.
        own: whether the command line says what the network is; else its checkpoint does.
    """
    kinds = {slip.kind: slip for slip in found.found}
    lines = []
    if Kind.INPUT in kinds:
        lines.append(_input_advice(found.best.preprocessing, own))
    if Kind.UPSAMPLING in kinds:
        rule = found.best.upsampling
        lines.append(
            f"Give --upsampling {rule}."
            if own
            else f"Set it in the network's class: upsampling = {rule!r}."
        )
    lines += [_label_advice(slip, own) for slip in found.found if slip.kind is Kind.LABELS]
    return lines


def _input_advice(preprocessing: Preprocessing, own: bool) -> str:
    name, value = _name_of(preprocessing), json.dumps(_short(preprocessing))
    if not own:
        return (
            "The checkpoint states another preprocessing: write it again (`icnet train`, "
            f"`import-weights`, or `save_checkpoint` in Python) with the preprocessing {value}."
        )
    if name is not None:
        return f"Give --preprocessing {name}."
    return f"Give --preprocessing FILE.json with the content {value}."


def _label_advice(slip: Slip, own: bool) -> str:
    if slip.name == "labels: the files hold indices":
        return "Give --label-values indices."
    if slip.name == "labels: the files hold ids":
        return "Give --label-values ids."
    if slip.name == "network: ids":
        return "Give the network a label set with the classes in the order of its answers."
    which = "--label-set names" if own else "the checkpoint names"
    words = f"Compare the order of the classes that {which} with what the network was trained on"
    if slip.name.startswith("labels: "):
        words += (
            ". Compare the values in the label files with the data set's classes, too: if they "
            "count from 1, give the label set `label_ids` from 1, and --label-values ids"
        )
    return f"{words}."


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """The table of recorded results: what was said of a network, and what was found."""
    header = ["said", "mIoU %", "found", "mIoU % then", "difference, points"]
    rows = []
    for result in results:
        if result["kind"] != "diagnose":
            continue
        said, best = result["said"], result["best"]
        first, last = result["rounds"][0], result["rounds"][-1]
        gained = result["difference_points"]
        rows.append(
            [
                _brief(said["preprocessing"]),
                number(first["miou_percent"], 1),
                ", ".join(f"`{name}`" for name in result["found"]) or "nothing",
                number(last["miou_percent"], 1) if best != said else "-",
                bounded(gained["value"], gained["low"], gained["high"], 1) if gained else "-",
            ]
        )
    return Table(header, rows, left=1).markdown()


def _brief(value: Mapping[str, Any]) -> str:
    """A recorded preprocessing: its name, or its numbers to a few digits."""
    from icnet_deploy.networks.preprocessing import Preprocessing

    name = _name_of(Preprocessing.from_dict(dict(value)))
    if name is not None:
        return f"`{name}`"
    numbers = (" ".join(f"{each:.3g}" for each in value[key]) for key in ("mean", "scale"))
    return f"{value['channels']}, mean {next(numbers)}, scale {next(numbers)}"


def _name_of(preprocessing: Preprocessing) -> str | None:
    from icnet_deploy.networks.preprocessing import PREPROCESSINGS

    wanted = _short(preprocessing)
    return next((n for n, known in PREPROCESSINGS.items() if _short(known) == wanted), None)


def _short(preprocessing: Preprocessing) -> dict[str, Any]:
    """Its JSON form, with no more digits than matter."""
    value = preprocessing.to_dict()
    for key in ("mean", "scale"):
        value[key] = [float(f"{each:.9g}") for each in value[key]]
    return value


def _reading(reading: Reading) -> dict[str, Any]:
    return {
        "preprocessing": _short(reading.preprocessing),
        "upsampling": reading.upsampling,
        "classes": list(reading.table),
    }


def _notes(found: Diagnosis) -> list[str]:
    """What a reader must know to read the numbers: sentences."""
    notes = [
        f"{found.basis}. The intervals hold in {100 * LEVEL:g} % of cases. Clearly better: by at "
        f"least {MARGINS[Kind.INPUT]:g} point ({MARGINS[Kind.UPSAMPLING]:g} for the upsampling)."
    ]
    for each in found.rounds:
        if each.best is not None and each.as_good:
            others = ", ".join(f"`{one.slip.name}`" for one in each.as_good)
            notes.append(f"On these images, as good as `{_best(each)}`: {others}.")
    undecided = ", ".join(f"`{one.slip.name}`" for one in found.undecided())
    if undecided and found.enough:
        which = "Undecided in addition" if found.found else "Undecided"
        notes.append(f"{which}: {undecided}; more images may decide (--limit N).")
    miou = found.rounds[-1].miou
    if miou < _HOPELESS and found.enough:
        some = "none of the usual mistakes explains it"
        if found.total is not None:
            some = "something else is also wrong"
        notes.append(
            f"{number(miou)} % mIoU is low, and {some}. Are the weights trained, and of this "
            "network? Is the label set the network's own?"
        )
    return notes


def _best(one: Round) -> str:
    return one.best.slip.name if one.best else ""


def _title(found: Diagnosis, index: int) -> str:
    names = [f"`{slip.name}`" for slip in found.found[:index]]
    return f"With {' and '.join(names)}" if names else "With your settings"


def _table(one: Round) -> Table:
    """Every try of a round, the best first."""
    ranked = sorted(one.tries, key=lambda each: -each.difference.value)
    return Table(_HEADER, [_row(each) for each in ranked])


def _row(one: Try) -> Sequence[str]:
    difference = one.difference
    words: Mapping[Outcome, str] = {
        Outcome.BETTER: "clearly better",
        Outcome.UNDECIDED: "undecided",
        Outcome.NOT_BETTER: "",
    }
    return [
        one.slip.name,
        number(one.miou),
        bounded(difference.value, difference.low, difference.high, 2),
        str(one.images),
        words[one.outcome],
    ]
