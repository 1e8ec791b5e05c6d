"""`icnet verify`: the gate that a folder of artefacts passes before it is given to anyone."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from icnet_deploy.command import Goal, add_output_options, check_outputs, command, options
from icnet_deploy.command import parser as make_parser
from icnet_deploy.data import Dataset, prediction_table
from icnet_deploy.data.options import (
    OF_LABELS,
    add_data_options,
    open_data,
    refuse_data_options,
)
from icnet_deploy.data.scenes.dataset import drawn_scenes
from icnet_deploy.errors import CheckFailed, IcnetError, LabelSetError, UnavailableError
from icnet_deploy.evaluation.budgets import (
    BUDGETS,
    Budget,
    add_budget_options,
    add_undecided_option,
    chosen_budgets,
)
from icnet_deploy.evaluation.confidence.differences import LEVEL
from icnet_deploy.evaluation.kept import Kept, add_resume_option
from icnet_deploy.evaluation.origins import add_reference_options, choose_reference
from icnet_deploy.evaluation.pairing import open_run, pair
from icnet_deploy.evaluation.parity.page import PICTURES
from icnet_deploy.evaluation.parity.report import Failure
from icnet_deploy.evaluation.parity.run import Opener, compare
from icnet_deploy.evaluation.reference import Reference
from icnet_deploy.evaluation.verdicts import Verdict
from icnet_deploy.evaluation.verify.folder import Folder, read_folder
from icnet_deploy.evaluation.verify.looks import Ending, Looks, Watch
from icnet_deploy.evaluation.verify.record import record
from icnet_deploy.evaluation.verify.result import FAILED, Result
from icnet_deploy.files import write_json, write_text
from icnet_deploy.runtime.auto.verdicts import NAME as RECORD

_LOOKS = Looks()


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "icnet verify",
        "Checks a folder of artefacts before a release: every file must load, state where it comes "
        "from, and stay within its budget.",
        "icnet verify release --max-miou-drop 0.1 --max-class-drop 0.4 --report verify.html",
    )
    parser.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help=f"the folder; the verdicts are written into it, as {RECORD}",
    )
    options(
        parser,
        Goal.IMAGES,
        "Without --dataset, the command draws street scenes: N of them with --limit N, else as "
        f"many as the verdicts need, up to {_LOOKS.counts[-1]} and about "
        f"{_LOOKS.seconds / 60:g} minutes.",
    )
    add_data_options(parser, required=False)
    add_reference_options(
        parser,
        "the checkpoint that the artefacts were made from, if it is in the folder or is the "
        "shipped one; else a float32 file with logits in the folder, on ONNX Runtime",
    )
    add_budget_options(parser)
    add_undecided_option(parser)
    add_resume_option(parser)
    add_output_options(parser)
    return parser


def verify(
    folder: Folder,
    dataset: Dataset,
    reference: Reference,
    budgets: Mapping[str, Budget] = BUDGETS,
    pictures: int = 0,
    opener: Opener = open_run,
    looks: Watch | None = None,
    kept: Kept | None = None,
) -> Result:
    """Runs what can be run, and gathers what is wrong with the rest.

    Args:
        folder: as `read_folder` judged it.
        dataset: labelled images; of those that are not, the reference's own map is the truth.
        reference: the network of the artefacts, at any size.
        budgets: precision -> what is allowed.
        pictures: how many images to draw for a report.
        opener: opens a run.
        looks: decides when there are images enough; None: when all are compared.
        kept: as of `compare`.

    Raises:
        MissingPackage: every runtime is missing.
    """
    artefacts = {artefact.path: artefact for artefact in folder.artefacts}
    failures = [a.failure("-", problem) for a in folder.artefacts for problem in a.problems]
    untried: list[Failure] = []
    files = {a.path: a.file for a in folder.artefacts if not a.problems}
    pairing = pair(files, read=files.__getitem__)
    rows, errors = compare(
        pairing,
        dataset,
        reference,
        budgets=budgets,
        held=True,
        pictures=pictures,
        opener=opener,
        level=LEVEL if looks is None else looks.looks.level,
        look=looks,
        kept=kept,
    )
    reasons: list[tuple[Path, str, IcnetError]] = [
        *((path, "-", why) for path, why in pairing.without.items()),
        *((run.path, run.runtime, why) for run, why in errors.items()),
    ]
    for path, runtime, why in reasons:
        failures.append(artefacts[path].failure(runtime, str(why)))
        if isinstance(why, UnavailableError):
            untried.append(failures[-1])
    origin = reference.network.origin
    return Result(folder, origin, rows, failures, untried, pairing.left_out, looks)


def _scenes(folder: Folder, reference: Reference, count: int) -> Dataset:
    """Drawn scenes; without labels where the network has other classes than these."""
    scenes = drawn_scenes(count, folder.largest_size())
    try:
        prediction_table(reference.label_set, scenes.label_set)
    except LabelSetError:
        return drawn_scenes(count, folder.largest_size(), labelled=False)
    return scenes


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet verify`; returns its exit code."""
    arguments = _parser().parse_args(argv)
    folder = read_folder(arguments.folder)
    looks, dataset = None, None
    if arguments.dataset is not None or arguments.data is not None:
        dataset = open_data(arguments)
    else:
        drawn = "without --dataset and --data the command draws scenes"
        refuse_data_options(arguments, ("split", "group_by", *OF_LABELS, "exif"), drawn)
    check_outputs(arguments)
    files = [artefact.file for artefact in folder.artefacts]
    reference = choose_reference(arguments, files, folder.checkpoints)
    if dataset is None:
        if arguments.limit is None:
            looks = Watch(_LOOKS)
        dataset = _scenes(folder, reference, arguments.limit or _LOOKS.counts[-1])
    pictures = PICTURES if arguments.report else 0
    budgets = chosen_budgets(arguments)
    with Kept.below_cache(arguments.resume) as kept:
        result = verify(folder, dataset, reference, budgets, pictures, looks=looks, kept=kept)
        recorded = record(result)
        if arguments.json:
            write_json(arguments.json, result.to_dict())
        if arguments.report:
            write_text(arguments.report, result.page())
        kept.answered = looks is None or looks.ending is not Ending.TIME
    print(f"{result}\n{recorded}")  # last: its reader may close the pipe
    _require_verdicts(result.verdicts(), arguments.undecided == "fail")
    return 0


def _require_verdicts(verdicts: Mapping[str, str], undecided_fails: bool) -> None:
    """Raises CheckFailed for what may not be released; it names each file."""
    bad = {
        word: [name for name, found in verdicts.items() if found == word]
        for word in (FAILED, Verdict.PAST, *[Verdict.UNDECIDED] * undecided_fails)
    }
    listed = [f"{word}: {', '.join(names)}" for word, names in bad.items() if names]
    if listed:
        count = sum(map(len, bad.values()))
        raise CheckFailed(f"{count} of {len(verdicts)} artefacts do not pass ({'; '.join(listed)})")
