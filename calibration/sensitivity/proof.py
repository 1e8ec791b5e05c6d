"""The proof of what a search found, on images that the search did not see.

A search picks among graphs by its images, and so flatters what it picks. The proof holds the pick
to the budget by intervals on other images. If that pick is past the budget, the next graph is
proved: the one that met the budget in the search and has more blocks in float. Each look may err,
so the level of the intervals is that at which all looks together err as seldom as one (C.
Bonferroni's inequality).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from icnet_deploy.calibration.sensitivity.search import Attempt, Cost
from icnet_deploy.data import Dataset
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.budgets import Budget
from icnet_deploy.evaluation.confidence.differences import FEWEST_GROUPS, LEVEL
from icnet_deploy.evaluation.verdicts import Judgement, Verdict


class Parts(NamedTuple):
    """The images of a search.

    Attributes:
        seen: by the search.
        unseen: by it; those of the proof.
        rule: how they were parted, in words that say which the unseen ones are.
    """

    seen: Dataset
    unseen: Dataset
    rule: str


def halves(dataset: Dataset) -> Parts:
    """Parts a data set: every other group or, where groups are few, the halves of each in time.

    Frames of one drive that take turns would show the proof what the search has seen.

    Raises:
        InputError: it has a single image.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(dataset.groups()):
        members.setdefault(group, []).append(index)
    seen: list[int] = []
    unseen: list[int] = []
    if len(members) >= 2 * FEWEST_GROUPS:
        rule = "every other group"
        for turn, images in enumerate(members.values()):
            (unseen if turn % 2 else seen).extend(images)
    else:
        rule = "the second half of each group in time"
        for images in members.values():
            odd = len(images) % 2 == 1 and len(seen) <= len(unseen)
            cut = len(images) // 2 + odd
            seen += images[:cut]
            unseen += images[cut:]
    if not unseen:
        raise InputError(
            f"a search needs some images, and its proof needs others; {dataset.name} "
            f"{dataset.split} has 1 image: give more, or another split with --proof-split"
        )

    def of(indices: Sequence[int]) -> Dataset:
        return replace(dataset, files=tuple(dataset.files[i] for i in sorted(indices)))

    return Parts(of(seen), of(unseen), rule)


def refuse_seen(parts: Parts) -> None:
    """Refuses to prove on an image that the search sees, whatever its file is called.

    Raises:
        InputError: there is one; it names it.
    """
    seen = {digest: s.name for s in parts.seen for digest in s.content_hashes()}
    for sample in parts.unseen:
        twin = next((seen[digest] for digest in sample.content_hashes() if digest in seen), None)
        if twin is None:
            continue
        split, other = parts.seen.split, parts.unseen.split
        if split == other:
            raise InputError(
                f"{twin} and {sample.name} of the split {split} are the same image, once for the "
                "search and once for the proof: remove one of them"
            )
        raise InputError(
            f"the image {sample.name} of the split {other} is also in the split {split}, which is "
            "for the search: give --proof-split a split of other images, or leave it out"
        )


class Trial(NamedTuple):
    """One graph that was held to the budget.

    Attributes:
        attempt: the graph, as the search tried it.
        cost: how far it is from float32 on the images of the proof.
        judgement: what the budget says of that.
    """

    attempt: Attempt
    cost: Cost
    judgement: Judgement


@dataclass(frozen=True)
class Proof:
    """The graphs that were proved, in order, up to the first that will do.

    Attributes:
        candidates: how many might have been proved.
        level: of each interval, so that all candidates together err as seldom as `LEVEL` says.
        trials: those that were, one at least.
    """

    candidates: int
    level: float
    trials: tuple[Trial, ...]

    @property
    def last(self) -> Trial:
        """What decides."""
        return self.trials[-1]

    @property
    def verdict(self) -> Verdict:
        """Of the last."""
        return self.last.judgement.verdict

    def to_dict(self, attempts: Sequence[Attempt]) -> dict[str, Any]:
        """The JSON form; graphs are named by their places among the `attempts`."""
        trials = [
            {
                "attempt": attempts.index(attempt),
                "in_float": [block.name for block in attempt.in_float],
                "verdict": str(judgement.verdict),
                "more_images": judgement.more_images(),
                "findings": judgement.to_dict(),
                **cost.to_dict(),
            }
            for attempt, cost, judgement in self.trials
        ]
        return {
            "basis": self.last.cost.differences.basis(),
            "candidates": self.candidates,
            "level": self.level,
            "verdict": str(self.verdict),
            "trials": trials,
        }


def prove(
    attempts: Sequence[Attempt],
    budget: Budget,
    score: Callable[[Attempt, float], Cost],
    level: float = LEVEL,
    keeps: Callable[[Judgement], bool] = lambda judgement: judgement.verdict is not Verdict.PAST,
) -> Proof:
    """Holds graphs to the budget, the one with the fewest blocks in float first.

    Args:
        attempts: of a search, one of which met the budget at least.
        budget: of the whole graph.
        score: scores a graph on the images of the proof, with intervals of that level.
        level: at which all looks together err as seldom as one.
        keeps: whether a graph need not be followed by one with more blocks in float; unless told
            otherwise, one that is not past the budget.

    Returns:
        The proof; it ends with the first graph that `keeps`.
    """
    chain: list[Attempt] = []
    for attempt in sorted((a for a in attempts if a.met), key=lambda a: len(a.in_float)):
        if not chain or len(attempt.in_float) > len(chain[-1].in_float):
            chain.append(attempt)
    level = 1 - (1 - level) / len(chain)
    trials: list[Trial] = []
    for attempt in chain:
        cost = score(attempt, level)
        trials.append(Trial(attempt, cost, budget.judge(cost.differences)))
        if keeps(trials[-1].judgement):
            break
    return Proof(len(chain), level, tuple(trials))
