"""A second round's labels: what a student and a teacher say together, and what is written."""

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="checkpoints are run in PyTorch")

from icnet_deploy.data import open_dataset
from icnet_deploy.images import read_grey, write_image, write_labels
from icnet_deploy.networks.checkpoint import load_checkpoint
from tools.relabel import main, seen, together

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def network(checkpoint):
    return load_checkpoint(checkpoint)


def column(*shares):
    return np.array(shares, np.float32)[:, None, None]


def ask(student, label, confidence, share):
    values = (np.full((1, 1), value, np.uint8) for value in (label, confidence))
    return together(column(*student), *values, share)[:, 0, 0]


def test_what_the_teacher_leaves_is_spread_as_the_student_would():
    both = ask((0.5, 0.3, 0.2), 1, 153, 0.5)  # the teacher: 0.6 for class 1
    teacher = np.array([0.4 * 0.5 / 0.7, 0.6, 0.4 * 0.2 / 0.7])
    assert both == pytest.approx((np.array([0.5, 0.3, 0.2]) + teacher) / 2, abs=1e-6)
    assert both.sum() == pytest.approx(1)


def test_shares_of_none_and_all():
    student = (0.5, 0.3, 0.2)
    assert ask(student, 1, 153, 1.0) == pytest.approx(student)
    assert ask(student, 1, 153, 0.0)[1] == pytest.approx(0.6)
    assert ask(student, 255, 153, 0.0) == pytest.approx(student), "the teacher says nothing"


def test_a_student_that_is_certain_of_the_teachers_label():
    both = ask((0.0, 1.0, 0.0), 1, 128, 0.5)
    assert np.isfinite(both).all()
    assert both.argmax() == 1


def test_the_average_is_of_sizes_and_of_the_mirror_image(network, rng):
    import torch

    image = rng.integers(0, 256, (64, 96, 3), np.uint8)
    shares = seen(network, image, [1.0, 2.0])
    mirrored = seen(network, np.ascontiguousarray(image[:, ::-1]), [1.0, 2.0])
    assert shares.shape == (19, 64, 96)
    assert shares.sum(0) == pytest.approx(np.ones((64, 96)), abs=1e-4)
    np.testing.assert_allclose(mirrored[..., ::-1], shares, atol=1e-5)
    apart = [seen(network, image, [scale]) for scale in (1.0, 2.0)]
    np.testing.assert_allclose(sum(apart) / 2, shares, atol=1e-5)
    with torch.inference_mode():
        logits = network.network(network.preprocessing.tensor(image))
        plain = network.network.upsample(logits, (64, 96)).softmax(1)[0].numpy()
    assert not np.allclose(plain, apart[0], atol=1e-3), "the mirror image says something else"


@pytest.fixture
def taught(tmp_path, rng):
    root = tmp_path / "taught"
    for name in ("a/1", "a/2"):
        write_image(root / f"images/train/{name}.jpg", rng.integers(0, 256, (64, 96, 3), np.uint8))
        write_labels(root / f"labels/train/{name}.png", rng.integers(0, 19, (64, 96), np.uint8))
        write_labels(root / f"confidence/train/{name}.png", np.full((64, 96), 200, np.uint8))
    (root / "classes.json").write_text('{"label_set": "cityscapes"}')
    return root


def test_a_folder_is_labelled_again(checkpoint, network, taught, tmp_path, capsys):
    out = tmp_path / "again"
    options = ["--scales", "1", "1.5", "--share", "0.25", "-o", str(out)]
    assert main([str(checkpoint), str(taught), *options]) == 0
    assert "2 images: " in capsys.readouterr().out
    again = open_dataset("folder", out, "train")
    for sample, before in zip(again, open_dataset("folder", taught, "train"), strict=True):
        assert np.array_equal(sample.image, before.image)
        student = seen(network, sample.image, [1.0, 1.5])
        both = together(student, before.labels, np.full((64, 96), 200, np.uint8), 0.25)
        assert np.array_equal(sample.labels, both.argmax(0))
        sure = read_grey(out / f"confidence/train/{sample.name}.png")
        assert np.abs(sure - 255 * both.max(0)).max() <= 0.51
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "taught"]


def test_a_persons_labels_come_along(checkpoint, taught, tmp_path):
    person = {"label_set": "camvid", "classes": {"truck": "car"}}
    (taught / "person.json").write_text(json.dumps(person))
    for name in ("a/1", "a/2"):
        write_labels(taught / f"person/train/{name}.png", np.full((64, 96), 8, np.uint8))
    out = tmp_path / "again"
    assert main([str(checkpoint), str(taught), "--scales", "1", "-o", str(out)]) == 0
    assert json.loads((out / "person.json").read_text()) == person
    assert (open_dataset("folder", out, "train")[1].labels == 8).all()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: (root / "confidence").rename(root / "sure"), "has no confidence/train"),
        (
            lambda root: (root / "classes.json").write_text('{"label_set": "voc"}'),
            "expected the same classes in the same order",
        ),
        (lambda root: (root.parent / "again").mkdir(), "exists: name a new folder"),
    ],
)
def test_what_cannot_be_labelled_again_is_refused(
    checkpoint, taught, tmp_path, capsys, spoil, words
):
    spoil(taught)
    assert main([str(checkpoint), str(taught), "-o", str(tmp_path / "again")]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("again/*"))
    assert not list(tmp_path.glob(".again*"))
