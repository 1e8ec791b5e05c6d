"""Weights of pixels: in a crop, and in the loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training room needs torch")

import torch.nn.functional as F  # noqa: E402

from icnet_deploy.data import Sample  # noqa: E402
from icnet_deploy.training.augment import augment  # noqa: E402
from icnet_deploy.training.module import head_losses  # noqa: E402


@pytest.fixture
def pixels():
    """Logits of 4 classes, targets of which some are ignored, and weights of which some are 0."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, 8, generator=rng)
    target = torch.randint(0, 4, (2, 6, 8), generator=rng)
    target[0, :2] = 255
    weights = torch.randint(1, 256, (2, 6, 8), generator=rng).to(torch.uint8)
    weights[:, :, 0] = 0
    return logits, target, weights


def test_the_loss_is_the_weighted_mean_of_the_pixels(pixels):
    logits, target, weights = pixels
    each = F.cross_entropy(logits, target, ignore_index=255, reduction="none")
    of_classes = torch.tensor([1.0, 3.0, 0.2, 1.5])
    w = weights / 255 * (target != 255)
    [plain] = head_losses([logits], target, pixel_weights=weights)
    assert torch.allclose(plain, (w * each).sum() / w.sum())
    w = w * of_classes[target.where(target != 255, 0)]
    [both] = head_losses([logits], target, of_classes, pixel_weights=weights)
    assert torch.allclose(both, (w * each).sum() / w.sum())


def test_full_weights_change_nothing(pixels):
    logits, target, weights = pixels
    for hard in (1.0, 0.4):
        without = head_losses([logits], target, hard_pixels=hard)[0]
        [full] = head_losses(
            [logits], target, hard_pixels=hard, pixel_weights=torch.full_like(weights, 255)
        )
        assert torch.equal(full, without)


def test_a_pixel_of_weight_0_is_as_if_ignored(pixels):
    """Also where the hardest share of an image's pixels is counted."""
    logits, target, weights = pixels
    on_or_off = torch.where(weights > 0, 255, 0).to(torch.uint8)
    for hard in (1.0, 0.4):
        ignored = head_losses([logits], target.where(weights > 0, 255), hard_pixels=hard)[0]
        [weighed] = head_losses([logits], target, hard_pixels=hard, pixel_weights=on_or_off)
        assert torch.equal(weighed, ignored)
    [nothing] = head_losses([logits], target, pixel_weights=torch.zeros_like(weights))
    assert float(nothing) == 0


def test_the_hardest_pixels_are_those_of_the_largest_weighted_loss(pixels):
    logits, target, weights = pixels
    each = F.cross_entropy(logits, target, ignore_index=255, reduction="none")
    w = weights / 255 * (target != 255)
    kept = torch.zeros_like(w)
    for image in range(2):
        count = int((w[image] > 0).sum() * 0.5)
        kept[image].view(-1)[(w * each)[image].flatten().topk(count).indices] = 1
    [loss] = head_losses([logits], target, hard_pixels=0.5, pixel_weights=weights)
    assert torch.allclose(loss, (kept * w * each).sum() / (kept * w).sum())


def test_a_coarse_head_takes_the_weights_of_the_pixels_that_its_labels_are_of(pixels):
    logits, target, weights = pixels
    coarse = logits[:, :, :3, :4]
    for upsampling, rows, columns in (
        ("half-pixel", [1, 3, 5], [1, 3, 5, 7]),
        ("aligned-corners", [0, 2, 5], [0, 2, 5, 7]),
    ):
        at = np.ix_(range(2), rows, columns)
        [loss] = head_losses([coarse], target, upsampling=upsampling, pixel_weights=weights)
        assert torch.allclose(loss, head_losses([coarse], target[at], pixel_weights=weights[at])[0])


@pytest.mark.parametrize("resize", [(1.0, 1.0), (0.3, 0.5), (2.0, 3.0)])
def test_weights_are_cropped_as_labels_are(resize):
    """What lies outside has the weight 0; and the crop is the one that is drawn without weights."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 200, (90, 120)).astype(np.uint8)
    sample = Sample("one", draw.integers(0, 256, (90, 120, 3)).astype(np.uint8), labels)
    for seed in range(10):
        crop, plain = (
            augment(each, (65, 97), resize, np.random.default_rng(seed))
            for each in (replace(sample, weights=255 - labels), sample)
        )
        known = crop.labels != 255
        assert (crop.weights[known] == 255 - crop.labels[known]).all()
        assert (crop.weights[~known] == 0).all()
        assert crop.weights.flags.c_contiguous
        assert plain.weights is None
        assert (crop.image == plain.image).all()
        assert (crop.labels == plain.labels).all()
