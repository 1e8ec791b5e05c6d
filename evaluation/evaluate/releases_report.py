"""What `icnet evaluate --compare` shows, on the screen and as HTML, and its checks."""

import argparse
from pathlib import Path

from icnet_deploy.command import check_outputs, options
from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.evaluation.evaluate.records import RECORDS, chosen
from icnet_deploy.evaluation.evaluate.releases import Change, Releases, compare_releases
from icnet_deploy.evaluation.verdicts import Verdict, error_words
from icnet_deploy.files import write_json, write_text
from icnet_deploy.report.html import page, tag
from icnet_deploy.report.tables import Table, bounded, number

_HEADER = (
    *("network", "input", "precision", "runtime", "verdict"),
    *("images", "OLD mIoU %", "NEW mIoU %", "NEW - OLD, points", "lowest class", "its points"),
)
_WORST_FIRST = list(Verdict)


def add_compare_options(parser: argparse.ArgumentParser) -> None:
    """Adds what compares two recorded releases."""
    group = options(parser, "to compare two recorded releases, without a model")
    group.add_argument(
        "--compare",
        nargs=2,
        metavar=("OLD", "NEW"),
        help="show what fell from OLD to NEW, e.g. 0.1.0 0.2.0: each is a version, a date "
        "(YYYY-MM-DD), the number of a line, or a file of counts (.json.xz); exit code 1 if "
        "a fall is past the default budget of its precision",
    )
    group.add_argument(
        "--records",
        type=Path,
        metavar="FILE",
        help=f"the file of recorded accuracy (default: {RECORDS.as_posix()})",
    )


def refuse_beside_compare(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuses what does not go with `--compare`, which runs no model (InputError)."""
    if arguments.compare is None:
        if arguments.records is not None:
            raise InputError(f"--records {arguments.records} needs --compare OLD NEW: give both")
        return
    for name, value in vars(arguments).items():
        if name in ("compare", "records", "json", "report") or value == parser.get_default(name):
            continue
        option = str(value) if name == "model" else f"--{name.replace('_', '-')}"
        raise InputError(
            f"{option} does not go with --compare, which only reads records: leave it out"
        )


def compared_releases(arguments: argparse.Namespace) -> int:
    """Runs `icnet evaluate --compare`.

    Args:
        arguments: of `icnet evaluate`, checked.

    Returns:
        0: nothing fell beyond its budget.

    Raises:
        InputError: the request is wrong, a record cannot be read, or nothing can be compared.
        CheckFailed: something fell beyond its budget; it names each.
    """
    check_outputs(arguments)
    old, new = (chosen(name, arguments.records or RECORDS) for name in arguments.compare)
    found = compare_releases(old, new)
    if arguments.json:
        write_json(arguments.json, found.to_dict())
    if arguments.report:
        write_text(arguments.report, _page(found))
    print(_text(found))
    past = found.of(Verdict.PAST)
    if past:
        raise CheckFailed(
            f"{len(past)} of {len(found.changes)} are past their budget: "
            f"{'; '.join(str(change.key) for change in past)}"
        )
    return 0


def _text(found: Releases) -> str:
    """Two releases, as the screen shows them: the worst verdict first."""
    old, new = map("; ".join, found.names())
    lines = [
        f"OLD  {old}",
        f"NEW  {new}",
        *(f"they differ in {one}" for one in found.differing()),
        "",
        _table(found).text(),
    ]
    return "\n".join([*lines, "", *_notes(found)])


def _page(found: Releases) -> str:
    """Two releases as one HTML document."""
    old, new = map("; ".join, found.names())
    return page(
        f"Accuracy of {old} and of {new}",
        tag("p", f"OLD: {old}"),
        tag("p", f"NEW: {new}"),
        [tag("p", f"They differ in {one}.") for one in found.differing()],
        _table(found).html(),
        [tag("p", note) for note in _notes(found)],
    )


def _table(found: Releases) -> Table:
    rows = sorted(found.changes, key=lambda c: _WORST_FIRST.index(c.judgement().verdict))
    return Table(_HEADER, [_cells(change) for change in rows], left=5)


def _cells(change: Change) -> list[str]:
    key, old_new, miou = change.key, change.miou(), change.differences.miou
    name, worst = change.worst_class()
    return [
        key.network,
        f"{key.size} {key.head}",
        key.precision,
        key.ran,
        str(change.judgement().verdict),
        str(change.differences.images),
        *(number(score) for score in old_new),
        bounded(miou.value, miou.low, miou.high, 2),
        name,
        bounded(worst.value, worst.low, worst.high, 2),
    ]


def _notes(found: Releases) -> list[str]:
    """What fell and by how much, what was not compared, and how to read it."""
    first = found.changes[0]
    budgets = {change.key.precision: change.budget for change in found.changes}
    return [
        *(
            f"past: {change.key}: {finding}"
            for change in found.of(Verdict.PAST)
            for finding in change.judgement().of(Verdict.PAST)
        ),
        *(f"undecided: {change.key}: {_remedy(change)}" for change in found.of(Verdict.UNDECIDED)),
        *(f"not compared: {key}: {why}" for key, why in found.refused.items()),
        *(f"only OLD has {key}" for key in found.only_old),
        *(f"only NEW has {key}" for key in found.only_new),
        "points: NEW - OLD on the same images; the interval in brackets holds the true difference "
        f"in {100 * first.differences.level:g} % of cases",
        "within: the whole interval is inside the limit; past: the whole interval is beyond it; "
        "undecided: neither. A rise is no fault",
        f"errors: {error_words(first.differences.level, both_ways=False)}",
        *(f"limit of {precision}: {budget}" for precision, budget in budgets.items()),
    ]


def _remedy(change: Change) -> str:
    """What an undecided row lacks."""
    what = ", ".join(f.what for f in change.judgement().of(Verdict.UNDECIDED))
    more = change.judgement().more_images()
    if more is None:
        return f"{what}: it is not known how many more images would decide it"
    return f"{what}: about {more:,} more images would decide"
