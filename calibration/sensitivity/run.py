"""The run of `icnet sensitivity`: 8-bit graphs against float32 on the same runtime."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from icnet_deploy.calibration.artefact import Recipe, write_quantized
from icnet_deploy.calibration.calibrate import Calibration
from icnet_deploy.calibration.sensitivity.bench import (
    TIME,
    Bench,
    Graphs,
    alone_costs,
    inference_times,
)
from icnet_deploy.calibration.sensitivity.kept import calibration_of
from icnet_deploy.calibration.sensitivity.plots import cost_plot, trade_off_plot
from icnet_deploy.calibration.sensitivity.proof import Parts, Proof, halves, prove, refuse_seen
from icnet_deploy.calibration.sensitivity.report import sensitivity_page, sensitivity_text
from icnet_deploy.calibration.sensitivity.search import Attempt, Block, Cost, modules_of, search
from icnet_deploy.data import Dataset
from icnet_deploy.data.options import open_data
from icnet_deploy.errors import CheckFailed
from icnet_deploy.evaluation.budgets import Budget
from icnet_deploy.evaluation.interval_plot import difference_plot
from icnet_deploy.evaluation.score import refuse_calibration_images
from icnet_deploy.evaluation.verdicts import Verdict
from icnet_deploy.files import scratch_folder, sha256, write_json, write_text
from icnet_deploy.images import Fitting
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.report.html import Html
from icnet_deploy.report.svg import alone as as_file
from icnet_deploy.runtime.machine import machine, versions

_SCHEMA = 2
_CHECKED = 8


class _Costs(NamedTuple):
    """What quantizing costs.

    Attributes:
        alone: of each block.
        path: of the graph that `icnet quantize` writes.
        together: of that one.
    """

    alone: dict[Block, Cost]
    path: Path
    together: Cost


class _Proved(NamedTuple):
    """A proof, and the images that it rests on."""

    proof: Proof
    bench: Bench


class _Found(NamedTuple):
    """What a search ended with.

    Attributes:
        attempts: every graph that was tried.
        best: the one that met the budget with the fewest blocks in float, or came nearest.
        proved: the graphs that met it; None where none did.
    """

    attempts: list[Attempt]
    best: Attempt
    proved: _Proved | None


def run(args: argparse.Namespace, cache: Path, budget: Budget | None) -> None:
    """Does what was asked for.

    Args:
        args: of `icnet sensitivity`.
        cache: where ranges are kept.
        budget: of a search; None: each block is scored, and none is searched.

    Raises:
        CheckFailed: no graph meets the budget, or the proof is undecided and that was to fail.
    """
    dataset = open_data(args)
    parts = None if budget is None else _parts(args, dataset)
    calibration = calibration_of(args, cache)
    refuse_calibration_images(dataset, {str(cache): calibration.images})
    if parts is not None:
        if args.proof_split is not None:
            refuse_calibration_images(parts.unseen, {str(cache): calibration.images})
        refuse_seen(parts)
    with scratch_folder() as folder:
        recipe = Recipe(calibration, args.placement, calibration.method(args.placement))
        graphs = Graphs(args.model, recipe, folder)
        bench = Bench(graphs, dataset if parts is None else parts.seen)
        costs = _costs(graphs, bench)
        result = _result(args, calibration, graphs, bench, costs)
        if parts is None or budget is None:
            _show(args, result, costs, None)
            return
        found = _search(graphs, bench, parts, costs, budget)
        paths = [each.path for each in found.attempts]
        times = inference_times(graphs, bench.dataset, paths, args.rounds)
        result["search"] = _search_json(budget, found, parts, times)
    drawn = None
    if found.proved is not None:
        last = found.proved.proof.last
        title = f"the proof, {last.attempt.name} in float"
        drawn = difference_plot(last.cost.differences, budget, title)
    written = _write(args, graphs, parts.seen, found, calibration)
    _show(args, result, costs, drawn, written)
    _require_proof(args, found, budget)


def _parts(args: argparse.Namespace, dataset: Dataset) -> Parts:
    """The images that the search sees, and those that it does not."""
    if args.proof_split is None:
        return halves(dataset)
    other = open_data(argparse.Namespace(**{**vars(args), "split": args.proof_split}))
    return Parts(dataset, other, f"the split {other.split}")


def _costs(graphs: Graphs, bench: Bench) -> _Costs:
    """Scores the graph of each block, and the one of all that are quantized by default."""
    alone = alone_costs(graphs, bench, graphs.blocks)
    path = graphs.write(graphs.kept)
    return _Costs(alone, path, bench.cost(path, "all others"))


def _search(graphs: Graphs, bench: Bench, parts: Parts, costs: _Costs, budget: Budget) -> _Found:
    """Searches on the images that it may see, and proves on the others."""

    def attempt(chosen: Sequence[Block]) -> tuple[Path, Cost]:
        if not chosen:
            return costs.path, costs.together
        path = graphs.write([*graphs.kept, *chosen])
        return path, bench.cost(path, f"search, {len(chosen)} in float")

    attempts, best = search(costs.alone, budget, attempt)
    if not best.met:
        return _Found(attempts, best, None)
    unseen = Bench(graphs, parts.unseen, " for the proof")

    def score(tried: Attempt, level: float) -> Cost:
        return unseen.cost(tried.path, f"proof, {len(tried.in_float)} in float", level)

    return _Found(attempts, best, _Proved(prove(attempts, budget, score), unseen))


def _search_json(
    budget: Budget, found: _Found, parts: Parts, times: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    proof = None
    if found.proved is not None:
        score = found.proved.bench.score
        proof = {
            "rule": parts.rule,
            "protocol": score.protocol().to_dict(),
            "image_names": [one.name for one in score.images_counted],
            **found.proved.proof.to_dict(found.attempts),
        }
    return {
        "budget": budget.to_dict(),
        "limits": str(budget),
        "time": TIME,
        "float32": times[0],
        "attempts": [
            {
                "in_float": [block.name for block in each.in_float],
                "met": each.met,
                **each.cost.to_dict(),
                "inference": time,
            }
            for each, time in zip(found.attempts, times[1:], strict=True)
        ],
        "best": found.attempts.index(found.best),
        "proof": proof,
    }


def _result(
    args: argparse.Namespace,
    calibration: Calibration,
    graphs: Graphs,
    bench: Bench,
    costs: _Costs,
) -> dict[str, Any]:
    return {
        "schema": _SCHEMA,
        "kind": "sensitivity",
        "versions": versions(),
        "machine": machine(),
        "artefact": args.model.name,
        "sha256": artefact_sha256(args.model),
        "weights_sha256": graphs.metadata.weights_sha256,
        "placement": args.placement,
        "runtime": graphs.runtime,
        "ranges": calibration.method(args.placement),
        "calibration_images": list(calibration.images),
        "protocol": bench.score.protocol().to_dict(),
        "image_names": [one.name for one in bench.score.images_counted],
        "basis": costs.together.differences.basis(),
        "level": costs.together.differences.level,
        "float32": bench.score.to_dict(),
        "blocks": [{**asdict(block), **cost.to_dict()} for block, cost in costs.alone.items()],
        "together": {
            "convolutions": sum(block.convolutions for block in costs.alone if not block.kept),
            **costs.together.to_dict(),
        },
        "search": None,
    }


def _show(
    args: argparse.Namespace,
    result: Mapping[str, Any],
    costs: _Costs,
    proof: Html | None,
    written: str = "",
) -> None:
    """Writes the reports that were asked for, and prints the result and what was written of it."""
    if args.json:
        write_json(args.json, result)
    if args.report:
        title = "all others in 8 bits, minus float32"
        together = difference_plot(costs.together.differences, title=title)
        write_text(args.report, sensitivity_page(result, together, proof))
    if args.plot:
        write_text(args.plot, as_file(cost_plot(result)))
    if args.trade_off:
        write_text(args.trade_off, as_file(trade_off_plot(result["search"])))
    print(sensitivity_text(result) + written)  # last: its reader may close the pipe


def _write(
    args: argparse.Namespace,
    graphs: Graphs,
    seen: Dataset,
    found: _Found,
    calibration: Calibration,
) -> str:
    """Writes what was proved or is undecided, if it was asked for; a line that says so."""
    if args.out is None or found.proved is None or found.proved.proof.verdict is Verdict.PAST:
        return ""
    kept = modules_of([*graphs.kept, *found.proved.proof.last.attempt.in_float])
    fitting = Fitting.of(graphs.metadata)
    checked = (fitting.apply(s.image, graphs.size).pixels for s in seen.first(_CHECKED))
    method = calibration.method(args.placement)
    recipe = Recipe(calibration, args.placement, method, kept)
    write_quantized(args.model, args.out, recipe, checked)
    return f"\n{args.out}: SHA-256 {sha256(args.out)[:16]}..., in float: {', '.join(kept)}"


def _require_proof(args: argparse.Namespace, found: _Found, budget: Budget) -> None:
    """Raises CheckFailed where no graph was found, or none was proved."""
    advice = "Calibrate on more images, widen the budget, or use fp16"
    if found.proved is None:
        raise CheckFailed(
            f"no graph meets the budget; the nearest has {found.best.name} in float: "
            f"{'; '.join(budget.breaches(found.best.cost))}. {advice}"
        )
    proof = found.proved.proof
    attempt, _, judgement = proof.last
    if proof.verdict is Verdict.PAST:
        past = "; ".join(map(str, judgement.of(Verdict.PAST)))
        raise CheckFailed(
            "no graph that meets the budget in the search keeps it in the proof; the last has "
            f"{attempt.name} in float: {past}. {advice}"
        )
    if proof.verdict is Verdict.UNDECIDED and args.undecided == "fail":
        raise CheckFailed(
            f"the proof is undecided: {'; '.join(map(str, judgement.of(Verdict.UNDECIDED)))}. Give "
            "more images, or leave out --undecided fail"
        )
