"""A data set of one's own: a reader, and an entry in `DATASETS`. Nothing else is touched."""

from __future__ import annotations

import json

import numpy as np

from icnet_deploy.data import DATASETS, open_dataset
from icnet_deploy.data.dataset import Dataset, images_in, listed
from icnet_deploy.images import read_grey, write_image, write_labels
from icnet_deploy.labels import CITYSCAPES


def read(root, split) -> Dataset:
    """NAME.png beside NAME.labels/truth.png, in a folder a split."""
    files = [(i, i.with_suffix(".labels") / "truth.png") for i in images_in(root / split)]
    return listed("toy", root, split, CITYSCAPES, files, read_grey, "SPLIT/NAME.png")


def test_a_data_set_is_added_by_one_entry(artefact, run, tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "toy", read)
    for name in ("a", "b"):
        write_image(tmp_path / "val" / f"{name}.png", np.full((96, 128, 3), 90, np.uint8))
        truth = np.zeros((96, 128), np.uint8)
        write_labels(tmp_path / "val" / f"{name}.labels" / "truth.png", truth)
    assert [sample.name for sample in open_dataset("toy", tmp_path)] == ["a", "b"]
    where = ("--dataset", "toy", "--data", tmp_path)
    done = run("evaluate", artefact, *where, "--json", tmp_path / "scores.json")
    assert done.code == 0, done.err
    protocol = json.loads((tmp_path / "scores.json").read_text())["protocol"]
    assert (protocol["dataset"], protocol["images"]) == ("toy", 2)
    assert "toy" in run("evaluate", "--help").out
    unknown = run("evaluate", artefact, "--dataset", "no-such", "--data", tmp_path)
    assert unknown.code == 2
    assert "toy" in unknown.err
