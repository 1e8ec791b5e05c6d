import argparse

import pytest

from icnet_deploy.errors import CheckFailed, ModelError
from icnet_deploy.evaluation.budgets import (
    BUDGETS,
    Measured,
    add_budget_options,
    add_undecided_option,
    budget_for,
    chosen_budgets,
    require_verdicts,
)
from icnet_deploy.evaluation.confidence.differences import Differences, Interval, Seen
from icnet_deploy.evaluation.verdicts import Verdict, judge_alike


def breaches(precision, agreement=1.0, miou=0.0, **classes):
    return budget_for(precision).breaches(Measured(agreement, miou, classes))


@pytest.mark.parametrize(
    ("precision", "inside", "outside"),
    [
        ("fp32", 0.01, 0.0101),
        ("fp16", 0.02, 0.0201),
        ("int8", 0.3, 0.301),
        ("int8-ort", 0.3, 0.301),
    ],
)
def test_the_limit_of_miou_includes_itself_and_of_int8_holds_losses(precision, inside, outside):
    for sign in (1, -1):
        assert breaches(precision, miou=sign * inside) == []
        told = breaches(precision, miou=sign * outside)
        counts = sign < 0 or not precision.startswith("int8")
        assert ["mIoU differs" in each for each in told] == [True] * counts


@pytest.mark.parametrize("precision", sorted(BUDGETS))
def test_what_is_no_number_is_a_breach(precision):
    nan = float("nan")
    assert breaches(precision, miou=nan)
    assert bool(breaches(precision, agreement=nan)) == (precision == "fp32")
    assert bool(breaches(precision, road=nan)) == precision.startswith("int8")


def test_float32_must_agree_on_9999_pixels_of_10000():
    assert breaches("fp32", agreement=0.9999) == []
    (told,) = breaches("fp32", agreement=0.99989)
    assert "99.9890 % of pixels agree" in told


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-ort"])
def test_other_precisions_may_flip_pixels(precision):
    assert breaches(precision, agreement=0.9) == []


@pytest.mark.parametrize("precision", ["int8", "int8-ort"])
def test_no_class_of_an_int8_artefact_loses_more_than_a_point(precision):
    assert breaches(precision, road=1.5, pole=-1.0) == []
    (told,) = breaches(precision, road=0.5, pole=-1.001)
    assert "pole" in told


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_float_artefacts_have_no_limit_a_class(precision):
    assert breaches(precision, pole=5.0) == []


def test_what_is_not_a_number_is_past_every_limit():
    assert breaches("fp32", miou=float("nan"))
    assert breaches("int8", pole=float("nan"))


def test_margins_grow_as_the_arithmetic_gets_coarser():
    assert [BUDGETS[p].tie_margin for p in ("fp32", "fp16", "int8")] == [1e-3, 0.05, 0.25]


def chosen(*arguments):
    parser = argparse.ArgumentParser()
    add_budget_options(parser)
    return chosen_budgets(parser.parse_args(arguments))


def test_the_limits_of_int8_can_be_chosen():
    assert chosen() == BUDGETS
    told = chosen("--max-miou-drop", "0.1")
    for precision in ("int8", "int8-ort"):
        assert (told[precision].miou_points, told[precision].class_points) == (0.1, 1.0)
    assert told["fp32"] == BUDGETS["fp32"]
    assert told["fp16"] == BUDGETS["fp16"]
    assert chosen("--max-class-drop", "0")["int8"].class_points == 0
    limits = "mIoU at most 0.1 points lower, each class at most 1 point lower"
    assert str(told["int8"]) == limits
    changed = chosen("--max-class-change", "0.4")["int8"]
    assert (changed.class_points, changed.class_rises, changed.miou_rises) == (0.4, True, False)
    assert str(changed).endswith("each class at most 0.4 points lower or higher")


def difference(value, reach, **classes):
    """Differences of mIoU and of classes that are (value, reach, images)."""

    def interval(value, reach):
        return Interval(value, value - reach, value + reach, 40, 40.0)

    return Differences(
        images=40, groups=40, level=0.95, miou=interval(value, reach), left_out=(),
        classes={name: interval(*one[:2]) for name, one in classes.items()},
        seen={name: Seen(one[2], 10_000) for name, one in classes.items()},
        pixel_accuracy=interval(0, 0), small_regions=None, alike=Interval(0.99985, 0.9998, 0.99995,
        40, 40.0),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("precision", "value", "verdict"),
    [
        ("int8", -0.1, "within"),
        ("int8", -0.2, "undecided"),
        ("int8", -0.5, "past"),
        ("int8", 5.0, "within"),
        ("fp16", 5.0, "past"),
        ("fp16", 0.1, "undecided"),
    ],
)
def test_a_verdict_is_read_off_the_interval(precision, value, verdict):
    assert budget_for(precision).judge(difference(value, 0.15)).verdict == verdict


def test_what_would_decide_is_said_of_what_is_undecided():
    """On four times as many images an interval is half as wide."""
    known = difference(-0.1, 0.15, bus=(-0.5, 1.0, 40), road=(-0.3, 0.1, 40), rider=(3, 0.1, 4))
    judgement = budget_for("int8").judge(known)
    undecided = {one.what: one.more_images for one in judgement.of(Verdict.UNDECIDED)}
    assert undecided == {"bus": 120, "rider": 20}
    assert judgement.more_images() == 120
    assert judgement.verdict == "undecided"


def test_where_all_pixels_must_be_alike_one_that_is_not_is_past():
    whole, some = Interval(1.0, 1.0, 1.0, 1, 9), Interval(0.9999, 0.9997, 1.0, 1, 9)
    assert judge_alike(whole, 1.0, 9).verdict is Verdict.WITHIN
    assert judge_alike(some, 1.0, 9).verdict is Verdict.PAST
    assert judge_alike(some, 0.9998, 9).verdict is Verdict.UNDECIDED


def test_an_end_that_no_number_is_beyond_makes_no_fewer_images_decide():
    one_bad = judge_alike(Interval(0.9975, 0.9892, 1.0, 40, 40), 0.9999, 40)
    assert one_bad.more_images == pytest.approx(40 * ((83 / 24) ** 2 - 1), rel=0.01)


def test_float32_is_judged_by_the_pixels_that_are_alike():
    judgement = budget_for("fp32").judge(difference(0.0, 0.0))
    assert [(one.what, str(one.verdict)) for one in judgement.findings] == [
        ("pixels alike", "undecided"),
        ("mIoU", "within"),
    ]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ([], "1 of 3 are past their budget: a on x"),
        (
            ["--undecided", "fail"],
            "1 of 3 are past their budget: a on x; 1 of 3 are undecided (--undecided fail): b on x",
        ),
    ],
)
def test_what_is_undecided_fails_only_if_it_is_asked(asked, expected):
    parser = argparse.ArgumentParser()
    add_undecided_option(parser)
    arguments = parser.parse_args(asked)
    verdicts = {"a on x": Verdict.PAST, "b on x": Verdict.UNDECIDED, "c on x": Verdict.WITHIN}
    with pytest.raises(CheckFailed) as raised:
        require_verdicts(verdicts, arguments)
    assert str(raised.value) == expected
    require_verdicts({"c on x": Verdict.WITHIN}, arguments)


@pytest.mark.parametrize("text", ["-0.1", "nan", "101", "much"])
def test_a_limit_is_a_number_of_points(text, capsys):
    with pytest.raises(SystemExit):
        chosen("--max-miou-drop", text)
    assert "not a number in 0 to 100" in capsys.readouterr().err


def test_an_unknown_precision_has_no_budget():
    with pytest.raises(ModelError, match="int4"):
        budget_for("int4")
