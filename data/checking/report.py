"""What was found of a data set, in a terminal and as an HTML page."""

import shutil
import sys
import textwrap
from collections.abc import Iterator

from icnet_deploy.data.checking.examine import Check, Part, size_words
from icnet_deploy.report import svg
from icnet_deploy.report.html import Html, figures, page, tag
from icnet_deploy.report.tables import Table

_LINES = 30  # problems, and notes, that a terminal shows; files hold all
_KINDS = ("first", "second", "third")
_LEFT, _RIGHT, _TOP, _BAR = 190, 40, 28, 9  # of the drawing, in units of its viewBox
_LETTERS = 26


def _splits(check: Check) -> Table:
    rows = []
    for part in check.parts:
        sizes = part.sizes()
        more = f", {len(sizes) - 1} other{'s' * (len(sizes) > 2)}" if len(sizes) > 1 else ""
        rows.append(
            [
                part.split,
                size_words(sizes[0][0]) + more if sizes else "-",
                f"{len(part.files):,}",
                f"{part.groups():,}",
                f"{100 * part.ignored_share():.2f}",
                f"{len(part.problems):,}",
            ]
        )
    return Table(["Split", "Sizes", "Images", "Groups", "Ignored %", "Problems"], rows, left=2)


def _classes(check: Check) -> Table:
    read = [part for part in check.parts if part.classes]
    header = ["Class"]
    for part in read:
        header += [f"{part.split} pixels", f"{part.split} %", f"{part.split} images"]
    columns = {part.split: _by_name(part) for part in read}
    nothing = ("-", "-", "-")
    rows = [
        [name, *(cell for part in read for cell in columns[part.split].get(name, nothing))]
        for name in check.classes
    ]
    return Table(header, rows)


def _by_name(part: Part) -> dict[str, tuple[str, str, str]]:
    rows = zip(part.classes, part.pixels(), part.shares(), part.images(), strict=True)
    return {name: (f"{n:,}", f"{100 * share:.3f}", f"{shown:,}") for name, n, share, shown in rows}


def _worst(check: Check) -> Table:
    rows = [
        [f"{part.split}/{name}" if name != "..." else name, why, what]
        for part in check.parts
        for why, each in part.worst().items()
        for name, what in each
    ]
    return Table(["File", "Why", "Value"], rows, left=3)


def _groups(check: Check) -> str:
    rules = dict.fromkeys(part.grouping for part in check.parts if part.files)
    return f"groups: {'; '.join(rules)}" if rules else ""


def check_text(check: Check) -> str:
    """For a terminal; no line is longer than it is wide if that can be."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100
    blocks = [
        f"{check.data}: {check.dataset}, {len(check.classes)} classes of {check.label_set}",
        f"{_splits(check).text()}\n{_groups(check)}".rstrip(),
        _classes(check).text(),
    ]
    if (worst := _worst(check)).rows:
        blocks.append(worst.text())
    for title, texts in (("problems", check.problems()), ("notes", check.notes())):
        if texts:
            shown = [
                textwrap.fill(
                    text,
                    width,
                    initial_indent="- ",
                    subsequent_indent="  ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
                for text in texts[:_LINES]
            ]
            more = len(texts) - len(shown)
            rest = [f"  ... and {more} more: --json and --report list all"] if more else []
            blocks.append("\n".join([f"{title} ({len(texts)}):", *shown, *rest]))
    return "\n\n".join(blocks)


def check_page(check: Check) -> str:
    """As one HTML document."""
    problems, notes, worst = check.problems(), check.notes(), _worst(check)
    files = [file for part in check.parts for file in part.files]
    count = f"{len(problems):,} problem{'s' * (len(problems) > 1)}" if problems else "no problems"
    return page(
        f"{check.data}: {count}",
        tag("p", f"{check.dataset}, {len(check.classes)} classes of {check.label_set}."),
        figures(
            {
                "images": f"{len(files):,}",
                "groups": f"{sum(part.groups() for part in check.parts):,}",
                "problems": f"{len(problems):,}",
            }
        ),
        _list("Problems", problems),
        tag("h2", "Splits"),
        _splits(check).html(),
        tag("p", _groups(check), class_="quiet"),
        tag("h2", "Classes"),
        tag("div", _class_plot(check), class_="scroll"),
        _classes(check).html(),
        [tag("h2", "Unusual files"), worst.html()] if worst.rows else [],
        _list("Notes", notes),
    )


def _list(title: str, texts: list[str]) -> list[Html]:
    if not texts:
        return []
    return [tag("h2", title), tag("ul", [tag("li", text) for text in texts])]


def _class_plot(check: Check) -> Html:
    """The share of each class in each split, of the pixels that count, as bars."""
    read = [part for part in check.parts if part.files]
    row = _BAR * max(1, len(read)) + 9
    below = _TOP + row * len(check.classes)
    most = max((float(part.shares().max(initial=0)) for part in read), default=0)
    scale = svg.Scale(0, svg.nice_above(100 * most or 1), _LEFT, svg.WIDTH - _RIGHT)
    return svg.drawing(
        "the share of each class", (svg.WIDTH, below + 50), _bars(check, read, scale, row, below)
    )


def _bars(check: Check, read: list[Part], scale: svg.Scale, row: int, below: int) -> Iterator[Html]:
    for tick in scale.ticks():
        yield svg.upright(scale(tick), _TOP, below)
    for number, part in enumerate(read):
        x = _LEFT + 110 * number
        yield svg.bar((x, x + 10), (8, 18), _KINDS[number % len(_KINDS)])
        yield svg.text(part.split, x + 15, 17, "start", "name")
    for index, name in enumerate(check.classes):
        top = _TOP + row * index + 4
        short = name if len(name) <= _LETTERS else f"{name[: _LETTERS - 3]}..."
        yield svg.text(short, _LEFT - 8, top + (row - 9) / 2 + 4, "end", "name")
        for number, part in enumerate(read):
            if name not in part.classes:
                continue
            share = 100 * float(part.shares()[part.classes.index(name)])
            y = top + _BAR * number
            drawn = svg.bar((_LEFT, scale(share)), (y, y + _BAR - 1), _KINDS[number % len(_KINDS)])
            yield svg.hover(f"{name}, {part.split}: {share:.3f} %", drawn)
    ticks = [(tick, f"{tick:g}") for tick in scale.ticks()]
    yield from svg.x_axis(scale, ticks, below, "share of the pixels that are not ignored, %")
