import numpy as np
import pytest
import torch
import torch.nn.functional as F

from icnet_deploy.errors import ModelError, NotFinite
from icnet_deploy.evaluation.answer import answer_of, dense_labels, margins_at
from icnet_deploy.evaluation.reference import Reference
from icnet_deploy.images import resize_image, resize_labels
from icnet_deploy.networks.checkpoint import load_checkpoint


def random_logits(classes=5, height=7, width=9, seed=0):
    return np.random.default_rng(seed).normal(size=(classes, height, width)).astype(np.float32)


def dense(logits, size, upsampling="aligned-corners"):
    double = torch.from_numpy(logits)[None].double()
    aligned = upsampling == "aligned-corners"
    return F.interpolate(double, size=size, mode="bilinear", align_corners=aligned)[0].numpy()


RULES = pytest.mark.parametrize("upsampling", ["aligned-corners", "half-pixel"])


@RULES
@pytest.mark.parametrize("size", [(25, 33), (24, 31), (7, 9), (3, 50), (1, 1)])
def test_labels_are_the_argmax_of_the_dense_logits(size, upsampling):
    logits = random_logits()
    labels = dense_labels(logits, size, upsampling)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, dense(logits, size, upsampling).argmax(axis=0))


def test_logits_that_are_not_upsampled_are_pixels_which_may_be_resized():
    logits = random_logits()
    answer = answer_of(logits, (14, 27), upsampling="none")
    assert np.array_equal(answer.labels, resize_labels(logits.argmax(0).astype(np.uint8), (14, 27)))
    best = np.sort(logits, axis=0)
    rows, cols = np.array([0, 5, 13]), np.array([0, 20, 26])
    expected = (best[-1] - best[-2])[rows // 2, cols // 3]
    np.testing.assert_allclose(answer.margins(rows, cols), expected, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_no_reference(value):
    logits = random_logits()
    logits[3, 6, 8] = value
    with pytest.raises(NotFinite):
        dense_labels(logits, (3, 50))
    with pytest.raises(NotFinite):
        answer_of(logits, (24, 31), (25, 33))


def test_the_first_of_equal_classes_wins():
    logits = np.zeros((3, 2, 2), np.float32)
    assert not dense_labels(logits, (4, 4)).any()


@RULES
@pytest.mark.parametrize("size", [(25, 33), (24, 31), (7, 9), (3, 50), (1, 1)])
def test_margins_are_those_of_the_dense_logits(size, upsampling):
    logits = random_logits()
    rows, cols = (grid.ravel() for grid in np.indices(size))
    best = np.sort(dense(logits, size, upsampling), axis=0)
    expected = (best[-1] - best[-2])[rows, cols]
    margins = margins_at(logits, size, rows, cols, upsampling)
    np.testing.assert_allclose(margins, expected, atol=1e-12)


def test_margins_of_more_pixels_than_a_block():
    logits, size = random_logits(), (40, 50)
    rows, cols = (grid.ravel() for grid in np.indices(size))
    at_once = margins_at(logits, size, rows, cols)
    assert np.array_equal(margins_at(logits, size, rows, cols, block=7), at_once)


def test_margins_of_a_single_grid_point():
    logits = np.array([1.0, 4.0, 2.5], np.float32).reshape(3, 1, 1)
    assert margins_at(logits, (5, 5), np.array([0, 4]), np.array([4, 2])).tolist() == [1.5, 1.5]


def test_a_graph_that_makes_labels_is_answered_at_its_own_size():
    logits = random_logits()
    answer = answer_of(logits, (40, 50), model_size=(25, 33))
    assert np.array_equal(answer.labels, resize_labels(dense_labels(logits, (25, 33)), (40, 50)))
    # Each pixel's margin is that of the pixel it was copied from.
    rows, cols = (grid.ravel() for grid in np.indices((25, 33)))
    small = margins_at(logits, (25, 33), rows, cols)
    where = np.indices((25, 33))
    source = [resize_labels(index.astype(np.uint8), (40, 50)) for index in where]
    rows, cols = (grid.ravel() for grid in np.indices((40, 50)))
    expected = small.reshape(25, 33)[source[0], source[1]].ravel()
    assert np.array_equal(answer.margins(rows, cols), expected)


def test_the_reference_is_the_network_on_the_resized_image(checkpoint):
    image = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    read = load_checkpoint(checkpoint)
    reference = Reference(checkpoint, (96, 128))
    with torch.inference_mode():
        pixels = read.preprocessing.tensor(resize_image(image, (96, 128)))
        expected = read.network(pixels)[0].numpy()
    assert np.array_equal(reference.logits(image), expected)
    assert reference.logits(image).dtype == np.float32
    assert np.array_equal(reference.labels(image), dense(expected, (80, 100)).argmax(axis=0))
    assert reference.label_set == read.label_set


def test_a_reference_at_another_size_shares_the_network(checkpoint):
    image = np.zeros((80, 100, 3), np.uint8)
    reference = Reference(checkpoint, None)
    other = reference.at((64, 64))
    assert other.network is reference.network
    assert other.logits(image).shape == (19, 16, 16)
    assert reference.logits(image).shape == (19, 20, 25)


def test_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="there is no such file"):
        Reference(tmp_path / "none.safetensors", None)
