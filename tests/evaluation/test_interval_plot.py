"""Differences as bars with their intervals: verdicts by shape and word, and axes that fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_page import Reader, check_page

from icnet_deploy.evaluation.budgets import BUDGETS
from icnet_deploy.evaluation.confidence.counts import ImageCounts
from icnet_deploy.evaluation.confidence.differences import (
    FEWEST_GROUPS,
    FEWEST_IMAGES,
    FEWEST_PIXELS,
    Interval,
    Seen,
    differences,
)
from icnet_deploy.evaluation.interval_plot import Bar, difference_plot, interval_plot
from icnet_deploy.evaluation.verdicts import Verdict, judge
from icnet_deploy.report.html import page
from icnet_deploy.report.svg import alone
from tools.coverage import FRAMES, read_counts

DOCS = Path(__file__).parents[2] / "docs"
HARDLY = Seen(2, 400)


def bar_of(name, value, low, high, limit=1.0, two_sided=False, seen=None):
    """A bar whose verdict is the one that its interval has."""
    interval = Interval(value, low, high, 12, 12.0)
    verdict = judge(name, interval, limit, two_sided, 12, seen).verdict
    return Bar(name, interval, verdict, seen)


ROWS = [
    bar_of("road", -0.1, -0.3, 0.1),
    bar_of("car", -1.6, -2.0, -1.2),
    bar_of("pole", -0.8, -1.4, -0.2),
    bar_of("bus", 1.5, 0.2, 2.8),
]


def drawn(rows, *arguments, **options):
    return Reader(interval_plot(rows, *arguments, **options))


def words(reader):
    """The words of the texts of each row, and those that hover."""
    return [one for one in reader.text if one.strip()]


def of_class(reader, *names):
    found = [
        (name, a) for name, a in reader.elements if set(names) <= set(a.get("class", "").split())
    ]
    return [{**a, "element": name} for name, a in found]


def marks(reader):
    """Of each row: a disc, a ring or a diamond."""
    shapes = []
    for name, attributes in reader.elements:
        if name == "circle":
            shapes.append("ring" if "hollow" in attributes["class"] else "disc")
        elif "rotate" in attributes.get("transform", ""):
            shapes.append("diamond")
    return shapes


def test_each_verdict_has_a_word_and_a_shape_of_its_own():
    reader = drawn(ROWS, 1.0)
    assert marks(reader) == ["disc", "diamond", "ring", "disc"]
    shown = words(reader)
    for expected in ("within", "past", "undecided", "within, risen", "-0.80", "+1.50", "limit -1"):
        assert expected in shown
    [pole] = [line for line in shown if line.startswith("pole:")]
    assert pole == (
        "pole: -0.80 points, between -1.40 and -0.20; undecided; the limit is -1; from 12 "
        "groups, which count as 12 independent images"
    )


def test_a_limit_that_holds_both_ways_is_drawn_on_both_sides():
    assert (
        len(of_class(drawn(ROWS, 1.0), "limit")) == len(of_class(drawn(ROWS, 1.0), "beyond")) == 1
    )
    both = drawn([bar_of("bus", 1.5, 1.2, 2.8, two_sided=True)], 1.0, two_sided=True)
    left, right = (float(line["x1"]) for line in of_class(both, "limit"))
    (zero,) = (float(line["x1"]) for line in of_class(both, "zero"))
    assert zero - left == pytest.approx(right - zero, abs=0.2)
    assert [float(box["x"]) for box in of_class(both, "beyond")][1] == right
    assert "past" in words(both)
    assert "risen" not in "".join(words(both))


def test_without_a_limit_nothing_is_held_to_one():
    reader = drawn([replace(row, verdict=None) for row in ROWS], None)
    assert of_class(reader, "limit") == of_class(reader, "beyond") == []
    assert not {"within", "past", "undecided"} & set(words(reader))


def widths(reader, kind):
    """The widths of the whiskers of a kind."""
    lines = [one for one in of_class(reader, "whisker", kind) if one["element"] == "line"]
    level = [one for one in lines if one["y1"] == one["y2"]]
    return [float(one["x2"]) - float(one["x1"]) for one in level]


def test_a_class_that_was_hardly_seen_is_cut_and_squeezes_no_other():
    alone_ = drawn(ROWS, 1.0)
    endless = bar_of("train", 4.0, -92.0, 100.0, seen=HARDLY)
    reader = drawn([*ROWS, endless], 1.0)
    assert widths(reader, "within") == pytest.approx(widths(alone_, "within"), abs=12)
    arrows = of_class(reader, "whisker", "undecided")
    assert [one["element"] for one in arrows].count("polyline") == 2  # at both its ends
    assert "train: +4.00 points, between -92.00 and +100.00" in "".join(words(reader))
    assert "seen on 2 images and 400 pixels" in "".join(words(reader))


def test_a_bar_that_leaves_the_plot_ends_at_its_edge_with_one_arrow_to_its_side():
    reader = drawn([*ROWS, bar_of("truck", -40.0, -50.0, -30.0)], 1.0)
    arrows = [one for one in of_class(reader, "whisker") if one["element"] == "polyline"]
    back, tip, _ = (float(point.partition(",")[0]) for point in arrows[0]["points"].split())
    assert tip < back
    assert {one["points"] for one in arrows} == {arrows[0]["points"]}
    assert marks(reader).count("diamond") == 1  # no mark where the value is not
    left = min(float(box["x"]) for box in of_class(reader, "beyond"))
    assert min(float(box["x"]) for box in of_class(reader, "past", "pale")) == left == tip


@pytest.mark.parametrize("many", [1, 40])
@pytest.mark.parametrize("limit", [None, 0.0, 1.0])
@pytest.mark.parametrize("two_sided", [False, True])
def test_any_number_of_rows_fits(many, limit, two_sided):
    rows = [
        bar_of(f"class {n}", n % 7 / 9 - 0.3, n % 7 / 9 - 0.5, n % 7 / 9, limit or 0, two_sided)
        for n in range(many)
    ]
    reader = drawn(rows, limit, two_sided)
    _, _, width, height = map(float, dict(reader.elements[0][1])["viewbox"].split())
    for _, attributes in reader.elements:
        for key, edge in (
            ("x", width),
            ("x1", width),
            ("cx", width),
            ("y", height),
            ("y1", height),
        ):
            assert 0 <= float(attributes.get(key, 0)) <= edge
    assert len(marks(reader)) == many


def test_what_is_no_number_or_does_not_differ_is_drawn():
    nan = float("nan")
    reader = drawn([bar_of("a", nan, nan, nan), *ROWS], 1.0)
    assert "-" in words(reader)
    assert len(marks(reader)) == len(ROWS)
    assert "nan" not in "".join(str(a) for _, a in reader.elements)
    same = drawn([bar_of("a", 0.0, 0.0, 0.0)], None)
    assert "0.00" in words(same)
    assert words(drawn([], None))


def test_small_differences_show_their_digits_and_long_names_their_ends():
    name = "a-network-with-a-very-long-name-int8.onnx, onnxruntime"
    row = replace(bar_of("", -0.0012, -0.004, 0.001, 0.01, True), name=name)
    shown = words(drawn([row], 0.01, two_sided=True))
    assert "-0.0012" in shown
    assert any(one.startswith("a-network") and one.endswith("onnxruntime") for one in shown[1:])
    assert any(one.startswith(name) for one in shown)  # whole where it hovers


def scored(lost):
    """Twelve images of two classes; of the first, some pixels more or less are wrong in each."""
    for n in range(12):
        wrong = np.array([(10 + n % 3) * (1 + lost), 5])
        truth = np.array([2000, 2000])
        yield ImageCounts(str(n), str(n), truth - wrong, truth, truth - wrong + wrong[::-1], 0, 0.0)


def test_miou_and_classes_are_each_held_to_their_own_limit():
    between = differences(list(scored(2)), list(scored(0)), ["road", "car"])
    reader = Reader(difference_plot(between, BUDGETS["int8"], "A title"))
    shown = words(reader)
    assert [one for one in shown if one.startswith("limit")] == ["limit -0.3", "limit -1"]
    assert [one for one in shown if one in ("mIoU", "road", "car")] == ["mIoU", "road", "car"]
    assert marks(reader)[0] == "diamond"
    assert any("seen on 12 groups and 24,000 pixels" in one for one in shown)
    free = Reader(difference_plot(between))
    assert marks(free) == ["disc"] * 3
    assert not {"past", "undecided"} & set(words(free))
    floats = Reader(difference_plot(between, BUDGETS["fp16"]))  # which hold no class to a limit
    assert [one for one in words(floats) if one.startswith("limit")] == [
        "limit -0.02",
        "limit +0.02",
    ]


def test_a_class_that_was_hardly_seen_is_marked_whether_it_has_a_limit_or_not():
    between = differences(list(scored(2)), list(scored(0)), ["road", "car"])
    hardly = replace(between, seen=between.seen | {"car": HARDLY})
    for budget in (None, BUDGETS["int8"], BUDGETS["fp16"]):
        shown = words(Reader(difference_plot(hardly, budget)))
        assert {"road", "car (few)"} <= set(shown)
        assert "car" not in shown


def test_it_stands_in_a_page_and_alone():
    picture = interval_plot(ROWS, 1.0, title="<A> & B")
    check_page(page("A page", picture))
    assert "prefers-color-scheme: dark" in alone(picture)
    assert "<A> & B" in words(Reader(picture))
    assert all(str(verdict) in "".join(words(Reader(picture))) for verdict in Verdict)


def documented():
    """The rows of the page's example: class, three numbers, verdict."""
    lines = (DOCS / "verdicts.md").read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    start = cells.index(["class", "measured", "from", "to", "verdict"]) + 2
    return [row for row in cells[start : start + 4] if len(row) == 5]


def test_the_picture_on_the_page_is_drawn_of_the_numbers_beside_it():
    rows = []
    for name, *numbers, verdict in documented():
        value, low, high = map(float, numbers)
        finding = judge(name, Interval(value, low, high, 40, 40.0), 1.0, False, 40)
        assert str(finding.verdict) == verdict.partition(",")[0]
        rows.append(Bar(name, finding.interval, finding.verdict))
    assert {row.verdict for row in rows} == set(Verdict)
    title = "IoU of each class, INT8 minus float32"
    drawn_ = alone(interval_plot(rows, 1.0, title=title))
    assert (DOCS / "verdicts.svg").read_text("utf-8") == drawn_
    assert "within, risen" in drawn_


def test_the_page_says_what_the_code_does():
    text = " ".join((DOCS / "verdicts.md").read_text("utf-8").split())
    pole = judge("pole", Interval(-0.8, -1.4, -0.2, 40, 40.0), 1.0, False, 40)
    assert f"About {pole.more_images} more images would decide it" in text
    assert f"**Fewer than {FEWEST_GROUPS} groups**" in text
    assert f"{FEWEST_IMAGES} images ({FEWEST_IMAGES} groups, if there are {FEWEST_GROUPS}" in text
    assert f"and on {FEWEST_PIXELS:,} pixels" in text
    counts = read_counts()
    ours, theirs, alike = (each[:FRAMES] for each in (counts.ours, counts.theirs, counts.alike))
    assert len({one.group for one in ours}) == 1
    drive = differences(ours, theirs, counts.classes, alike=alike).alike
    assert f"as much as {drive.effective_images:.0f} independent images" in text
    apart = [replace(one, group=one.name) for one in ours]
    naive = differences(apart, theirs, counts.classes, alike=alike).alike
    for found in (drive, naive):
        assert f"{100 * found.low:.2f} to {100 * found.high:.2f} %" in text
