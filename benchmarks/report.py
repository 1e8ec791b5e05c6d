"""The parts that the reports are made of. Everything that is not markup gets escaped by `tag`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from icnet_deploy.benchmarks.machine import machine, versions
from icnet_deploy.benchmarks.pictures import Colour, Exhibit
from icnet_deploy.benchmarks.templates import Html, tag
from icnet_deploy.data import RegionAccuracy
from icnet_deploy.labels import LabelSet

__all__ = ["class_legend", "exhibit", "facts", "figures", "legend", "region_plot", "table", "where"]


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> Html:
    """A table that scrolls by itself on a narrow screen; columns from `left` on hold numbers."""

    def cells(kind: str, row: Sequence[str]) -> list[Html]:
        return [
            tag(kind, cell, class_="n") if i >= left else tag(kind, cell)
            for i, cell in enumerate(row)
        ]

    head = tag("thead", tag("tr", cells("th", header)))
    body = tag("tbody", [tag("tr", cells("td", row)) for row in rows])
    return tag("div", tag("table", head, body), class_="scroll")


def facts(values: Mapping[str, object]) -> Html:
    """A table of names and values in words."""
    rows = [
        tag("tr", tag("th", name), tag("td", _words(value), class_="wrap"))
        for name, value in values.items()
    ]
    return tag("div", tag("table", tag("tbody", rows)), class_="scroll")


def _words(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return str(value)


def figures(values: Mapping[str, str]) -> Html:
    """The few numbers that a reader came for, large."""
    return tag(
        "div",
        [
            tag("div", tag("b", value), tag("span", name, class_="quiet"))
            for name, value in values.items()
        ],
        class_="figures",
    )


def legend(colours: Iterable[tuple[str, Colour]]) -> Html:
    """Colour chips with their meanings."""
    return tag(
        "div",
        [
            tag("span", tag("i", style="background:#{:02x}{:02x}{:02x}".format(*colour)), name)
            for name, colour in colours
        ],
        class_="legend",
    )


def class_legend(label_set: LabelSet) -> Html:
    """The colours of a label set."""
    return legend(zip(label_set.names, label_set.palette, strict=True))


def exhibit(shown: Exhibit) -> Html:
    """The pictures of one image."""
    pictures = [
        tag(
            "figure",
            tag("img", src=picture.uri(), alt=f"{picture.title}: {shown.title}", loading="lazy"),
            tag("figcaption", picture.title),
        )
        for picture in shown.pictures
    ]
    return tag(
        "section",
        tag("h3", shown.title),
        tag("p", shown.note, class_="quiet"),
        tag("div", pictures, class_="pictures"),
        class_="exhibit",
    )


def where() -> list[Html]:
    """The machine and the versions that a result was made with."""
    return [tag("h2", "Machine and versions"), facts({**machine(), **versions()})]


def region_plot(regions: RegionAccuracy) -> Html:
    """Accuracy by the size of the true region, as the ICNet paper's figure 7, in SVG."""
    left, top, width, height = 52, 16, 640, 240
    accuracy = regions.accuracy()
    step = width / len(accuracy)

    def across(index: float) -> float:
        return round(left + index * step, 1)

    def up(share: float) -> float:
        return round(top + height * (1 - share), 1)

    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(tag("line", x1=left, x2=left + width, y1=up(share), y2=up(share)))
        parts.append(
            tag("text", f"{100 * share:.0f} %", x=left - 8, y=up(share) + 4, text_anchor="end")
        )
    known = [(i, float(a)) for i, a in enumerate(accuracy) if regions.regions[i]]
    parts.append(tag("polyline", points=" ".join(f"{across(i + 0.5)},{up(a)}" for i, a in known)))
    for i, share in known:
        what = f"{_bin(regions, i)}: {100 * share:.1f} % of {regions.regions[i]} regions"
        parts.append(_dot(across(i + 0.5), up(share), what))
    for pixels in range(0, regions.limit + 1, regions.limit // 4):
        more = " and more" if pixels == regions.limit else ""
        x = across(pixels / regions.bin_pixels)
        anchor = "end" if more else "middle"
        text = f"{pixels:,}{more}"
        parts.append(
            tag(
                "text", text, x=left + width if more else x, y=top + height + 20, text_anchor=anchor
            )
        )
    parts.append(
        tag(
            "text",
            "pixels of the true region",
            x=left + width / 2,
            y=top + height + 42,
            text_anchor="middle",
        )
    )
    label = "mean share of right pixels by the size of the true region"
    return tag("svg", parts, viewBox="0 0 712 306", role="img", aria_label=label)


def _dot(x: float, y: float, what: str) -> Html:
    """A point that says what it is when pointed at."""
    return tag("g", tag("title", what), tag("circle", cx=x, cy=y, r=3.5))


def _bin(regions: RegionAccuracy, index: int) -> str:
    start = index * regions.bin_pixels
    if start >= regions.limit:
        return f"{start:,} pixels and more"
    return f"{start:,} to {start + regions.bin_pixels - 1:,} pixels"
