"""The proof of `icnet sensitivity`'s search: images that it did not see, and intervals on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from icnet_deploy.calibration.sensitivity.proof import Parts, halves, prove, refuse_seen
from icnet_deploy.calibration.sensitivity.report import sensitivity_text
from icnet_deploy.calibration.sensitivity.search import Attempt, Block, Cost, search
from icnet_deploy.data import Dataset
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.budgets import Budget
from icnet_deploy.evaluation.confidence.counts import ImageCounts
from icnet_deploy.evaluation.verdicts import Verdict
from icnet_deploy.images import read_grey
from icnet_deploy.labels import CAMVID

BUDGET = Budget(0.25, 0.5, 1.0, miou_rises=False, class_rises=False)
NAMES = ("road", "sky")
BLOCKS = [Block(name, (name,), 1, False) for name in "abcd"]


def images(*groups):
    """A data set of so many images in each group, none of which is there to be read."""
    names = [f"g{g:02}_{frame:03}.png" for g, count in enumerate(groups) for frame in range(count)]
    files = tuple((Path(name), Path(name)) for name in names)
    return Dataset("drives", "val", CAMVID, files, read_grey, group_by="^[^_]+")


def stems(dataset):
    return [image.stem for image, _ in dataset.files]


def test_the_search_and_the_proof_have_no_image_in_common():
    for groups in ([4] * 20, [3] * 7, [1] * 5, [9], [2]):
        dataset = images(*groups)
        seen, unseen, _ = halves(dataset)
        assert not set(stems(seen)) & set(stems(unseen))
        assert sorted(stems(seen) + stems(unseen)) == stems(dataset)
        assert abs(len(seen) - len(unseen)) <= 1
        assert stems(seen) == sorted(stems(seen))


def test_where_groups_are_enough_the_proof_has_none_of_the_searchs():
    seen, unseen, rule = halves(images(*[3] * 20))
    assert not set(seen.groups()) & set(unseen.groups())
    assert len(set(unseen.groups())) == 10
    assert rule == "every other group"


def test_of_few_drives_the_proof_has_what_was_driven_last():
    seen, unseen, rule = halves(images(4, 3, 1))
    assert stems(seen) == ["g00_000", "g00_001", "g01_000", "g01_001"]
    assert stems(unseen) == ["g00_002", "g00_003", "g01_002", "g02_000"]
    assert "in time" in rule


def test_one_image_cannot_be_parted():
    with pytest.raises(InputError, match="give more, or another split with --proof-split"):
        halves(images(1))


def test_an_image_of_the_search_is_no_proof_whatever_it_is_called(memory):
    seen, other = memory([[0]], [[1]]), memory([[0]], [[1]])
    copy = replace(other[1], name="renamed")
    object.__setattr__(other, "samples", [copy])
    with pytest.raises(InputError, match=r"^s1 and renamed of the split .* are the same image"):
        refuse_seen(Parts(seen, other, ""))  # the halves of one split
    object.__setattr__(other, "split", "test")
    with pytest.raises(InputError, match="the image renamed of the split test"):
        refuse_seen(Parts(seen, other, ""))
    object.__setattr__(other, "samples", [replace(copy, image=copy.image + 9)])
    refuse_seen(Parts(seen, other, ""))


def counts(lost, spread=0.0, count=24):
    """Images of two classes, of whose pixels the first loses so many points of IoU, give or take.

    Each image is a drive of its own; the second half loses more by `spread`, the first half less.
    """
    made = []
    for index in range(count):
        fall = lost + (spread if index % 2 else -spread)
        right = np.array([round(1000 * (90 - fall)), 90_000])
        truth = np.full(2, 100_000)
        made.append(ImageCounts(f"i{index}", f"g{index}", right, truth, right, 0, 0.0))
    return made


def cost(lost, spread=0.0, level=0.95):
    made = counts(lost, spread)
    alike = [(180_000, 200_000)] * len(made)
    return Cost.of(made, counts(0.0), NAMES, alike, level)


def tried(*sizes, met=True):
    """What a search that was within its budget tried: graphs with so many blocks in float."""
    return [Attempt(tuple(BLOCKS[:n]), Path(f"{n}"), cost(0.1), met) for n in sizes]


def proved(losses, attempts):
    """Proves them where the graph with n blocks in float loses `losses[n]`; and the levels."""
    levels = []

    def score(attempt, level):
        levels.append(level)
        return cost(*losses[len(attempt.in_float)], level)

    return prove(attempts, BUDGET, score), levels


def test_what_the_search_met_may_be_within_on_other_images():
    proof, levels = proved({1: (0.1, 0.2)}, tried(1))
    assert (proof.verdict, proof.last.attempt.name, proof.candidates) == (Verdict.WITHIN, "a", 1)
    assert levels == [0.95]


def test_a_graph_that_is_past_gives_way_to_the_next_with_more_blocks_in_float():
    attempts = [*tried(0, met=False), *tried(3, 2, 2, 1)]
    proof, levels = proved({1: (4.0, 0.2), 2: (3.0, 0.2), 3: (0.1, 0.2)}, attempts)
    assert [trial.attempt.name for trial in proof.trials] == ["a", "a + b", "a + b + c"]
    assert [trial.judgement.verdict for trial in proof.trials] == ["past", "past", "within"]
    assert proof.candidates == 3
    assert np.allclose(levels, 1 - 0.05 / 3)  # three looks err as seldom as one
    assert {trial.cost.differences.level for trial in proof.trials} == {levels[0]}


def test_a_proof_ends_with_what_is_undecided_and_says_what_would_decide():
    proof, _ = proved({1: (0.9, 1.5), 2: (0.1, 0.2)}, tried(2, 1))
    assert (proof.verdict, len(proof.trials), proof.candidates) == (Verdict.UNDECIDED, 1, 2)
    assert proof.last.judgement.more_images() > 0


def test_no_graph_is_found_if_all_are_past():
    proof, _ = proved({1: (4.0,), 2: (3.0,)}, tried(2, 1))
    assert (proof.verdict, len(proof.trials)) == (Verdict.PAST, 2)


def test_a_search_that_flatters_is_found_out():
    alone = {block: cost(0.1) for block in BLOCKS}
    attempts, best = search(alone, BUDGET, lambda chosen: (Path("p"), cost(0.2)))
    assert best.met
    assert proved({0: (2.0, 0.3)}, attempts)[0].verdict is Verdict.PAST


def test_a_class_that_rises_is_no_fault_of_the_search_or_of_the_proof():
    alone = {block: cost(0.1) for block in BLOCKS}
    attempts, best = search(alone, BUDGET, lambda chosen: (Path("p"), cost(-5.0)))
    assert (best.met, len(attempts)) == (True, 1)
    assert proved({0: (-5.0, 0.3)}, attempts)[0].verdict is Verdict.WITHIN


def test_the_first_line_says_what_the_proof_rests_on_and_what_is_undecided():
    attempts = tried(2, 1)
    proof, _ = proved({1: (0.9, 1.5)}, attempts)
    protocol = {"images": 24, "dataset": "drives", "split": "val"}
    result = {
        "placement": "int8",
        "runtime": "openvino",
        "basis": "of the search",
        "protocol": protocol,
        "float32": {"miou_percent": 61.5},
        "blocks": [],
        "together": {"convolutions": 4, **cost(0.1).to_dict()},
        "search": {
            "budget": BUDGET.to_dict(),
            "limits": str(BUDGET),
            "time": "of one image",
            "float32": {"median_ms": 2.0},
            "attempts": [
                {
                    "in_float": [block.name for block in each.in_float],
                    "met": each.met,
                    **each.cost.to_dict(),
                    "inference": {"median_ms": 1.0},
                }
                for each in attempts
            ],
            "best": 1,
            "proof": {"rule": "every other group", "protocol": protocol, **proof.to_dict(attempts)},
        },
    }
    lines = sensitivity_text(result).splitlines()
    basis = "The proof: 24 images in 24 groups; for mIoU they count as 24 independent images."
    assert lines[0].startswith(f"{basis} Undecided: mIoU, road, which about ")
    assert lines[0].endswith(" more images would decide.")
    result["search"]["proof"]["trials"][-1]["findings"][1]["more_images"] = None
    first = sensitivity_text(result).splitlines()[0]
    assert "Undecided: mIoU, which about " in first
    assert first.endswith("; road, which lies at the limit, so no number of images decides.")
    result["search"]["proof"]["trials"][-1]["findings"][1]["difference"]["low"] = -100
    first = sensitivity_text(result).splitlines()[0]
    assert first.endswith("; road, for which there are too few images.")
    assert "called within in at most about 1.25 % of cases" in "\n".join(lines)
    assert "the search sees these images, and the proof 24 others" in lines[1]
    text = "\n".join(lines)
    assert "proof: undecided with a in float, on 24 other images (every other group)" in text
    assert "1 of 2 candidates were proved, with intervals of 97.5 %" in text
