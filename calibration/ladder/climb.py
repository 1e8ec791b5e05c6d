"""The climb: rung after rung, until one keeps the budget on images that no rung was chosen by.

A rung is tried on half of the images. Where it is not past the budget there, it is proved on the
others, as a search of `icnet sensitivity` is; where it is, or the proof is not enough, the next
rung is tried. All looks at the images of the proof together err as seldom as one (C. Bonferroni's
inequality): each rung that there may be has its part of the error.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from icnet_deploy.calibration.artefact import Recipe
from icnet_deploy.calibration.sensitivity.proof import Proof, Trial
from icnet_deploy.calibration.sensitivity.search import Attempt, Gain
from icnet_deploy.evaluation.confidence.differences import LEVEL
from icnet_deploy.evaluation.verdicts import Finding, Judgement, Verdict


class Tried(NamedTuple):
    """What a rung made.

    Attributes:
        recipe: of its graphs.
        attempts: its graphs, scored on the images that it may see.
        best: the one that it would take; where none met the budget, the nearest.
    """

    recipe: Recipe
    attempts: Sequence[Attempt]
    best: Attempt


class Step(NamedTuple):
    """What came of one rung.

    Attributes:
        rung: its name.
        tried: what it made.
        proof: of those that met the budget; None where none did.
        seconds: that it took, the proof included.
        gain: what it came to over what the rung before came to, on the images that rungs may see;
            None of the first.
    """

    rung: str
    tried: Tried
    proof: Proof | None
    seconds: float
    gain: Gain | None = None

    @property
    def attempt(self) -> Attempt:
        """What the rung came to: what was proved last, else its best."""
        return self.tried.best if self.proof is None else self.proof.last.attempt


def keeps(judgement: Judgement, strict: bool) -> bool:
    """Whether a judgement is enough to stop at.

    mIoU is within its limit and no class is past its own. Where so few images were seen that they
    say nothing, no rung could be proved, and it is enough that none is past.

    Args:
        judgement: what the budget says of a graph.
        strict: whether every class must be within, too.
    """
    if judgement.verdict is Verdict.PAST:
        return False
    if strict:
        return judgement.verdict is Verdict.WITHIN
    return all(each.verdict is Verdict.WITHIN or each.endless for each in _means(judgement))


def _means(judgement: Judgement) -> list[Finding]:
    """The finding of mIoU; where that has no limit, all of them."""
    return [each for each in judgement.findings if each.what == "mIoU"] or list(judgement.findings)


def climb(
    rungs: Mapping[str, Callable[[], Tried | None]],
    prove: Callable[[Sequence[Attempt], float], Proof],
    enough: Callable[[Judgement], bool],
    gain: Callable[[Attempt, Attempt], Gain],
    tell: Callable[[Step], None] = lambda step: None,
) -> list[Step]:
    """Tries the rungs in turn, and stops at the first that keeps the budget.

    Args:
        rungs: name -> tries it; None where it does not apply.
        prove: proves attempts that met the budget, at a level that all of them share.
        enough: whether a proof's last judgement is enough.
        gain: says what an attempt has gained over another.
        tell: is told each step.

    Returns:
        The steps, in order.
    """
    level = 1 - (1 - LEVEL) / len(rungs)
    steps: list[Step] = []
    for rung, attempt in rungs.items():
        begin = time.perf_counter()
        tried = attempt()
        if tried is None:
            continue
        proof = prove(tried.attempts, level) if tried.best.met else None
        step = Step(rung, tried, proof, time.perf_counter() - begin)
        if steps:
            step = step._replace(gain=gain(step.attempt, steps[-1].attempt))
        steps.append(step)
        tell(steps[-1])
        if proof is not None and enough(proof.last.judgement):
            break
    return steps


def chosen(steps: Iterable[Step], enough: Callable[[Judgement], bool]) -> Step | None:
    """The step to take: the one that keeps the budget; else the best of those not past it.

    That is the one whose interval of mIoU reaches least far down. None if all are past it.
    """
    proved = [
        (step, step.proof.last)
        for step in steps
        if step.proof is not None and step.proof.verdict is not Verdict.PAST
    ]
    kept = [step for step, trial in proved if enough(trial.judgement)]
    if kept:
        return kept[-1]
    return max(proved, key=lambda pair: _lowest(pair[1]), default=(None, None))[0]


def _lowest(trial: Trial) -> float:
    return trial.cost.differences.miou.low
