"""Two files of measurements: what is matched, what is refused, and what samples can tell."""

from __future__ import annotations

import numpy as np
import pytest

from icnet_deploy.benchmarks.measurement import write_measurements
from icnet_deploy.benchmarks.regression import changes, lost, match, slowdowns
from icnet_deploy.errors import InputError


def samples(median, count=25, seed=0):
    return median * np.random.default_rng(seed).lognormal(0, 0.02, count)


@pytest.fixture
def compare(run, tmp_path):
    """A function that runs the command on two lists of measurements."""

    def compare(first, second, *options):
        for name, found in (("a", first), ("b", second)):
            write_measurements(tmp_path / f"{name}.jsonl", found)
        files = (tmp_path / "a.jsonl", tmp_path / "b.jsonl")
        return run("benchmark", "compare", *files, *options)

    return compare


def test_the_ratio_is_second_to_first_with_what_the_samples_can_tell(timed, compare):
    before = [timed("a", samples(100)), timed("b", samples(50))]
    after = [timed("b", samples(50, seed=1)), timed("a", samples(120, seed=2))]
    told = changes(match(before, after).pairs)
    assert [(c.first.name, c.second.name) for c in told] == [("a", "a"), ("b", "b")]
    assert told[0].ratio.value == pytest.approx(1.2, abs=0.03)
    assert told[0].ratio.low < 1.2 < told[0].ratio.high
    assert [c.verdict for c in told] == ["slower", "no clear difference"]
    done = compare(before, after)
    assert done.code == 0
    assert "no clear difference" in done.out
    assert "scope, image-to-labels: one image at a time" in done.out
    assert "note:" not in done.out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scope": "network"}, "the scopes differ, image-to-labels (one image"),
        ({"setting": {"size": [48, 64]}}, "the size differs, 96x128 and 48x64"),
        ({"setting": {"batch": 2}}, "the batch differs, 1 and 2"),
        ({"kind": "start"}, "different kinds of measurements (latency and start)"),
        ({"subject": {"name": "other"}}, "no row in common (missing from the second file: latency"),
    ],
)
def test_what_is_unlike_is_refused_and_named(timed, compare, change, words):
    done = compare([timed("a", samples(9))], [timed("a", samples(9), **change)])
    assert done.code == 2
    assert words in done.err
    assert done.err.count("\n") == 1


def test_rows_of_one_file_alone_are_listed_and_the_rest_is_compared(timed, compare):
    rows = [timed("a", samples(9)), timed("a", samples(9), subject={"runtime": "onnxruntime"})]
    done = compare(rows, [rows[1], timed("c", samples(9))])
    assert done.code == 0
    assert "missing from the second file: latency of a on openvino, cpu" in done.out
    assert "new in the second file: latency of c on openvino, cpu" in done.out


def test_a_row_of_the_baseline_that_was_not_measured_again_fails_a_limit(timed, compare):
    rows = [timed("a", samples(9)), timed("b", samples(9))]
    done = compare(rows, rows[:1], "--max-slowdown", "1.05")
    assert done.code == 1
    assert "missing from the second file: latency of b on openvino, cpu" in done.err
    assert compare(rows[:1], rows, "--max-slowdown", "1.05").code == 0


def test_a_time_that_the_second_file_does_not_tell_fails_a_limit(timed):
    first, second = timed("a", samples(9)), timed("a", samples(9))
    assert lost(match([first], [second])) == []
    second.values["total"] = 9.0  # of samples in the first
    told = lost(match([first], [second]))
    assert told == ["missing from the second file: total of latency of a on openvino, cpu"]


def test_one_benchmark_at_several_batches_and_rates_is_matched_row_by_row(timed):
    def rows(*batches):
        return [
            timed("a", [1.0] * 6, kind="throughput", setting={"batch": batch, "rate_per_s": batch})
            for batch in batches
        ]

    found = match(rows(4, 1), rows(1, 4, 2))
    batches = [(a.setting["batch"], b.setting["batch"]) for a, b in found.pairs]
    assert batches == [(4, 4), (1, 1)]
    assert [each.setting["batch"] for each in found.new] == [2]


def test_another_machine_and_other_versions_are_said(timed, compare):
    other = timed("a", samples(9), machine={"cpu": "another"}, versions={"numpy": "3"})
    other.subject["sha256"] = "f" * 64
    done = compare([timed("a", samples(9))], [other])
    assert done.code == 0
    assert "note: the machines differ (cpu: a cpu and another; cores: 2 and none)" in done.out
    assert "note: the versions differ (numpy: 2 and 3)" in done.out
    assert "measured with another file (sha256: a00000000000... and ffffffffffff...)" in done.out


def test_a_slowdown_past_the_limit_exits_with_1(timed, compare):
    before, after = [timed("a", samples(100))], [timed("a", samples(110, seed=1))]
    assert compare(before, after, "--max-slowdown", "1.05").code == 1
    assert compare(before, after, "--max-slowdown", "1.25").code == 0
    assert compare(after, before, "--max-slowdown", "1.05").code == 0
    assert compare(before, after, "--max-slowdown", "0.9").code == 2


def test_a_slowdown_that_the_samples_cannot_tell_is_none(timed, compare):
    wild = [60, 100, 180] * 5
    done = compare([timed("a", wild)], [timed("a", [1.1 * w for w in wild])], "--max-slowdown", "1")
    assert done.code == 0
    few = compare([timed("a", [1.0] * 5)], [timed("a", [2.0] * 5)], "--max-slowdown", "1.05")
    assert few.code == 0
    assert "undecided: fewer than 6 samples" in few.out


def test_a_rate_that_falls_is_a_slowdown_and_a_short_stage_is_not_held_to_the_limit(timed):
    def row(rate, stage):
        values = {"images_per_s": rate, "pass": timed("x", [stage] * 9).values["total"]}
        return timed("a", [1.0] * 9, kind="throughput", values=values)

    def late(first, second):
        return slowdowns(changes(match([first], [second]).pairs), 1.05)

    held = row(10.0, 1.0)
    assert late(held, row(10.0, 3.0)) == []  # the total is what counts where there is one
    for measured in (held, slower := row(8.0, 1.0)):
        del measured.values["total"]
    assert late(held, slower) == ["a on openvino, cpu, images_per_s: 1.250 times as slow"]
    assert late(slower, held) == []
    del (still := row(0.0, 1.0)).values["total"]
    assert late(held, still) == ["a on openvino, cpu, images_per_s: inf times as slow"]


def test_compare_is_an_option_too(timed, run, tmp_path):
    write_measurements(tmp_path / "a.jsonl", [timed("a", samples(9))])
    done = run("benchmark", "--compare", tmp_path / "a.jsonl", tmp_path / "a.jsonl")
    assert done.code == 0
    assert "1.000" in done.out
    assert "example:" in run("benchmark", "compare", "--help").out


def test_no_row_is_matched_twice(timed):
    with pytest.raises(InputError, match="no row in common"):
        match([timed("a", [1.0])], [timed("b", [1.0])])
    twice = [timed("a", [1.0]), timed("a", [1.0])]
    assert len(match(twice, twice[:1]).missing) == 1
