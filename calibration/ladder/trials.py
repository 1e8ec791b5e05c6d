"""The rungs of one placement, tried on files that are scored as `icnet sensitivity` scores them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from icnet_deploy.calibration.artefact import Recipe
from icnet_deploy.calibration.ladder.climb import Step, Tried, keeps
from icnet_deploy.calibration.ladder.options import RUNGS
from icnet_deploy.calibration.ladder.refined import Refinery
from icnet_deploy.calibration.sensitivity.bench import Bench, Graphs, alone_costs, inference_times
from icnet_deploy.calibration.sensitivity.proof import Parts, Proof, prove
from icnet_deploy.calibration.sensitivity.search import (
    Attempt,
    Block,
    Cost,
    Gain,
    modules_of,
    search,
)
from icnet_deploy.evaluation.budgets import Budget
from icnet_deploy.evaluation.verdicts import Judgement, Verdict


class Trials:
    """Makes and scores the graphs of the rungs of one placement.

    Args:
        source: the float32 file.
        recipe: without the ladder.
        refinery: learns what the rungs need.
        parts: labelled images, those that rungs are tried on and those of the proof.
        budget: that is to be kept.
        strict: whether every class must be within it, see `keeps`.
        folder: where graphs are written; the caller removes it.
    """

    def __init__(
        self,
        source: Path,
        recipe: Recipe,
        refinery: Refinery,
        parts: Parts,
        budget: Budget,
        strict: bool,
        folder: Path,
    ) -> None:
        self._source, self._recipe, self._refinery = source, recipe, refinery
        self._parts, self._budget, self._strict, self._folder = parts, budget, strict, folder
        self._bench = Bench(self._graphs(recipe), parts.seen)
        self._proof: Bench | None = None
        self._tried: list[Tried] = []

    def rungs(self, names: Sequence[str]) -> dict[str, Callable[[], Tried | None]]:
        """What tries each of these rungs, as `climb` takes it."""
        tries = (
            lambda: self._as_it_is(self._recipe, RUNGS[0]),
            lambda: self._as_it_is(self._refinery.rounding(self._recipe), RUNGS[1]),
            self._smoothing,
            self._in_float,
        )
        return {name: each for name, each in zip(RUNGS, tries, strict=True) if name in names}

    def enough(self, judgement: Judgement) -> bool:
        """See `keeps`."""
        return keeps(judgement, self._strict)

    def prove(self, attempts: Sequence[Attempt], level: float) -> Proof:
        """Proves graphs on the images that no rung saw."""
        if self._proof is None:
            self._proof = Bench(self._graphs(self._recipe), self._parts.unseen, " for the proof")
        score = partial(self._proved_cost, self._proof)
        return prove(attempts, self._budget, score, level, self.enough)

    def gain(self, attempt: Attempt, before: Attempt) -> Gain:
        """What one attempt has gained over another, on the images that rungs are tried on."""
        return self._bench.gain(attempt.path, before.path)

    def recipe_of(self, step: Step) -> Recipe:
        """How what a step came to is made."""
        if not step.attempt.in_float:
            return step.tried.recipe
        kept = self._graphs(step.tried.recipe).kept
        return replace(step.tried.recipe, exclude=modules_of([*kept, *step.attempt.in_float]))

    def times(self, steps: Sequence[Step], rounds: int) -> list[dict[str, Any]]:
        """`timing.summary` of float32 and of what each step came to, timed in turn."""
        paths = [step.attempt.path for step in steps]
        return inference_times(self._graphs(self._recipe), self._bench.dataset, paths, rounds)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form of what all rungs of the placement have in common."""
        proof = self._proof and self._proof.score.protocol().to_dict()
        return {
            "placement": self._recipe.placement,
            "ranges": self._recipe.method,
            "runtime": self._graphs(self._recipe).runtime,
            "float32": self._bench.score.to_dict(),
            "protocol": self._bench.score.protocol().to_dict(),
            "proof_protocol": proof,
        }

    def _graphs(self, recipe: Recipe) -> Graphs:
        return Graphs(self._source, recipe, self._folder)

    def _proved_cost(self, bench: Bench, attempt: Attempt, level: float) -> Cost:
        return bench.cost(attempt.path, f"proof, {len(attempt.in_float)} in float", level)

    def _as_it_is(self, recipe: Recipe, words: str) -> Tried:
        """The graph of a recipe, none of its blocks put back into float."""
        graphs = self._graphs(recipe)
        path = graphs.write(graphs.kept)
        cost = self._bench.cost(path, words)
        past = self._budget.judge(cost.differences).verdict is Verdict.PAST
        attempt = Attempt((), path, cost, not past)
        self._tried.append(Tried(recipe, [attempt], attempt))
        return self._tried[-1]

    def _smoothing(self) -> Tried | None:
        recipe = self._refinery.smoothing(self._recipe)
        return None if recipe is None else self._as_it_is(recipe, RUNGS[2])

    def _in_float(self) -> Tried:
        """The fewest blocks in float, of the recipe whose labels are most alike."""
        base = max(self._tried, key=lambda tried: tried.best.cost.agreement)
        graphs, before = self._graphs(base.recipe), base.best

        def attempt(blocks: Sequence[Block]) -> tuple[Path, Cost]:
            if not blocks:
                return before.path, before.cost
            path = graphs.write([*graphs.kept, *blocks])
            return path, self._bench.cost(path, f"search, {len(blocks)} in float")

        def met(cost: Cost) -> bool:
            # What no rung could prove is not met by luck on the other images.
            return cost is not before.cost and self.enough(self._budget.judge(cost.differences))

        blocks = [block for block in graphs.blocks if not block.kept]
        alone = alone_costs(graphs, self._bench, blocks)
        return Tried(base.recipe, *search(alone, self._budget, attempt, met))
