"""The parts of drawings: scales with round ticks, axes, bars, and one ground and style."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_page import Reader

from icnet_deploy.report import svg


def test_a_scale_places_values_between_its_ends():
    scale = svg.Scale(0, 10, 100, 200)
    assert [scale(value) for value in (0, 5, 10)] == [100, 150, 200]
    upwards = svg.Scale(-1, 1, 300, 100)
    assert [upwards(value) for value in (-1, 0, 1)] == [300, 200, 100]
    ratios = svg.Scale(1, 100, 0, 200, logarithmic=True)
    assert [ratios(value) for value in (1, 10, 100)] == [0, 100, 200]
    assert ratios(0) == ratios(0.5) == 0  # below its low end there is no room


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (svg.Scale(0, 10, 0, 1), [0, 2, 4, 6, 8, 10]),
        (svg.Scale(-1.3, 0.5, 0, 1), [-1.2, -1.0, -0.8, -0.6, -0.4, -0.2, 0, 0.2, 0.4]),
        (svg.Scale(1, 100, 0, 1, logarithmic=True), [1, 2, 5, 10, 20, 50, 100]),
        (svg.Scale(30, 45, 0, 1, logarithmic=True), [30, 32, 34, 36, 38, 40, 42, 44]),
    ],
)
def test_ticks_are_round(scale, ticks):
    assert scale.ticks() == pytest.approx(ticks)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_every_linear_scale_has_four_to_ten_ticks_within_it(low, span):
    scale = svg.Scale(low, low + span, 0, 100)
    ticks = scale.ticks()
    assert 4 <= len(ticks) <= 11
    margin = 1e-6 * span + 1e-9 * abs(low)
    assert all(low - margin <= tick <= low + span + margin for tick in ticks)


def test_round_numbers_above_a_value():
    assert [svg.nice_step(span) for span in (4, 10, 100)] == [1, 2, 20]
    assert [svg.nice_above(value) for value in (9.1, 10, 43)] == pytest.approx([10, 10, 50])
    assert [svg.round_up(value) for value in (0.3, 2, 2.1, 7)] == pytest.approx([0.5, 2, 5, 10])
    assert svg.round_up(0) > 0


def test_axes_say_their_values_and_what_they_mean():
    y = svg.Scale(0, 2, 100, 0)
    reader = Reader("".join(svg.y_axis(y, [(0, "0 %"), (2, "2 %")], 40, 200, zero=0)))
    assert [one["class"] for name, one in reader.elements if name == "line"] == ["zero", "grid"]
    assert [(one["x1"], one["x2"]) for name, one in reader.elements if name == "line"] == [
        ("40", "200")
    ] * 2
    assert reader.text == ["0 %", "2 %"]
    x = svg.Scale(0, 10, 40, 200)
    reader = Reader("".join(svg.x_axis(x, [(0, "0"), (10, "10")], 100, "pixels")))
    assert reader.text == ["0", "10", "pixels"]
    assert reader.elements[-1][1]["x"] == "120.0"  # in the middle


def test_bars_and_lines_are_drawn_whichever_end_comes_first():
    assert svg.bar((30, 10), (5, 25), "first") == svg.bar((10, 30), (25, 5), "first")
    [(name, box)] = Reader(svg.bar((30, 10), (5, 25), "first")).elements
    assert (name, box["x"], box["y"], box["width"], box["height"]) == (
        "rect", "10", "5", "20", "20",
    )  # fmt: skip
    assert Reader(svg.bar((10, 10), (0, 1), "first")).elements[0][1]["width"] == "0.5"
    assert Reader(svg.across(1.26, 0, 9)).elements[0][1]["y1"] == "1.3"
    assert Reader(svg.upright(1.26, 0, 9)).elements[0][1]["x2"] == "1.3"


def test_a_whisker_has_caps_and_an_arrow_where_it_leaves_the_plot():
    scale = svg.Scale(-1, 1, 100, 300)
    within = Reader("".join(svg.whisker(scale, (-0.5, 0.5), 20, "past"))).elements
    assert [name for name, _ in within] == ["line"] * 3  # itself and two caps
    assert (within[0][1]["x1"], within[0][1]["x2"]) == ("150.0", "250.0")
    assert {one["class"] for _, one in within} == {"whisker past"}
    cut = Reader("".join(svg.whisker(scale, (-9, 0.5), 20, "past"))).elements
    assert [name for name, _ in cut] == ["line", "polyline", "line"]
    assert cut[1][1]["points"] == "104.0,16 100.0,20 104.0,24"  # which points to the left
    outside = Reader("".join(svg.whisker(scale, (2, 3), 20, "past"))).elements
    assert [one["points"] for name, one in outside if name == "polyline"] == [
        "296.0,16 300.0,20 296.0,24"
    ] * 2


def test_what_hovers_says_its_words_before_it_is_drawn():
    reader = Reader(svg.hover("10 ms <A>", svg.bar((0, 1), (0, 1), "first")))
    assert [name for name, _ in reader.elements] == ["g", "title", "rect"]
    assert reader.text == ["10 ms <A>"]


def test_a_drawing_says_what_it_is_and_stands_alone():
    drawn = svg.drawing("speed & score", (760, 300), [svg.text("a<b", 1, 2, "end")])
    reader = Reader(drawn)
    name, attributes = reader.elements[0]
    assert name == "svg"
    assert attributes["aria-label"] == "speed & score"
    assert attributes["viewbox"] == "0 0 760 300"
    assert reader.text[-1] == "a<b"
    alone = svg.alone(drawn)
    assert "prefers-color-scheme: dark" in alone
    assert "prefers-color-scheme: dark" not in drawn
    assert Reader(alone).elements == reader.elements
    wanted = set(re.findall(r"var\((--\w+)", alone))
    assert wanted == {name for name in wanted if f"{name}:" in alone}  # each colour is defined
