"""The run of the ladder in `icnet quantize`: from a recipe to one that keeps the budget."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import onnx

from icnet_deploy.calibration.artefact import Recipe
from icnet_deploy.calibration.ladder.climb import Step, chosen, climb
from icnet_deploy.calibration.ladder.options import ROUNDS, RUNGS, has_budget, rungs_of
from icnet_deploy.calibration.ladder.refined import Refinery
from icnet_deploy.calibration.ladder.report import ladder_text, placement_json, step_text
from icnet_deploy.calibration.ladder.trials import Trials
from icnet_deploy.calibration.selection import CalibrationSet
from icnet_deploy.calibration.sensitivity.proof import Parts, halves, refuse_seen
from icnet_deploy.data import Dataset
from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.evaluation.budgets import chosen_budgets
from icnet_deploy.evaluation.verdicts import Verdict
from icnet_deploy.files import scratch_folder, write_json
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.runtime.machine import machine, versions

_SCHEMA = 1


class Refined(NamedTuple):
    """What the ladder came to.

    Attributes:
        recipes: placement -> how its graph is to be made; without those that are past the budget.
        failed: placement -> why it fails the command.
    """

    recipes: dict[str, Recipe]
    failed: dict[str, str]

    def require(self) -> None:
        """Raises CheckFailed if a placement fails; it names each."""
        if self.failed:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.failed.items())
            advice = "Calibrate on more images, widen the budget, allow more --effort, or use fp16"
            raise CheckFailed(f"{reasons}. {advice}")


def refine(
    args: argparse.Namespace,
    recipes: Mapping[str, Recipe],
    model: onnx.ModelProto,
    images: CalibrationSet,
    labelled: Sequence[Dataset],
) -> Refined:
    """Climbs as far as was asked for, and prints what each rung came to.

    Args:
        args: of `icnet quantize`.
        recipes: placement -> how its graph is made on the first rung.
        model: the float32 graph.
        images: those that it is calibrated on.
        labelled: data sets of labelled images, none of which is calibrated on; the first is taken.

    Raises:
        InputError: there is a budget, and no two labelled images to prove it on.
    """
    refinery = Refinery(model, images)
    if not has_budget(args):
        return Refined({n: _all_rungs(args, refinery, r) for n, r in recipes.items()}, {})
    parts = _parts(args, labelled)
    result = _facts(args, parts, images)
    refined = Refined({}, {})
    for recipe in recipes.values():
        with scratch_folder() as folder:
            _climb(args, recipe, refinery, parts, folder, result, refined)
        print(ladder_text(result["placements"][-1]))
    if args.json:
        write_json(args.json, result)
    return refined


def _all_rungs(args: argparse.Namespace, refinery: Refinery, recipe: Recipe) -> Recipe:
    """Without a budget each rung is taken that was asked for."""
    rungs = rungs_of(args)
    if RUNGS[1] in rungs:
        recipe = refinery.rounding(recipe)
    if RUNGS[2] in rungs:
        recipe = refinery.smoothing(recipe) or recipe
    return recipe


def _parts(args: argparse.Namespace, labelled: Sequence[Dataset]) -> Parts:
    """The images that rungs are tried on, and those of the proof."""
    dataset = labelled[0] if labelled else None
    if dataset is None or len(dataset) < 2:
        count = "no image" if dataset is None else f"{len(dataset)} image"
        raise InputError(
            f"a budget is proved on labelled images: the split val of {args.dataset} in "
            f"{args.data} has {count}; expected at least 2, better 20 in 10 groups: give a data "
            "set that has them, or leave the budget out"
        )
    parts = halves(dataset)
    refuse_seen(parts)
    return parts


def _climb(
    args: argparse.Namespace,
    recipe: Recipe,
    refinery: Refinery,
    parts: Parts,
    folder: Path,
    result: dict[str, Any],
    refined: Refined,
) -> None:
    """Climbs for one placement, and adds what came of it to the result and to what is refined."""
    budget, strict = chosen_budgets(args)[recipe.placement], args.undecided == "fail"
    trials = Trials(args.model, recipe, refinery, parts, budget, strict, folder)

    def tell(step: Step) -> None:
        print(f"{recipe.placement}, step {step_text(step, trials.enough)}", flush=True)

    rungs = trials.rungs(rungs_of(args))
    steps = climb(rungs, trials.prove, trials.enough, trials.gain, tell)
    step = chosen(steps, trials.enough)
    times = trials.times(steps, args.rounds or ROUNDS)
    result["placements"].append(
        {**trials.to_dict(), **placement_json(budget, steps, step, times, trials.enough)}
    )
    if step is not None:
        refined.recipes[recipe.placement] = trials.recipe_of(step)
    if (why := _failure(step, strict)) is not None:
        refined.failed[recipe.placement] = why


def _failure(step: Step | None, strict: bool) -> str | None:
    """Why the command fails though all rungs were tried; None where it does not."""
    if step is None or step.proof is None:
        return "no step keeps the budget, and no file is written"
    if strict and step.proof.verdict is not Verdict.WITHIN:
        undecided = "; ".join(map(str, step.proof.last.judgement.of(Verdict.UNDECIDED)))
        return f"the proof is undecided: {undecided}"
    return None


def _facts(args: argparse.Namespace, parts: Parts, images: CalibrationSet) -> dict[str, Any]:
    """What the result says of all placements."""
    return {
        "schema": _SCHEMA,
        "kind": "ladder",
        "versions": versions(),
        "machine": machine(),
        "artefact": args.model.name,
        "sha256": artefact_sha256(args.model),
        "calibration_images": list(images.hashes),
        "rule": parts.rule,
        "image_names": [image.name for image, _ in parts.seen.files],
        "proof_image_names": [image.name for image, _ in parts.unseen.files],
        "placements": [],
    }
