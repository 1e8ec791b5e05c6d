"""The result of `icnet parity`, for the screen and as JSON."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from icnet_deploy.evaluation.confidence.differences import FEWEST_IMAGES, FEWEST_PIXELS
from icnet_deploy.evaluation.pairing import ROUNDED
from icnet_deploy.evaluation.parity.comparison import Comparison
from icnet_deploy.evaluation.score import Protocol, size_text
from icnet_deploy.evaluation.verdicts import Finding, Verdict, error_words
from icnet_deploy.report.tables import Table, number, signed
from icnet_deploy.runtime.machine import machine, versions

SCHEMA = 2
"""Of the JSON result; raised when a reader of today could misunderstand it."""


class Failure(NamedTuple):
    """What has a row without numbers: a file, or a file on a runtime, that cannot be compared.

    Attributes:
        name, precision, runtime, size: as a table shows them; a dash for what is not known.
        reason: why, in words.
    """

    name: str
    precision: str
    runtime: str
    size: str
    reason: str

    def __str__(self) -> str:
        where = "" if self.runtime == "-" else f" on {self.runtime}"
        return f"{self.name}{where}: {self.reason}"


def headline(rows: Sequence[Comparison]) -> str:
    """What the intervals rest on, and what would decide the rows that are undecided: one line."""
    least = min(rows, key=lambda row: row.differences().miou.effective_images)
    undecided = [row for row in rows if row.judgement().verdict is Verdict.UNDECIDED]
    words = f"{least.differences().basis()}."
    if undecided:
        words += f" Undecided: {'; '.join(f'{row} ({_remedy(row)})' for row in undecided)}."
    return words


def _remedy(row: Comparison) -> str:
    """What would decide an undecided row."""
    judgement = row.judgement()
    if not judgement.findings:
        return "it has no limit; --min-agreement PERCENT sets one"
    more = judgement.more_images()
    if more is not None:
        return f"about {rounded_up(more):,} more images would decide it"
    if any(finding.endless for finding in judgement.of(Verdict.UNDECIDED)):
        return "too few images to tell anything"
    return "no number of images decides it: a difference is as large as its limit"


def rounded_up(count: int) -> int:
    """A number of images to two digits, upwards: nobody knows it better."""
    step = int("1" + "0" * (len(str(count)) - 2))
    return -(-count // step) * step


def verdict_table(
    rows: Sequence[Comparison], left_out: Sequence[str] = (), failures: Sequence[Failure] = ()
) -> str:
    """What the intervals rest on, the table for the screen, and what is to be said of its rows.

    Args:
        rows: what was compared.
        left_out: a sentence for each file and runtime that was not.
        failures: what could not be.
    """
    labelled = not rows or rows[0].score.dataset.labelled
    header = ["artefact", "runtime", "verdict", "precision", "size", *columns(labelled)]
    cells = [
        [
            row.name,
            row.runtime,
            str(row.judgement().verdict),
            row.metadata.precision,
            size_text(row.metadata.size),
            *numbers(row),
        ]
        for row in rows
    ]
    dashes = ["-"] * len(columns(labelled))
    cells += [[f.name, f.runtime, "failed", f.precision, f.size, *dashes] for f in failures]
    lines = [
        *([headline(rows), ""] if rows else []),
        Table(header, cells, left=5, keys=2).text(),
        "",
        *(f"{row}: {sentence}" for row in rows for sentence in sentences(row)),
        *(f"failed: {failure}" for failure in failures),
        *(f"not compared: {sentence}" for sentence in left_out),
    ]
    return "\n".join(lines + (_how(rows) if rows else []))


def sentences(row: Comparison) -> list[str]:
    """What is past, what is undecided and why, and what rose beyond a limit of falls."""
    past = [f"past its budget: {finding}" for finding in row.judgement().of(Verdict.PAST)]
    return [*past, *(f"undecided: {why}" for why in undecided(row)), *_risen(row)]


def undecided(row: Comparison) -> list[str]:
    """A sentence for mIoU and pixels alike, and one for all the classes of each reason."""
    judgement, known = row.judgement(), row.differences()
    if not judgement.findings:
        return [
            "it has no limit. Give labelled images (--dataset and --data), or --min-agreement "
            "PERCENT, the least share of pixels alike"
        ]
    lines: list[str] = []
    unseen: list[Finding] = []
    endless: list[Finding] = []
    near: list[Finding] = []
    crossed: list[Finding] = []
    for finding in judgement.of(Verdict.UNDECIDED):
        if finding.what not in known.seen:
            lines.append(str(finding))
        elif not known.seen[finding.what].enough():
            unseen.append(finding)
        elif finding.endless:
            endless.append(finding)
        else:
            (near if finding.more_images is None else crossed).append(finding)
    if crossed:
        more = rounded_up(max(finding.more_images or 0 for finding in crossed))
        contain = "intervals of {} contain" if len(crossed) > 1 else "interval of {} contains"
        lines.append(
            f"the {contain.format(_named(crossed))} the limit ({crossed[0].limit}); about "
            f"{more:,} more images would decide"
        )
    if near:
        lines.append(
            f"the difference of {_named(near)} is as large as the limit ({near[0].limit}): no "
            "number of images decides"
        )
    if endless:
        lines.append(f"too few images to tell anything about {_named(endless)}")
    if unseen:
        lines.append(
            f"the images show too little of {_named(unseen)}: at least {FEWEST_IMAGES} "
            f"{known.drawn} and {FEWEST_PIXELS:,} pixels are needed"
        )
    return lines


def _named(findings: Sequence[Finding]) -> str:
    *others, last = (finding.what for finding in findings)
    return f"{', '.join(others)} and {last}" if others else last


def _risen(row: Comparison) -> list[str]:
    """The classes that rose by more than they might have fallen."""
    limit = row.budget.class_points
    if limit is None or row.budget.class_rises:
        return []
    risen = [
        f"{name} {difference.text(2)} points"
        for name, difference in row.differences().classes.items()
        if difference.value > limit
    ]
    return (
        [f"rose by more than the limit for a fall, which is no fault for INT8: {', '.join(risen)}"]
        if risen
        else []
    )


def error_of(rows: Sequence[Comparison]) -> str:
    """How often their verdicts are wrong, in a sentence."""
    words = error_words(rows[0].level, any(row.budget.both_ways for row in rows))
    return f"{words}; all classes of a row together count as one difference"


def _how(rows: Sequence[Comparison]) -> list[str]:
    """What the columns mean, what is allowed, and how it was scored."""
    protocol, first = rows[0].score.protocol(), rows[0].differences()
    lines = [
        f"points: the difference from {rows[0].origin}, at the same size, in hundredths of IoU; "
        "minus is worse; the interval in brackets holds the true difference in "
        f"{100 * first.level:g} % of cases",
        "within: the whole interval is inside the limit; past: the whole interval is beyond it; "
        "undecided: neither",
        f"errors: {error_of(rows)}",
        "small points: the difference in accuracy on regions below 3,000 pixels",
        "agree %: pixels with the reference's label; ties: pixels with another label where the "
        "reference could hardly tell; flips: the other pixels with another label",
    ]
    if first.left_out:
        lines.append(f"not in mIoU points, as seen too little: {', '.join(first.left_out)}")
    if any(row.runtime == ROUNDED for row in rows):
        lines.append(
            f"{ROUNDED}: ONNX Runtime with every float16 value rounded, as on a GPU; CPUs run such "
            "files in float32"
        )
    if not rows[0].score.dataset.labelled:
        lines.append(f"no labels: {_own_map(rows[0])}")
    budgets = {row.metadata.precision: str(row.budget) for row in rows}
    lines += [f"limits of {precision}: {words or 'none'}" for precision, words in budgets.items()]
    of, sizes = f"{protocol.dataset} {protocol.split}", ", ".join(protocol.label_sizes)
    scored = f"{protocol.images} images of {of}, label sizes {sizes}, "
    scored += f"label {protocol.ignored} ignored; mapping of classes: {protocol.mapping}"
    if protocol.groups != Protocol.groups:
        scored += f"; groups: {protocol.groups}"
    lines.append(
        scored if rows[0].score.dataset.labelled else f"{unlabelled(protocol)}, sizes {sizes}"
    )
    return [*lines, *(f"note: {note}" for note in notes(rows))]


def _own_map(row: Comparison) -> str:
    """What mIoU and classes mean on images without labels, in words."""
    words = "mIoU and classes are measured against the reference's own label map"
    if row.ties_are_right:
        return (
            f"{words}; where its two best logits are a tie, both labels are right, so only real "
            "flips are losses, and the budgets limit them"
        )
    return f"{words}; the budgets do not limit them, as budgets are for labels that people drew"


def unlabelled(protocol: Protocol) -> str:
    """What was compared, of images without labels."""
    if protocol.dataset == "photos":
        return f"{protocol.images} photos of the folder {protocol.split}"
    return (
        f"{protocol.images} {protocol.dataset} {protocol.split}, without labels, because the "
        "network has other classes than they have"
    )


def notes(rows: Sequence[Comparison]) -> list[str]:
    """What the reader must know of the reference, in words."""
    few = min(row.shown() for row in rows)
    if few > 1:
        return [*rows[0].origin.notes]
    return [
        *rows[0].origin.notes,
        f"the reference's own label map shows {'only one' if few else 'no'} class on more than 1 % "
        "of the pixels, so this comparison proves little: give images like those that the network "
        "was trained on, or trained weights",
    ]


def to_dict(rows: Sequence[Comparison], left_out: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON result of at least one row, all of one checkpoint."""
    protocol = rows[0].score.protocol().to_dict()
    del protocol["model_size"], protocol["logits_resize"]  # these are each row's own
    references = {row.key: row.reference for row in rows}
    return {
        "schema": SCHEMA,
        "kind": "parity",
        "versions": versions(),
        "machine": machine(),
        "level": rows[0].level,
        "labelled": rows[0].score.dataset.labelled,
        "groups": rows[0].differences().groups,
        "basis": headline(rows),
        "protocol": protocol,
        "reference": rows[0].origin.to_dict() | {"classes_shown": rows[0].shown()},
        "notes": notes(rows),
        "budgets": {row.metadata.precision: row.budget.to_dict() for row in rows},
        "references": [
            {
                "weights_sha256": rows[0].metadata.weights_sha256,
                "size": None if size is None else list(size),
                "head": head,
                "score": score.to_dict(),
                "protocol": score.protocol().to_dict(),
            }
            for (size, head), score in references.items()
        ],
        "rows": [row.to_dict() for row in rows],
        "left_out": list(left_out),
    }


def columns(labelled: bool) -> list[str]:
    """What `numbers` are."""
    scores = ["mIoU points", "worst class", "its points"]
    alike = ["agree %", "ties", "flips"]
    return [*(["mIoU %", *scores, *alike] if labelled else [*alike, *scores]), "small points"]


def numbers(row: Comparison, grouping: str = "") -> list[str]:
    """The cells of mIoU to small regions; `grouping` is what parts thousands.

    Without labels the share of pixels alike, with its interval, comes first.
    """
    known = row.differences()
    name, worst = row.worst_class()
    small = known.small_regions
    scores = [
        known.miou.text(),
        name if float(signed(worst.value, 2)) else "-",
        worst.text(2),
    ]
    counts = [f"{row.ties:{grouping}}", f"{row.flips:{grouping}}"]
    last = signed(small.value if small else None, 2)
    if not row.score.dataset.labelled:
        return [_alike_text(row), *counts, *scores, last]
    miou = number(100 * row.score.confusion.miou())
    return [miou, *scores, number(100 * row.agreement(), 4), *counts, last]


def _alike_text(row: Comparison) -> str:
    """The share of pixels alike, in percent, with its interval."""
    alike = row.differences().alike
    value = number(100 * row.agreement(), 4)
    if alike is None:
        return value
    return f"{value} [{number(100 * alike.low, 4)}, {number(100 * alike.high, 4)}]"
