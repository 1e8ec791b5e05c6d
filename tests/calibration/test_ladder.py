"""The ladder: where it stops, what it takes, what it refuses, and what it writes."""

import json
import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from icnet_deploy.calibration.ladder.climb import Tried, chosen, climb, keeps
from icnet_deploy.calibration.sensitivity.proof import prove
from icnet_deploy.calibration.sensitivity.report import points_text
from icnet_deploy.calibration.sensitivity.search import Attempt, Cost
from icnet_deploy.cli import main
from icnet_deploy.evaluation.budgets import Budget
from icnet_deploy.evaluation.confidence.differences import Differences, Interval, Seen
from icnet_deploy.metadata import read_onnx_metadata

BUDGET = Budget(0.25, 0.5, 1.0, miou_rises=False, class_rises=False)
WIDE = 200  # points: so few images that an interval has no end


def interval(value, reach):
    return Interval(value, value - reach, value + reach, 12, 12.0)


def cost(points, reach=0.1, class_reach=None):
    """A cost of so many points of mIoU and of each class."""
    classes = {"road": interval(points, reach if class_reach is None else class_reach)}
    found = Differences(
        images=12,
        groups=12,
        level=0.95,
        miou=interval(points, reach),
        left_out=(),
        classes=classes,
        seen=dict.fromkeys(classes, Seen(12, 10**6)),
        pixel_accuracy=interval(0, 0),
        small_regions=None,
        alike=interval(0.99, 0),
    )
    return Cost(0.99, points, {"road": points}, found)


def climbed(seen, unseen, strict=False):
    """Climbs rungs of these costs, on the images that they may see and on those of the proof.

    Returns:
        The names of the rungs that were tried, and of the one to take; the levels of the proofs.
    """
    levels = []

    def rung(name):
        if seen[name] is None:
            return None
        past = BUDGET.judge(seen[name].differences).verdict == "past"
        attempt = Attempt((), Path(name), seen[name], not past)
        return Tried(SimpleNamespace(), [attempt], attempt)

    def enough(judgement):
        return keeps(judgement, strict)

    def proof(attempts, level):
        def score(attempt, own):
            levels.append(own)
            return unseen[str(attempt.path)]

        return prove(attempts, BUDGET, score, level, enough)

    def gain(attempt, before):
        return f"{attempt.path} over {before.path}"

    steps = climb({name: lambda name=name: rung(name) for name in seen}, proof, enough, gain)
    names = [step.rung for step in steps]
    pairs = zip(names[1:], names, strict=False)
    assert [step.gain for step in steps] == [None, *(f"{own} over {last}" for own, last in pairs)]
    taken = chosen(steps, enough)
    return [s.rung for s in steps], taken and taken.rung, levels


def test_the_climb_stops_at_the_first_rung_that_keeps_the_budget():
    good, bad, unsure = cost(-0.1), cost(-3), cost(-0.45)
    assert climbed({"a": good, "b": good}, {"a": good, "b": good})[:2] == (["a"], "a")
    assert climbed({"a": bad, "b": good}, {"b": good})[:2] == (["a", "b"], "b")
    assert climbed({"a": good, "b": good}, {"a": bad, "b": good})[:2] == (["a", "b"], "b")
    tried = climbed({"a": good, "b": None, "c": good}, {"a": unsure, "c": good})
    assert tried[:2] == (["a", "c"], "c")
    assert climbed({"a": bad, "b": good}, {"b": bad})[:2] == (["a", "b"], None)


def test_what_is_undecided_is_taken_if_no_rung_keeps_the_budget():
    good, unsure, less = cost(-0.1), cost(-0.45), cost(-0.49)
    steps = climbed({"a": good, "b": good, "c": good}, {"a": less, "b": unsure, "c": cost(-3)})
    assert steps[:2] == (["a", "b", "c"], "b")


def test_a_class_may_be_undecided_unless_all_must_be_within():
    good, unsure = cost(-0.1), cost(-0.1, class_reach=2)
    costs = {"a": good, "b": good}, {"a": unsure, "b": good}
    assert climbed(*costs)[:2] == (["a"], "a")
    assert climbed(*costs, strict=True)[:2] == (["a", "b"], "b")


def test_images_that_say_nothing_are_no_reason_to_climb():
    nothing = cost(0.0, WIDE)
    assert climbed({"a": nothing, "b": nothing}, {"a": nothing})[:2] == (["a"], "a")


def test_all_proofs_together_err_as_seldom_as_one():
    good, bad = cost(-0.1), cost(-3)
    names = ("a", "b", "c", "d")
    _, _, levels = climbed(dict.fromkeys(names, good), dict.fromkeys(names, bad))
    assert levels == pytest.approx([1 - 0.05 / 4] * 4)


@pytest.fixture
def request_of(float_file, dataset, tmp_path, capsys):
    """Runs `icnet quantize` on the small network and drawn scenes, one placement."""

    def do(*arguments, source=None):
        data = source or ["--dataset", "scenes", "--data", str(dataset), "--count", "8"]
        cache = ["--calibration", str(float_file.parent / "ladder.calibration.json")]
        out = ["--placement", "int8-ort", "-o", str(tmp_path / "out.onnx")]
        code = main(["quantize", str(float_file), *data, *cache, *out, *map(str, arguments)])
        return SimpleNamespace(
            code=code, file=tmp_path / "out.onnx", **capsys.readouterr()._asdict()
        )

    return do


def test_a_wide_budget_is_kept_by_ranges_alone(request_of, tmp_path):
    result = tmp_path / "ladder.json"
    limits = ["--max-miou-drop", 50, "--max-class-drop", 100, "--rounds", 1]
    done = request_of(*limits, "--json", result)
    assert done.code == 0, done.err
    [placement] = json.loads(result.read_text())["placements"]
    assert [rung["rung"] for rung in placement["rungs"]] == ["ranges"]
    assert placement["taken"] == "ranges"
    assert len(placement["rungs"][0]["inference"]["samples_ms"]) == 1
    assert "rounding" not in read_onnx_metadata(done.file).tools
    assert "multiply-adds in 8 bits; in float: " in done.out


def test_a_budget_that_none_keeps_fails_when_all_rungs_were_tried(request_of, tmp_path):
    result = tmp_path / "ladder.json"
    limits = ["--max-miou-change", 0, "--max-class-change", 0, "--rounds", 1, "--json", result]
    done = request_of(*limits, "--undecided", "fail")
    assert done.code == 1
    rungs = json.loads(result.read_text())["placements"][0]["rungs"]
    assert [rung["rung"] for rung in rungs] == ["ranges", "rounding", "float"]  # no LayerNorm
    assert rungs[0]["gain"] is None
    assert rungs[0]["inference_to_the_rung_before"] is None
    for before, rung in pairwise(rungs):
        gained = rung["gain"]
        points = [one["miou_difference_points"]["value"] for one in (rung, before)]
        changed = [one["labels_changed_percent"]["value"] for one in (before, rung)]
        for name, (own, last) in (("miou_points", points), ("labels_alike_points", changed)):
            assert gained[name]["value"] == pytest.approx(own - last, abs=2e-6)
            assert gained[name]["low"] <= gained[name]["value"] <= gained[name]["high"]
        times = [one["inference"]["median_ms"] for one in (rung, before)]
        assert rung["inference_to_the_rung_before"] == pytest.approx(times[0] / times[1], rel=1e-2)
    assert any(rung["gain"]["labels_alike_points"]["value"] for rung in rungs[1:])
    header, _, *table = done.out[done.out.index("step  ") :].splitlines()
    columns = {name: header.index(name) for name in re.split("  +", header.strip())}
    assert not table[0][columns["gained: mIoU, points"] :].startswith(("+", "-", "0"))
    for line, rung in zip(table[1:], rungs[1:], strict=False):
        for name, key in (("mIoU", "miou_points"), ("labels alike", "labels_alike_points")):
            said = line[columns[f"gained: {name}, points"] :].strip()
            assert said.startswith(points_text(rung["gain"][key]))


def test_without_a_budget_each_rung_is_taken(request_of, float_file):
    done = request_of("--effort", "smoothing")
    assert done.code == 0, done.err
    tools = read_onnx_metadata(done.file).tools
    assert tools["rounding"] == "learned"
    assert "smoothing" not in tools  # no LayerNorm


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--effort", "float"], "keeps blocks in float until a budget is met"),
        (["--undecided", "fail"], "--undecided fail needs a budget"),
        (
            ["--max-miou-drop", "1", "--rebuilds", "2"],
            "--rebuilds does not go with a budget or --effort",
        ),
        (
            ["--effort", "rounding", "--rebuilds", "2"],
            "--rebuilds does not go with a budget or --effort",
        ),
        (["--json", "x.json"], "--json needs --rebuilds or a limit"),
    ],
)
def test_wrong_requests_are_refused_before_the_work(arguments, message, request_of):
    done = request_of(*arguments)
    assert (done.code, message in done.err) == (2, True), done.err


def test_a_budget_needs_labels(request_of, dataset, tmp_path):
    photos = ["--images", str(dataset / "leftImg8bit" / "train")]
    done = request_of("--max-miou-drop", "1", source=photos)
    assert (done.code, "has no labels" in done.err) == (2, True), done.err
    alone = tmp_path / "alone"
    for folder in ("leftImg8bit", "gtFine"):
        (alone / folder).mkdir(parents=True)
        (alone / folder / "train").symlink_to(dataset / folder / "train")
    done = request_of("--max-miou-drop", "1", source=["--dataset", "scenes", "--data", str(alone)])
    assert (done.code, "has no image" in done.err) == (2, True), done.err
