"""Training on labels of a teacher: what the targets are, and how much each pixel counts."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training room needs torch")
pytest.importorskip("pytorch_lightning", reason="training needs pytorch_lightning")

from icnet_deploy.data import open_dataset  # noqa: E402
from icnet_deploy.errors import InputError  # noqa: E402
from icnet_deploy.images import write_image, write_labels  # noqa: E402
from icnet_deploy.labels import label_set_of  # noqa: E402
from icnet_deploy.networks.checkpoint import load_checkpoint  # noqa: E402
from icnet_deploy.training.config import TrainConfig  # noqa: E402
from icnet_deploy.training.loader import Mix, class_weights  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
FINE = label_set_of({"name": "fine", "names": ["car", "bus", "tree"]}, "tests")
PERSON = {
    "label_set": {"name": "coarse", "names": ["vehicle", "tree", "boat"]},
    "classes": {"car": "vehicle", "bus": "vehicle"},
}
ROWS = {
    "taught": [0, 1, 2, 1, 0, 0, 1, 255],
    "sure": [255, 200, 255, 100, 100, 0, 255, 210],
    "person": [0, 0, 0, 255, 255, 255, 2, 1],
}
"""Of each eighth of an image: what the teacher says, how sure it is, and what the person says."""
VEHICLE = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A function from what is labelled by whom to a folder of two images of 64x64."""
    root = tmp_path_factory.mktemp("data")

    def make(name, teacher=True, person=False):
        here = root / name
        kinds = {"labels": "taught", "confidence": "sure", "person": "person"}
        wanted = {"labels", *(["confidence"] * teacher), *(["person"] * person)}
        for index in range(2 * (not here.exists())):
            pixels = np.random.default_rng(index).integers(0, 256, (64, 64, 3), np.uint8)
            write_image(here / f"images/train/{index}.png", pixels)
            for kind in wanted:
                rows = np.repeat(np.array(ROWS[kinds[kind]], np.uint8), 8)
                write_labels(here / f"{kind}/train/{index}.png", np.tile(rows, (64, 1)).T)
            (here / "classes.json").write_text(json.dumps({"label_set": FINE.to_dict()}))
            if person:
                (here / "person.json").write_text(json.dumps(PERSON))
        return here

    return make


def mix(*roots, **settings):
    sets = [open_dataset("folder", root, "train") for root in roots]
    return Mix(sets, FINE, TrainConfig(crop=(64, 64), **settings))


def shown(sample):
    """Targets and weights of each eighth of an image."""
    weights = None if sample.weights is None else sample.weights[::8, 0].tolist()
    return sample.labels[::8, 0].tolist(), weights


def test_a_teachers_labels_are_taken_where_it_is_sure(folders):
    root = folders("kitti")
    assert shown(mix(root).source(0, 0)) == (ROWS["taught"], None)
    sure = mix(root, min_confidence=200 / 255, weigh_confidence=True).source(0, 0)
    assert sure.labels[::8, 0].tolist() == [0, 1, 2, 255, 255, 255, 1, 255]
    assert shown(mix(root, weigh_confidence=True).source(0, 0)) == (
        [0, 1, 2, 1, 0, 255, 1, 255],  # of no confidence at all nothing is learned
        ROWS["sure"],
    )


def test_a_teacher_decides_inside_a_persons_classes(folders):
    root = folders("camvid", person=True)
    targets = [0, 1, VEHICLE, 1, 0, 0, 255, 2]  # a boat stays one, whatever the teacher says
    assert shown(mix(root).source(0, 0)) == (targets, None)
    weighed = mix(root, min_confidence=0.5, weigh_confidence=True).source(0, 0)
    assert shown(weighed) == (
        [0, 1, VEHICLE, 255, 255, 255, 255, 2],
        [255, 200, 255, 255, 255, 255, 255, 255],  # what a person decides counts in full
    )
    sure = mix(root, min_confidence=0.9).source(0, 0)
    assert sure.labels[::8, 0].tolist() == [0, VEHICLE, VEHICLE, 255, 255, 255, 255, 2]


def test_weights_go_with_the_crops_of_all_data_sets(folders):
    plain, taught = folders("plain", teacher=False), folders("kitti")
    drawn = mix(plain, taught, weigh_confidence=True, seed=3)
    of_sets = {0: set(), 1: set()}
    for number in range(20):
        image, target, weight = drawn.draw(number)
        assert (weight.dtype, weight.shape) == (torch.uint8, target.shape)
        which = int((weight[target < 255] < 255).any())
        of_sets[which] |= set(weight[target < 255].tolist())
    assert of_sets[0] == {255}
    assert of_sets[1] == {100, 200, 255}
    # Without weights an item is what it was, and the crop the same.
    pair = mix(plain, taught, seed=3).draw(0)
    image, _, _ = drawn.draw(0)
    assert len(pair) == 2
    assert torch.equal(pair[0], image)


def test_what_a_teacher_left_open_is_no_rare_class(folders):
    """It has the share of the person's class, and so no larger weight than what was decided."""
    made = mix(folders("camvid", person=True), min_confidence=0.5, class_weights=1.0)
    assert made.seen().tolist() == [0.25] * 4  # car, bus, tree, and a vehicle that is either
    assert made.frequencies().tolist() == [0.25, 0.25, 0.25, 0.75]
    weights = class_weights(made)
    assert weights[VEHICLE] == weights.min()
    assert float((weights * torch.from_numpy(made.seen())).sum()) == pytest.approx(1)


def test_the_notes_say_what_a_teachers_labels_come_to(folders):
    notes = mix(folders("camvid", person=True), min_confidence=0.5).warnings()
    assert notes[0] == (
        "note: camvid train has a person's labels, and a network's inside them: 37.5 % of the "
        "pixels are learned as one class, 12.5 % as one of several, 50.0 % are ignored"
    )
    assert "no class of the network stands for boat of camvid" in notes[1]
    plain = mix(folders("plain", teacher=False), folders("kitti"), weigh_confidence=True).warnings()
    assert [note.split(": ")[1] for note in plain] == [
        "plain train has no confidences, so its labels count in full",
        "kitti train has a network's labels",
    ]


def test_a_confidence_is_asked_of_data_that_have_one(folders):
    for settings, said in (
        (
            {"min_confidence": 0.5},
            "^min_confidence cannot be used: no data set has the confidences of a teacher",
        ),
        ({"weigh_confidence": True}, "^weigh_confidence cannot be used: no data set"),
    ):
        with pytest.raises(InputError, match=said):
            mix(folders("plain", teacher=False), **settings)


def test_a_network_learns_of_a_teacher_and_a_person(folders, run, tmp_path):
    (tmp_path / "c.toml").write_text('width = 0.125\nstages = "sub4"\nbatch = 2\ncrop = [65, 97]')
    out = tmp_path / "n.safetensors"
    taught = ("--dataset", "folder", "--data", folders("camvid", person=True))
    how = ("--config", tmp_path / "c.toml", "--steps", "2", "--validate", "train", "-o", out)
    done = run("train", *taught, *how, "--min-confidence", "0.5", "--weigh-confidence")
    assert done.code == 0, done.err
    assert "the network has the 3 classes of" in done.out
    assert "note: camvid train: scored on the labels of a person" in done.out
    assert "miou_camvid" in (tmp_path / "n.run/metrics.csv").read_text()
    info = load_checkpoint(out).info
    assert (info["config"]["min_confidence"], info["config"]["weigh_confidence"]) == (0.5, True)
    done = run("train", *taught, *how, "--min-confidence", "140")
    assert done.code == 2
    assert "min_confidence is a share of 255, from 0 to 1; got 140" in done.err
