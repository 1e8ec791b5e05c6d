"""Our scores against those of the Cityscapes authors' own evaluation, on the same files."""

import json

import numpy as np
import pytest

from icnet_deploy.data import open_dataset
from icnet_deploy.evaluation.score import Score
from icnet_deploy.images import read_grey, write_image, write_labels
from icnet_deploy.labels import CITYSCAPES

authors = pytest.importorskip(
    "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling",
    reason="the authors' evaluation is not installed; the Makefile says how, and why so",
)

IDS = np.arange(34, dtype=np.uint8)  # 19 are evaluated; ego vehicle, out of roi, ... are not
EVALUATED = np.uint8(CITYSCAPES.label_ids)
SIZE = (64, 96)


def authors_scores(predictions, truths):
    """Their IoU a class and their mean, of files that they find by themselves."""
    args = authors.args
    args.evalInstLevelScore, args.JSONOutput, args.quiet = False, False, True
    args.predictionPath, args.predictionWalk = str(predictions), None
    found = [authors.getPrediction(args, str(truth)) for truth in truths]
    told = authors.evaluateImgLists(found, [str(truth) for truth in truths], args)
    return told["classScores"], told["averageScoreClasses"]


def our_score(root, predictions):
    score = Score(open_dataset("cityscapes", root), CITYSCAPES, None)
    to_train = np.full(256, 255, np.uint8)
    to_train[EVALUATED] = np.arange(19)
    for sample in score.dataset:
        [path] = predictions.glob(f"{sample.name}_*.png")
        # Not `Score.add`: what is no class is no network's answer, and theirs counts it as wrong.
        score.confusion.add(to_train[read_grey(path)], sample.labels)
    return score


def draw(rng, ids):
    """A label map of blocks of 8x8 with some noise."""
    coarse = rng.choice(ids, (SIZE[0] // 8, SIZE[1] // 8))
    fine = np.kron(coarse, np.ones((8, 8), np.uint8))
    return np.where(rng.random(SIZE) < 0.1, rng.choice(ids, SIZE), fine).astype(np.uint8)


@pytest.mark.parametrize(
    ("truth", "predicted"),
    [
        (IDS, IDS),
        (IDS, EVALUATED),
        (EVALUATED, np.uint8([0, 3, 29, 30, 7])),  # predicted classes that are ignored are wrong
        (np.uint8([1, 2, 3, 7, 8, 11]), np.uint8([7, 8, 33])),  # 33 is in no truth, 11 never found
        (np.uint8([0, 7, 26]), np.uint8([7, 26, 31])),
        (np.uint8([0, 1, 2, 3, 4]), EVALUATED),  # nothing to evaluate
    ],
)
def test_equal_to_the_authors(tmp_path, truth, predicted):
    rng = np.random.default_rng(len(truth) * 100 + len(predicted))
    truths = []
    for index in range(3):
        name = f"city_{index:06d}_000019"
        labels, answer = draw(rng, truth), draw(rng, predicted)
        agree = (rng.random(SIZE) < 0.5) & np.isin(labels, predicted)
        if index == 1:
            labels[labels == truth[-1]] = truth[0]  # an image without one of the classes
        truths.append(tmp_path / f"gtFine/val/city/{name}_gtFine_labelIds.png")
        write_labels(truths[-1], labels)
        write_labels(tmp_path / f"p/{name}_pred_labelIds.png", np.where(agree, labels, answer))
        write_image(
            tmp_path / f"leftImg8bit/val/city/{name}_leftImg8bit.png",
            np.zeros((*SIZE, 3), np.uint8),
        )
    theirs, their_mean = authors_scores(tmp_path / "p", truths)
    ours = our_score(tmp_path, tmp_path / "p").confusion
    named = dict(zip(CITYSCAPES.names, ours.iou(), strict=True))
    evaluated = {name: value for name, value in theirs.items() if name in named}
    assert set(evaluated) == set(named)
    assert all(np.isnan(value) for name, value in theirs.items() if name not in named)
    for name, value in named.items():
        assert value == pytest.approx(evaluated[name], abs=1e-12, nan_ok=True), name
    assert ours.miou() == pytest.approx(their_mean, abs=1e-12, nan_ok=True)


def test_saved_predictions_score_the_same_with_the_authors(run, checkpoint, scenes, tmp_path):
    out = tmp_path / "score.json"
    arguments = ("--dataset", "cityscapes", "--data", scenes, "--json", out)
    assert run("evaluate", checkpoint, *arguments, "--save-predictions", tmp_path / "p").code == 0
    told = json.loads(out.read_text())["score"]
    truths = sorted(scenes.glob("gtFine/val/*/*_gtFine_labelIds.png"))
    theirs, their_mean = authors_scores(tmp_path / "p", truths)
    assert told["miou_percent"] == pytest.approx(100 * their_mean, abs=1e-6)
    for name, share in told["iou_percent"].items():
        value = float("nan") if share is None else share
        assert value == pytest.approx(100 * theirs[name], abs=1e-6, nan_ok=True), name
