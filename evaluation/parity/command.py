"""`icnet parity`: proves that artefacts, on their runtimes, are the PyTorch model."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from icnet_deploy.command import (
    Goal,
    add_output_options,
    check_outputs,
    command,
    number_type,
    options,
)
from icnet_deploy.command import parser as make_parser
from icnet_deploy.data.options import add_data_options, open_data
from icnet_deploy.documents import PERCENT
from icnet_deploy.evaluation.budgets import (
    Budget,
    add_budget_options,
    add_undecided_option,
    chosen_budgets,
    require_verdicts,
)
from icnet_deploy.evaluation.kept import Kept, add_resume_option
from icnet_deploy.evaluation.origins import add_reference_options, choose_reference
from icnet_deploy.evaluation.pairing import onnx_runtimes, pair
from icnet_deploy.evaluation.parity.page import PICTURES, parity_page
from icnet_deploy.evaluation.parity.report import to_dict, verdict_table
from icnet_deploy.evaluation.parity.run import compare
from icnet_deploy.files import write_json, write_text
from icnet_deploy.precisions import PRECISIONS


def _parser() -> argparse.ArgumentParser:
    placed = ", ".join(
        f"{row.name} for {' and '.join(name for name in onnx_runtimes() if row.meant_for(name))}"
        for row in PRECISIONS.values()
        if row.runtimes
    )
    agreements = ", ".join(
        f"{100 * row.agreement:g} for {row.name}" for row in PRECISIONS.values() if row.agreement
    )
    parser = make_parser(
        "icnet parity",
        "Compares artefacts with the float32 network on your images, and tells whether each stays "
        "within its budget.",
        "icnet parity icnet.onnx icnet.fp16.onnx --dataset scenes --data scenes "
        "--report parity.html",
    )
    parser.add_argument(
        "artefacts", nargs="+", type=Path, metavar="ARTEFACT", help="ONNX files and engines"
    )
    add_data_options(parser, images=True)
    add_reference_options(
        parser,
        "the shipped checkpoint, if the artefacts were made from it; else a float32 file with "
        "logits among them, on ONNX Runtime",
    )
    add_budget_options(parser)
    options(parser, Goal.LIMITS).add_argument(
        "--min-agreement",
        type=number_type(PERCENT),
        metavar="PERCENT",
        help="the least share of pixels that must have the reference's label, for every "
        f"precision (default: {agreements}); on images without labels it is the only limit",
    )
    add_undecided_option(parser)
    group = options(parser, Goal.RUN)
    group.add_argument(
        "--runtime",
        action="append",
        metavar="NAME",
        help="a runtime to compare on; 'rounded' is ONNX Runtime with every float16 value rounded, "
        "as on a GPU; may be repeated (default: every installed runtime that a file's precision "
        f"is meant for: {placed}, others for all; for an engine, the runtime that built it)",
    )
    group.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu or cuda (default: auto)"
    )
    add_resume_option(parser)
    add_output_options(parser)
    return parser


def _budgets(arguments: argparse.Namespace) -> dict[str, Budget]:
    budgets = chosen_budgets(arguments)
    if arguments.min_agreement is None:
        return budgets
    least = arguments.min_agreement / 100
    return {name: replace(budget, agreement=least) for name, budget in budgets.items()}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet parity`; returns its exit code."""
    arguments = _parser().parse_args(argv)
    dataset = open_data(arguments)
    check_outputs(arguments)
    pairing = pair(arguments.artefacts, arguments.runtime, arguments.device)
    for error in pairing.without.values():
        raise error
    with Kept.below_cache(arguments.resume) as kept:
        rows, _ = compare(
            pairing,
            dataset,
            choose_reference(arguments, list(pairing.files.values())),
            budgets=_budgets(arguments),
            pictures=PICTURES if arguments.report else 0,
            strict=True,
            kept=kept,
        )
        if arguments.json:
            write_json(arguments.json, to_dict(rows, pairing.left_out))
        if arguments.report:
            write_text(arguments.report, parity_page(rows, pairing.left_out))
    print(verdict_table(rows, pairing.left_out))  # last: its reader may close the pipe
    require_verdicts({str(row): row.judgement().verdict for row in rows}, arguments)
    return 0
