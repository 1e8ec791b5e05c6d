"""Training on a folder of one's own: its classes, what is told of its data, and any number."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training room needs torch")
pytest.importorskip("pytorch_lightning", reason="training needs pytorch_lightning")

from icnet_deploy.data import open_dataset  # noqa: E402
from icnet_deploy.errors import DatasetError, InputError, LabelSetError  # noqa: E402
from icnet_deploy.images import write_image, write_labels  # noqa: E402
from icnet_deploy.labels import LabelSet  # noqa: E402
from icnet_deploy.networks.checkpoint import load_checkpoint  # noqa: E402
from icnet_deploy.training.config import TrainConfig  # noqa: E402
from icnet_deploy.training.loader import Mix, class_weights  # noqa: E402
from icnet_deploy.training.module import head_losses  # noqa: E402
from icnet_deploy.training.train import train  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
FARM = {"name": "farm", "names": ["soil", "car", "barn"]}
CONFIG = 'width = 0.125\nstages = "sub4"\nbatch = 2\ncrop = [65, 97]\nseed = 3\n'


def folder(root, names, truths, split="train"):
    """Images of noise with these labels, and `classes.json`."""
    root.mkdir(exist_ok=True)
    described = {"label_set": {"name": root.name, "names": names}, "ignore": [200]}
    (root / "classes.json").write_text(json.dumps(described), encoding="utf-8")
    rng = np.random.default_rng(0)
    for index, truth in enumerate(truths):
        truth = np.asarray(truth, np.uint8)
        pixels = rng.integers(0, 256, (*truth.shape, 3), np.uint8)
        write_image(root / f"images/{split}/{index}.png", pixels)
        write_labels(root / f"labels/{split}/{index}.png", truth)
    return root


@pytest.fixture(scope="module")
def farm(tmp_path_factory):
    """Two images smaller than a crop, of soil and cars; the barn is on none."""
    truth = np.zeros((48, 70), np.uint8)
    truth[20:, 30:] = 1
    truth[:10] = 200
    root = folder(tmp_path_factory.mktemp("data") / "farm", FARM["names"], [truth, truth])
    return folder(root, FARM["names"], [truth], "val")


@pytest.fixture
def trained(farm, run, tmp_path):
    """A function that trains for two steps: what the command said, and the checkpoint's path."""
    (tmp_path / "c.toml").write_text(CONFIG, encoding="utf-8")

    def go(*more, name="net"):
        out = tmp_path / f"{name}.safetensors"
        data = ("--dataset", "folder", "--data", farm, "--config", tmp_path / "c.toml")
        return run("train", *data, "--steps", "2", "-o", out, *more), out

    return go


def test_a_folder_is_trained_on_in_its_own_classes(trained):
    done, out = trained()
    assert done.code == 0, done.err
    read = load_checkpoint(out)
    assert list(read.label_set.names) == FARM["names"]
    assert read.info["data"] == [{"name": "farm", "split": "train", "images": 2, "share": 1.0}]
    assert "3 classes of" in done.out
    assert "soil, car, barn" in done.out
    assert "1 of 3 classes have no pixel in the 2 training images" in done.out
    assert done.out.count("barn") == 2
    assert "miou_farm" in (out.with_suffix(".run") / "metrics.csv").read_text().splitlines()[0]


def test_the_shipped_weights_are_tuned_to_them(trained):
    done, out = trained("--init", "shipped", "--validate", "none")
    assert done.code == 0, done.err
    assert "weights of 1 class with the same name are kept: car" in done.out
    info = load_checkpoint(out).info
    assert info["classes"]["before"] == "cityscapes"
    assert any(each["name"] == "camvid-taught" for each in info["parent"]["data"])


def test_its_classes_may_be_some_of_a_named_sets_in_another_order(tmp_path, farm):
    few = folder(tmp_path / "few", ["sky", "road"], [np.eye(70, dtype=np.uint8)])
    cityscapes = open_dataset("folder", few, "train", label_set="cityscapes")
    from icnet_deploy.labels import CITYSCAPES

    mix = Mix([cityscapes], CITYSCAPES, TrainConfig(crop=(64, 64)))
    assert set(np.unique(mix.source(0, 0).labels)) == {0, 10}  # road and sky


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--label-set", "cityscapes"], "it has no class soil, barn; give --class-map FILE"),
        (["--label-set", "{map}.json", "--class-map", "{map}"], "there is no|cannot read"),
        (["--label-set", "{farm}/classes.json", "--class-map", "{map}"], "leave it out"),
        (["--dataset", "nosuch", "--data", "x"], "unknown data set 'nosuch'"),
        (["--dataset", "no_module:f", "--data", "{farm}"], "no_module"),
        (["--init", "nosuch.safetensors"], "there is no such file"),
    ],
)
def test_wrong_requests_are_refused(trained, farm, tmp_path, more, said):
    rule = {"from": "cityscapes", "to": FARM, "classes": {"terrain": "soil"}}
    (tmp_path / "map").write_text(json.dumps(rule))
    done, out = trained(*(part.format(farm=farm, map=tmp_path / "map") for part in more))
    assert done.code == 2
    assert any(part in done.err for part in said.split("|")), done.err
    assert not out.exists()


def test_a_class_map_trains_a_network_of_other_classes(trained, tmp_path):
    """What several classes stand for is learned as any of them; what none stands for is not."""
    rule = {"from": "cityscapes", "to": FARM, "classes": {"terrain": "soil", "road": "soil"}}
    (tmp_path / "map.json").write_text(json.dumps(rule))
    done, out = trained("--class-map", tmp_path / "map.json")
    assert done.code == 0, done.err
    assert len(load_checkpoint(out).label_set) == 19
    assert (
        "no class of the network stands for barn of farm, so their pixels are ignored" in done.out
    )
    [note] = [line for line in done.out.splitlines() if "have no pixel" in line]
    assert "16 of 19 classes" in note
    assert "terrain" not in note


def test_a_compression_is_tuned_on_a_folder(trained, farm, run, tmp_path):
    """Where it names no classes, it has the checkpoint's."""
    _, out = trained("--validate", "none")
    bare = folder(tmp_path / "bare", FARM["names"], [np.eye(96, dtype=np.uint8)])
    (bare / "classes.json").unlink()
    data = ("--dataset", "folder", "--data", bare, "--config", tmp_path / "c.toml", "--steps", "1")
    half = tmp_path / "half.safetensors"
    done = run("compress", out, "--keep", "0.5", *data, "-o", half)
    assert done.code == 0, done.err
    read = load_checkpoint(half)
    assert list(read.label_set.names) == FARM["names"]
    assert [each["name"] for each in read.info["data"]] == ["bare"]
    assert read.info["compression"]["parent"]["data"][0]["name"] == "farm"
    assert "parent" not in read.info


def test_each_data_set_merges_what_it_merges(tmp_path, farm):
    """Two rules of several data sets do not disturb each other."""
    network = LabelSet("five", ("a", "b", "c", "d", "e"), ((0, 0, 0),) * 5)
    sets = []
    for name, rule in (("one", {"a": "x", "b": "x", "c": "y"}), ("two", {"d": "x", "e": "x"})):
        root = folder(tmp_path / name, ["x", "y"], [[[0] * 64, [1] * 64] * 32])
        to = {"name": name, "names": ["x", "y"]}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"from": network.to_dict(), "to": to, "classes": rule}))
        sets.append(open_dataset("folder", root, "train", class_map=path))
    mix = Mix(sets, network, TrainConfig(crop=(64, 64)))
    assert mix.merged == [(0, 1), (3, 4)]
    assert [set(np.unique(mix.source(i, 0).labels)) for i in (0, 1)] == [{5, 2}, {6, 255}]


@pytest.mark.parametrize("count", [2, 100, 254])
def test_weights_and_losses_of_any_number_of_classes(tmp_path, count):
    names = [f"class {i}" for i in range(count)]
    truth = np.full((64, 64), count - 1, np.uint8)  # of all classes but the last no pixel
    root = folder(tmp_path / "many", names, [truth]) / "classes.json"
    root.write_text(json.dumps({"label_set": {"name": "many", "names": names}}))
    dataset = open_dataset("folder", tmp_path / "many", "train")
    mix = Mix([dataset], dataset.label_set, TrainConfig(crop=(64, 64)))
    weights = class_weights(mix)
    assert weights.shape == (count,)
    assert weights.isfinite().all()
    assert weights[-1] == weights.min()
    assert f"{count - 1} of {count} classes have no pixel" in mix.warnings()[0]
    logits = torch.zeros(1, count, 16, 16)
    [loss] = head_losses([logits], mix.draw(0)[1][None], weights)
    assert float(loss) == pytest.approx(np.log(count), rel=1e-5)


def test_254_classes_leave_room_for_one_merged_target(tmp_path):
    names = [f"class {i}" for i in range(254)]
    network = LabelSet("many", tuple(names), ((0, 0, 0),) * 254)
    root = folder(tmp_path / "few", ["x", "y"], [np.zeros((64, 64))])
    to = {"name": "few", "names": ["x", "y"]}

    def mixed(rule):
        path = tmp_path / "map.json"
        path.write_text(json.dumps({"from": network.to_dict(), "to": to, "classes": rule}))
        sets = [open_dataset("folder", root, "train", class_map=path)]
        return Mix(sets, network, TrainConfig(crop=(64, 64)))

    one = mixed({"class 0": "x", "class 1": "x"})
    assert one.seen()[254] == 1
    with pytest.raises(
        LabelSetError, match="254 classes and 2 groups of classes are more than the 255"
    ):
        mixed({"class 0": "x", "class 1": "x", "class 2": "y", "class 3": "y"})


def test_data_without_a_label_is_refused(tmp_path):
    root = folder(tmp_path / "blank", ["a", "b"], [np.full((64, 64), 200)])
    dataset = open_dataset("folder", root, "train")
    with pytest.raises(DatasetError, match="no pixel of the training images is labelled"):
        Mix([dataset], dataset.label_set, TrainConfig(crop=(64, 64))).warnings()


def test_crops_that_the_network_cannot_take_are_refused_before_the_run(farm, tmp_path):
    own_networks = pytest.importorskip("own_networks")
    dataset = open_dataset("folder", farm, "train")
    config = TrainConfig(network={"architecture": "test-plain"}, crop=(65, 97), batch=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_networks.Plain, "side_multiple", 32)
        with pytest.raises(InputError, match=r"crop is \(65, 97\); test-plain takes .* of 32:"):
            train([dataset], dataset.label_set, config, tmp_path / "n.safetensors", tmp_path / "n")


def test_images_are_scored_at_a_size_that_the_network_takes(farm, tmp_path):
    """Of 48x70, below the 64 pixels that an ICNet needs, and no multiple of 32."""
    own_networks = pytest.importorskip("own_networks")
    train_set, val = (open_dataset("folder", farm, split) for split in ("train", "val"))
    config = TrainConfig(network={"architecture": "test-plain"}, crop=(64, 96), batch=2, steps=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_networks.Plain, "side_multiple", 32)
        out, state = tmp_path / "n.safetensors", tmp_path / "n"
        train(
            [train_set],
            val.label_set,
            config,
            out,
            state,
            validation=[("v", val)],
            validate_every=1,
        )
    assert "miou_v" in (state / "metrics.csv").read_text()


def test_what_is_left_out_is_scored_and_not_trained_on(trained, farm):
    done, out = trained("--leave-out", "^1", "--validate", "left-out")
    assert done.code == 0, done.err
    info = load_checkpoint(out).info
    [data] = info["data"]
    assert (data["split"], data["images"]) == ("train without ^1", 1)
    assert "miou_farm" in (out.with_suffix(".run") / "metrics.csv").read_text()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--leave-out", "0007"], "matches no name of a training image, e.g. "),
        (["--leave-out", "/train/"], "matches all 2 images of farm train"),
        (["--leave-out", "("], "--leave-out ( is not a regular expression"),
        (["--validate", "left-out"], "needs --leave-out REGEX also"),
    ],
)
def test_a_wrong_part_to_leave_out_is_refused(trained, more, said):
    done, out = trained(*more)
    assert done.code == 2
    assert said in done.err
    assert not out.exists()
