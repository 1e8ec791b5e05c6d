"""Commands on a folder of one's own, and through a class map."""

from __future__ import annotations

import json

import numpy as np
import pytest

from icnet_deploy.data import open_dataset, prediction_table
from icnet_deploy.data.mapping import load_class_map, target_table
from icnet_deploy.images import write_image, write_labels
from icnet_deploy.labels import CAMVID, CITYSCAPES

FOUR = {"name": "four", "names": ["ground", "house", "sky", "green"], "label_ids": [1, 2, 3, 4]}
RULES = {
    **dict.fromkeys(("road", "sidewalk"), "ground"),
    **dict.fromkeys(("building", "wall"), "house"),
    **dict.fromkeys(("vegetation", "terrain"), "green"),
    "car": None,
}


@pytest.fixture(scope="module")
def own(tmp_path_factory, scenes):
    """The scenes as a folder whose labels are ids of four classes, and the class map to them."""
    root = tmp_path_factory.mktemp("own")
    (root / "map.json").write_text(
        json.dumps({"from": "cityscapes", "to": "set/classes.json", "classes": RULES})
    )
    (root / "set").mkdir()
    (root / "set/classes.json").write_text(json.dumps({"label_set": FOUR}))
    table = load_class_map(root / "map.json").table()
    ids = np.where(table == 255, 0, table + 1).astype(np.uint8)
    for sample in open_dataset("scenes", scenes):
        write_image(root / f"set/images/val/{sample.name}.png", sample.image)
        write_labels(root / f"set/labels/val/{sample.name}.png", ids[sample.labels])
    return root


def test_a_class_map_can_say_what_is_known_of_camvid(tmp_path):
    names = {"sidewalk": "pavement", "vegetation": "tree", "traffic sign": "sign/symbol"}
    names |= {"person": "pedestrian", "rider": "bicyclist", "bicycle": "bicyclist"}
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"from": "cityscapes", "to": "camvid", "classes": names}))
    class_map = load_class_map(path)
    by_map = prediction_table(CITYSCAPES, CAMVID, class_map)
    assert np.array_equal(by_map, prediction_table(CITYSCAPES, CAMVID))
    assert target_table(CITYSCAPES, CAMVID, class_map)[1] == target_table(CITYSCAPES, CAMVID)[1]


def test_labels_that_are_mapped_and_labels_of_those_classes_score_alike(
    own, scenes, artefact, run, tmp_path
):
    results = []
    for name, root in (("scenes", scenes), ("folder", own / "set")):
        where = ("--dataset", name, "--data", root, "--class-map", own / "map.json")
        done = run("evaluate", artefact, *where, "--json", tmp_path / "scores.json")
        assert done.code == 0, done.err
        results.append(json.loads((tmp_path / "scores.json").read_text()))
    mapped, written = results
    assert mapped["score"] == written["score"]
    assert list(written["score"]["iou_percent"]) == FOUR["names"]
    protocols = [result["protocol"] for result in results]
    assert protocols[0]["images_sha256"] == protocols[1]["images_sha256"]
    assert protocols[1]["groups"] == "each image by itself"
    assert protocols[1]["mapping"].startswith("by a class map from cityscapes: road, sidewalk: gr")
    refused = run("evaluate", artefact, "--dataset", "folder", "--data", own / "set")
    assert refused.code == 2
    assert "it has no class ground, house, green; give --class-map FILE" in refused.err


def test_parity_maps_the_reference_and_the_artefact_alike(own, artefact, checkpoint, run, tmp_path):
    where = ("--dataset", "folder", "--data", own / "set", "--class-map", own / "map.json")
    done = run(
        *("parity", artefact, "--weights", checkpoint, "--runtime", "onnxruntime", *where),
        *("--json", tmp_path / "parity.json", "--undecided", "pass"),
    )
    assert done.code == 0, done.err
    assert "ground" in (tmp_path / "parity.json").read_text()
    assert "by a class map from cityscapes: road, sidewalk: ground" in done.out
    assert "; groups: each image by itself" in done.out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "four"),  # cityscapes cannot be trained on it
        (("--label-set", "cityscapes", "--class-map", "{own}/map.json"), "cityscapes"),
        (("--class-map", "{own}/map.json"), "cityscapes"),
    ],
)
def test_training_takes_the_folders_classes_unless_others_are_named(
    own, run, tmp_path, monkeypatch, options, expected
):
    pytest.importorskip("pytorch_lightning")
    asked = []
    monkeypatch.setattr(
        "icnet_deploy.training.train.train", lambda *args, **more: asked.append(args)
    )
    where = ("--dataset", "folder", "--data", own / "set", "--split", "val", "--validate", "val")
    more = [one.format(own=own) for one in options]
    done = run("train", *where, *more, "-o", tmp_path / "net.safetensors")
    assert done.code == 0, done.err
    sets, label_set = asked[0][:2]
    assert ([d.name for d in sets], label_set.name) == (["folder"], expected)
    assert [name for name, _ in asked[0][7]] == ["set"]


def test_a_split_that_is_not_whole_is_not_scored_while_training(own, run, tmp_path, monkeypatch):
    pytest.importorskip("pytorch_lightning")
    monkeypatch.setattr("icnet_deploy.training.train.train", lambda *args, **more: None)
    for split in ("train", "val"):
        for name in ("a", "b"):
            write_image(tmp_path / f"images/{split}/{name}.png", np.zeros((8, 12, 3), np.uint8))
            write_labels(tmp_path / f"labels/{split}/{name}.png", np.ones((8, 12), np.uint8))
    (tmp_path / "classes.json").write_text(json.dumps({"label_set": FOUR}))
    where = ("--dataset", "folder", "--data", tmp_path, "-o", tmp_path / "net.safetensors")
    (tmp_path / "labels/val/b.png").unlink()
    done = run("train", *where)
    assert done.code == 2
    assert "1 of 2 folder images have no labels; first:" in done.err
    (tmp_path / "labels/val/a.png").unlink()
    done = run("train", *where)
    assert done.code == 0
    assert "has no labelled split 'val', so it is not scored" in done.out
