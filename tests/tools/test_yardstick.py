"""The yardstick: whose labels count where, what light it tries, and what it records."""

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="checkpoints are scored in PyTorch")

from icnet_deploy.errors import InputError
from icnet_deploy.images import write_image, write_labels
from icnet_deploy.networks.checkpoint import load_checkpoint, save_checkpoint
from tools.yardstick import rows, streets
from tools.yardstick.__main__ import main
from tools.yardstick.looks import LOOKS

pytestmark = pytest.mark.usefixtures("one_thread")
HEIGHT, WIDTH = 64, 96
NAMES = ("0001TP_1", "0006R0_2", "0016E5_3", "0001TP_4")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """CamVid's and KITTI's layouts, of noise: four frames, and three."""
    root = tmp_path_factory.mktemp("streets")
    rng = np.random.default_rng(0)
    for name in NAMES:
        image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        write_image(root / f"camvid/train/{name}.png", image)
        labels = np.repeat(rng.integers(0, 12, HEIGHT), WIDTH).reshape(HEIGHT, WIDTH)
        write_labels(root / f"camvid/trainannot/{name}.png", labels.astype(np.uint8))
    for name in ("test-uu_1", "test-uu_2", "train-um_1"):
        image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        labels = np.repeat(np.arange(HEIGHT, dtype=np.uint8) % 19, WIDTH).reshape(HEIGHT, WIDTH)
        sure = np.full((HEIGHT, WIDTH), 144, np.uint8)
        sure[:, 48:] = 128
        write_image(root / f"kitti/image/{name}.jpg", image)
        write_labels(root / f"kitti/label/{name}.png", labels)
        write_labels(root / f"kitti/confidence/{name}.png", sure)
    return root


@pytest.fixture
def small(monkeypatch):
    sizes = {
        "camvid": {"360x480": (64, 64), "512x1024": (64, 96)},
        "kitti": {"512x1024": (64, 128)},
    }
    monkeypatch.setattr(streets, "SIZES", sizes)
    monkeypatch.setattr(rows, "SIZES", sizes)


def test_a_teachers_word_counts_where_it_is_sure_and_trusted(folders):
    kitti = streets.kitti(folders / "kitti", streets.ROADS)
    assert [sample.name for sample in kitti] == ["test-uu_1", "test-uu_2"]
    labels = kitti[0].labels
    assert (labels[:, 48:] == 255).all()
    road, fence, sign = labels[0, 0], labels[4, 0], labels[7, 0]
    assert (road, fence, sign) == (0, 255, streets.TRUSTED.index("traffic sign"))


def test_only_the_drives_that_are_held_out_are_scored(folders):
    camvid = streets.camvid(folders / "camvid", streets.DRIVES)
    assert [sample.name for sample in camvid] == ["0001TP_1", "0001TP_4", "0006R0_2"]
    assert set(camvid.groups()) == {"0001TP", "0006R0"}
    with pytest.raises(InputError, match="finds nothing in the names of the 4 frames"):
        streets.camvid(folders / "camvid", "^0005VD")


def test_a_look_is_what_it_is_called():
    grey = np.full((8, 4, 3), 100, np.uint8)
    assert (LOOKS["plain"].change(grey) == grey).all()
    strongest = {"greenish": 1, "reddish": 0, "bluish": 2, "dim green": 1}
    for name, channel in strongest.items():
        assert LOOKS[name].change(grey)[0, 0].argmax() == channel
    assert (LOOKS["dark"].change(grey) < 60).all()
    assert (LOOKS["bright"].change(grey) > 130).all()
    hazy = LOOKS["hazy"].change(grey).mean((1, 2))
    assert hazy[0] == hazy[3] == pytest.approx(0.4 * 100 + 0.6 * 208, abs=1)
    assert 100 < hazy[-1] < hazy[0]


@pytest.fixture(scope="module")
def trained(checkpoint, tmp_path_factory):
    """The checkpoint, of one that was pruned and trained on."""
    one = load_checkpoint(checkpoint)
    first = {"data": [{"name": "camvid", "split": "train", "images": 3}]}
    info = {"data": [{"name": "farm", "split": "train", "images": 2}]}
    path = tmp_path_factory.mktemp("trained") / "trained.safetensors"
    info |= {"compression": {"parent": first}}
    save_checkpoint(path, one.network, one.label_set, one.preprocessing, info)
    return path


def test_it_scores_and_records_and_compares(folders, trained, small, tmp_path, capsys):
    data = ["--camvid", folders / "camvid", "--kitti", folders / "kitti", "--looks", "dark"]
    argv = [trained, *data, "--json", tmp_path / "y.json"]
    assert main([str(word) for word in argv]) == 0
    result = json.loads((tmp_path / "y.json").read_text())
    assert result["trained_on"] == "2 images of farm train, 3 images of camvid train"
    assert f"trained.safetensors was trained on {result['trained_on']}" in capsys.readouterr().out
    found = [(row["street"], row["deployed"], row["look"]) for row in result["rows"]]
    assert found == [
        ("camvid", "360x480", "plain"),
        *(("camvid", "512x1024", look) for look in ("plain", "dark")),
        *(("kitti", "512x1024", look) for look in ("plain", "dark")),
    ]
    plain, dark = result["rows"][1:3]
    assert plain["protocol"]["model_size"] == "64x96"
    assert plain["protocol"]["split"] == f"train of {streets.DRIVES}"
    assert len(plain["images"]) == 3
    assert "images" not in dark
    moved = dark["miou_points"]["value"] - plain["miou_points"]["value"]
    assert dark["moved_points"]["miou"]["value"] == pytest.approx(moved, abs=1e-4)
    assert 0 < plain["miou_points"]["value"] == pytest.approx(plain["score"]["miou_percent"])
    again = [trained, *data[:2], "--sizes", "360x480", "--against", tmp_path / "y.json"]
    assert main([str(word) for word in again]) == 0
    assert "mIoU, points from trained.safetensors" in capsys.readouterr().out
    assert main([str(word) for word in (*again, "--limit", 1)]) == 2
    assert "was scored on other frames in the other result" in capsys.readouterr().err


def test_without_a_street_there_is_nothing_to_score(checkpoint, capsys):
    assert main([str(checkpoint)]) == 2
    assert "give --camvid DIR, --kitti DIR, or both" in capsys.readouterr().err
