import argparse

import pytest

from icnet_deploy.errors import ModelError
from icnet_deploy.evaluation.budgets import (
    BUDGETS,
    Measured,
    add_budget_options,
    budget_for,
    chosen_budgets,
)


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
def test_the_limit_of_miou_holds_both_ways_and_includes_itself(precision, inside, outside):
    for sign in (1, -1):
        assert breaches(precision, miou=sign * inside) == []
        (told,) = breaches(precision, miou=sign * outside)
        assert "mIoU differs" in told


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
def test_no_class_of_an_int8_artefact_moves_by_more_than_a_point(precision):
    assert breaches(precision, road=1.0, pole=-1.0) == []
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
    assert str(told["int8"]) == "mIoU within 0.1 points, every class within 1"


@pytest.mark.parametrize("text", ["-0.1", "nan", "101", "much"])
def test_a_limit_is_a_number_of_points(text, capsys):
    with pytest.raises(SystemExit):
        chosen("--max-miou-drop", text)
    assert "not a number in 0 to 100" in capsys.readouterr().err


def test_an_unknown_precision_has_no_budget():
    with pytest.raises(ModelError, match="int4"):
        budget_for("int4")
