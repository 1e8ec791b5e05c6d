"""`icnet evaluate --compare OLD NEW`: what fell between two recorded releases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.budgets import Budget, budget_for
from icnet_deploy.evaluation.confidence.differences import Differences, Interval
from icnet_deploy.evaluation.evaluate.compared import compare
from icnet_deploy.evaluation.evaluate.records import Counted, Key, Run
from icnet_deploy.evaluation.verdicts import Judgement, Verdict

_SCHEMA = 1


@dataclass(frozen=True)
class Change:
    """How one network's accuracy changed, in one precision on one runtime.

    Attributes:
        key: what it is of.
        old, new: what was recorded.
        differences: new minus old, over the same images.
        budget: what may be lost; a rise fails nothing.
    """

    key: Key
    old: Counted
    new: Counted
    differences: Differences
    budget: Budget

    @classmethod
    def of(cls, old: Counted, new: Counted) -> "Change":
        """Compares two records of one key.

        Raises:
            InputError: they were scored in unlike ways, or on unlike images.
            ModelError: the precision has no budget.
        """
        compared = compare(new.result, old.result)
        assert compared.differences is not None  # a row of counts has those of each image
        allowed = budget_for(new.key.precision)
        budget = replace(allowed, agreement=None, miou_rises=False, class_rises=False)
        return cls(new.key, old, new, compared.differences, budget)

    def judgement(self) -> Judgement:
        """What the budget says of what fell."""
        return self.budget.judge(self.differences)

    def miou(self) -> tuple[float | None, float | None]:
        """What both scored, old and new, in percent."""
        old, new = (one.result["score"]["miou_percent"] for one in (self.old, self.new))
        return old, new

    def worst_class(self) -> tuple[str, Interval]:
        """The class that fell most, of those that were seen enough if any was."""
        known = self.differences
        seen = {n: one for n, one in known.classes.items() if known.seen[n].enough()}
        return min((seen or known.classes).items(), key=lambda item: item[1].value)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        old, new = self.miou()
        judgement = self.judgement()
        return {
            **self.key._asdict(),
            "images": self.differences.images,
            "verdict": str(judgement.verdict),
            "findings": judgement.to_dict(),
            "miou_percent": {"old": old, "new": new},
            "sha256": {"old": self.old.sha256, "new": self.new.sha256},
            "miou_difference_points": self.differences.miou.to_dict(),
            "not_in_miou": list(self.differences.left_out),
            "iou_difference_points": {
                name: one.to_dict() for name, one in self.differences.classes.items()
            },
        }


class Differs(NamedTuple):
    """What two releases were recorded with that is not the same: `onnxruntime: 1.31 and 1.32`.

    Attributes:
        what: a package, or `cpu`.
        old, new: its versions or names.
    """

    what: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.what}: {self.old} and {self.new}"


@dataclass(frozen=True)
class Releases:
    """Two releases side by side.

    Attributes:
        old, new: what was recorded, each in one run or more.
        changes: of what both have.
        refused: what both have and cannot be compared -> why.
        only_old, only_new: what one of them has alone.
    """

    old: Sequence[Run]
    new: Sequence[Run]
    changes: Sequence[Change]
    refused: Mapping[Key, str]
    only_old: Sequence[Key]
    only_new: Sequence[Key]

    def of(self, verdict: Verdict) -> list[Change]:
        """The changes of one verdict."""
        return [change for change in self.changes if change.judgement().verdict is verdict]

    def differing(self) -> list[Differs]:
        """The packages and processors that are not the same."""
        sides = (_surroundings(self.old), _surroundings(self.new))
        names = sorted({name for side in sides for name in side})
        said = ((name, *(side.get(name, "none") for side in sides)) for name in names)
        return [Differs(name, old, new) for name, old, new in said if old != new]

    def names(self) -> tuple[list[str], list[str]]:
        """What the runs of each side are called: `0.2.0, 2030-02-02`.

        With the file of its counts where one of the other side is called so, too.
        """
        sides = (self.old, self.new)
        twice = set.intersection(*({str(run) for run in runs} for runs in sides))
        old, new = (
            dict.fromkeys(f"{run} ({run.file})" if str(run) in twice else f"{run}" for run in runs)
            for runs in sides
        )
        return list(old), list(new)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: every difference is new minus old."""
        old, new = self.names()
        return {
            "schema": _SCHEMA,
            "kind": "releases",
            "old": old,
            "new": new,
            "rows": [change.to_dict() for change in self.changes],
            "not_compared": [{**k._asdict(), "why": why} for k, why in self.refused.items()],
            "only_old": [key._asdict() for key in self.only_old],
            "only_new": [key._asdict() for key in self.only_new],
            "differing": [one._asdict() for one in self.differing()],
        }


def _surroundings(runs: Sequence[Run]) -> dict[str, str]:
    """Package -> its version, and `cpu` -> the processor; several where runs differ."""
    values: dict[str, list[str]] = {}
    for run in runs:
        of_run = {**run.versions, "cpu": run.machine.get("cpu", "not known")}
        for name, value in of_run.items():
            values.setdefault(name, []).append(str(value))
    return {name: ", ".join(dict.fromkeys(some)) for name, some in values.items()}


def compare_releases(old: Sequence[Run], new: Sequence[Run]) -> Releases:
    """Sets one release's accuracy against another's.

    Args:
        old, new: what was recorded of them.

    Raises:
        InputError: nothing can be compared; it says why.
    """
    before, after = (_by_key(runs) for runs in (old, new))
    changes, refused = [], {}
    for key in before:
        if key not in after:
            continue
        try:
            changes.append(Change.of(before[key], after[key]))
        except InputError as error:
            refused[key] = str(error)
    only_old, only_new = (
        [key for key in a if key not in b] for a, b in ((before, after), (after, before))
    )
    if not changes:
        raise InputError(_nothing(refused, only_old, only_new))
    return Releases(old, new, changes, refused, only_old, only_new)


def _by_key(runs: Sequence[Run]) -> dict[Key, Counted]:
    return {row.key: row for run in runs for row in run.rows}


def _nothing(refused: Mapping[Key, str], only_old: Sequence[Key], only_new: Sequence[Key]) -> str:
    if refused:
        each = "; ".join(f"{key}: {why}" for key, why in refused.items())
        return f"the two releases cannot be compared: {each}"
    old, new = ("; ".join(map(str, keys)) for keys in (only_old, only_new))
    return (
        "the two releases have no network, precision and runtime in common: OLD has "
        f"{old}; NEW has {new}: give two records of the same network, precision and runtime"
    )
