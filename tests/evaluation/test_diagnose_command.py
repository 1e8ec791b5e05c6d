"""`icnet evaluate --diagnose`: what it takes, what it writes, and its exit code."""

from __future__ import annotations

import json

import numpy as np
import pytest

from icnet_deploy.images import read_grey, read_image, write_image, write_labels
from icnet_deploy.labels import CAMVID

torch = pytest.importorskip("torch", reason="the float network needs torch")

NETWORK = f"""
import torch

COLOURS = torch.tensor({CAMVID.palette}) / 255


def nearest():
    network = torch.nn.Conv2d(3, len(COLOURS), 1)
    network.weight.data = 2 * COLOURS[:, :, None, None]
    network.bias.data = -COLOURS.square().sum(1)
    return network
"""


@pytest.fixture
def frames(tmp_path, monkeypatch):
    """Seven noisy pictures of CamVid's colours, and a module that tells these apart in 0..1."""
    (tmp_path / "diagnosed_colours.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    palette = np.array(CAMVID.palette)
    for index in range(7):
        random = np.random.default_rng(index)
        truth = random.integers(0, 11, (8, 12)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
        image = np.clip(palette[truth] + random.normal(0, 20, (64, 96, 3)), 0, 255)
        write_image(tmp_path / f"camvid/val/{index}.png", image.astype(np.uint8))
        write_labels(tmp_path / f"camvid/valannot/{index}.png", truth)
    return tmp_path / "camvid"


@pytest.fixture
def diagnosed(run, frames, one_thread):
    """A function that diagnoses the network, said to take this preprocessing."""

    def diagnosed(preprocessing, *others):
        on = ("--dataset", "camvid", "--data", frames, "--label-set", "camvid")
        network = ("--network", "diagnosed_colours:nearest", "--preprocessing", preprocessing)
        return run("evaluate", "--diagnose", *network, *on, *others)

    return diagnosed


def test_a_network_that_is_read_rightly_exits_with_0(diagnosed):
    done = diagnosed("unit")
    assert done.code == 0, done.err
    start = "No other setting scores clearly better than yours.\n"
    assert done.out.startswith(start)


def test_a_network_that_is_read_wrongly_exits_with_1_and_is_written_down(diagnosed, tmp_path):
    out, page = tmp_path / "found.json", tmp_path / "found.html"
    done = diagnosed("symmetric", "--json", out, "--report", page)
    assert done.code == 1, done.err
    assert done.out.startswith("`preprocessing: unit` scores ")
    assert done.out.splitlines()[1] == "Give --preprocessing unit."
    value = json.loads(out.read_text())
    assert value["found"] == ["preprocessing: unit"]
    assert value["data"]["images"] == 7
    assert "<svg" in page.read_text()


def test_label_files_that_count_from_one_are_found(diagnosed, frames, tmp_path):
    folder = tmp_path / "folder"
    for index in range(7):
        image, truth = frames / f"val/{index}.png", read_grey(frames / f"valannot/{index}.png")
        write_image(folder / f"images/val/{index}.png", read_image(image))
        write_labels(folder / f"labels/val/{index}.png", np.minimum(truth, 9) + np.uint8(1))
    label_set = {**CAMVID.to_dict(), "label_ids": list(range(1, 12))}
    (tmp_path / "counted.json").write_text(json.dumps(label_set))
    others = ("--dataset", "folder", "--data", folder, "--label-set", tmp_path / "counted.json")
    done = diagnosed("unit", *others, "--label-values", "indices")
    assert done.code == 1, done.err
    assert done.out.startswith("`labels: the files hold ids` scores ")
    assert done.out.splitlines()[1] == "Give --label-values ids."
    assert diagnosed("unit", *others).code == 0


def test_few_images_are_enough_for_nothing(diagnosed):
    done = diagnosed("caffe", "--limit", 3)
    assert (done.code, "Undecided: 3 images are too few" in done.out) == (0, True)


@pytest.mark.parametrize("option", ["--against", "--plot", "--save-predictions", "--runtime"])
def test_what_does_not_go_with_it_is_refused(option, diagnosed, tmp_path):
    value = "onnxruntime" if option == "--runtime" else "a.svg"
    done = diagnosed("unit", option, value)
    assert (done.code, done.out) == (2, "")
    assert option in done.err
    assert not (tmp_path / "a.svg").exists()


def test_an_artefact_is_refused_and_a_checkpoint_taken(run, artefact, checkpoint, scenes):
    on = ("--diagnose", "--dataset", "scenes", "--data", scenes, "--limit", 2)
    done = run("evaluate", artefact, *on)
    assert (done.code, done.out) == (2, "")
    assert "cannot change the preprocessing" in done.err
    done = run("evaluate", checkpoint, *on, "--size", "64x96")
    assert (done.code, done.err) == (0, "")
    assert "random.safetensors" in done.out
