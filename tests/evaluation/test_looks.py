"""When drawn scenes are enough: what is stopped at, and what several looks cost."""

from __future__ import annotations

from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import pytest

from icnet_deploy.evaluation.confidence.differences import LEVEL, Interval
from icnet_deploy.evaluation.verdicts import Verdict, judge
from icnet_deploy.evaluation.verify.looks import Ending, Looks, Watch

LIMIT = 0.3  # points that may be lost


def shares_of_wrong_verdicts(looks, level, true_drop=LIMIT, worlds=3000):
    """How often a run ends with a wrong `within` and a wrong `past`, both wrong at the limit.

    The differences of the images are independent and normal, of known deviation, so that each
    look's own interval holds exactly at its level.
    """
    reach = NormalDist().inv_cdf((1 + level) / 2)
    ends = dict.fromkeys(Verdict, 0)
    for images in np.random.default_rng(0).normal(-true_drop, 1.0, (worlds, looks.counts[-1])):
        for count in looks.counts:
            value, half = float(images[:count].mean()), reach / count**0.5
            interval = Interval(value, value - half, value + half, count, count)
            verdict = judge("mIoU", interval, LIMIT, rises=False, images=count).verdict
            if looks.after(count, verdict is not Verdict.UNDECIDED, elapsed=0, an_image=0):
                break
        ends[verdict] += 1
    return ends[Verdict.WITHIN] / worlds, ends[Verdict.PAST] / worlds


def test_several_looks_are_together_no_more_often_wrong_than_one():
    looks = Looks()
    assert looks.counts == (10, 20, 40, 80)
    within, past = shares_of_wrong_verdicts(looks, looks.level)
    assert within + past < 0.05
    assert min(within, past) > 0.01  # and no interval is wider than it must be by much
    once = shares_of_wrong_verdicts(Looks(counts=(80,)), Looks(counts=(80,)).level)
    assert sum(once) == pytest.approx(1 - LEVEL, abs=0.012)


def test_peeking_costs_where_the_error_is_not_shared():
    assert sum(shares_of_wrong_verdicts(Looks(), LEVEL)) > 0.1


def test_a_large_drop_is_found_at_once_and_a_small_one_later():
    assert shares_of_wrong_verdicts(Looks(), Looks().level, true_drop=3, worlds=200) == (0, 1)
    assert shares_of_wrong_verdicts(Looks(), Looks().level, true_drop=-1, worlds=200) == (1, 0)


@pytest.mark.parametrize(
    ("images", "decided", "elapsed", "an_image", "ending"),
    [
        (10, True, 1000, 10, Ending.DECIDED),
        (10, False, 20, 2, None),
        (40, False, 90, 5.2, None),
        (40, False, 90, 5.3, Ending.TIME),  # 302 seconds
        (10, False, 301, 0, Ending.TIME),
        (80, False, 1000, 10, Ending.LAST),
        (80, True, 1000, 10, Ending.DECIDED),
    ],
)
def test_it_ends_when_all_is_decided_or_time_or_scenes_run_out(
    images, decided, elapsed, an_image, ending
):
    assert Looks().after(images, decided, elapsed, an_image) is ending


def watched(verdicts, seconds_an_image=1.0, loading=0.0, kept=0):
    """A watch that saw images until it ended; each look found the next of `verdicts`."""
    now = [0.0]
    watch = Watch(Looks(), clock=lambda: now[0])
    left = iter(verdicts)
    row = SimpleNamespace(judgement=lambda: SimpleNamespace(verdict=next(left)))
    now[0] = loading
    for images in range(1, 1000):
        now[0] += seconds_an_image if images > kept else 0
        if watch(images, [row]):
            return watch
    raise AssertionError("it never ends")


UNDECIDED = [Verdict.UNDECIDED] * 4


def test_a_watch_looks_after_10_20_40_and_80_images():
    assert watched([Verdict.PAST]).images == 10
    watch = watched([*UNDECIDED[:2], Verdict.WITHIN])
    assert (watch.images, watch.ending) == (40, Ending.DECIDED)
    assert "look hold in 98.75 % of cases, those of all looks together in 95 %" in str(watch)
    assert str(watch).endswith("Stopped after 40 scenes: every row is decided")
    assert watched(UNDECIDED).images == 80
    assert watch.to_dict() == {
        "images": [10, 20, 40, 80],
        "level": 0.9875,
        "ended_after": 40,
        "why": "every row is decided",
    }


def test_a_watch_ends_before_a_look_that_would_take_too_long():
    watch = watched(UNDECIDED, seconds_an_image=6)
    assert (watch.images, watch.ending) == (40, Ending.TIME)  # 240 seconds; 80 would take 480
    assert "80 scenes need about 8 minutes, the limit is 5" in str(watch)
    assert "To continue, give the same command with --resume" in str(watch)
    # what loading takes is taken once, and is in the sum
    assert watched(UNDECIDED, seconds_an_image=3, loading=50).images == 80
    assert watched(UNDECIDED, seconds_an_image=3, loading=70).images == 40
    assert watched(UNDECIDED, seconds_an_image=3, loading=1000).images == 10
    # the first 20 are kept of a run before: the pace is that of the others
    assert watched(UNDECIDED, seconds_an_image=6, kept=20).images == 40
    assert watched(UNDECIDED, seconds_an_image=6, kept=40).images == 80
