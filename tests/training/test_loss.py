"""Label guidance and the training targets."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training room needs torch")

import torch.nn.functional as F  # noqa: E402

from icnet_deploy.data import Sample  # noqa: E402
from icnet_deploy.errors import LabelSetError  # noqa: E402
from icnet_deploy.labels import CITYSCAPES  # noqa: E402
from icnet_deploy.training.augment import augment  # noqa: E402
from icnet_deploy.training.module import (  # noqa: E402
    head_losses,
    label_guidance,
    nearest_labels,
)


def test_one_head_is_plain_cross_entropy():
    logits, target = torch.randn(2, 5, 9, 11), torch.randint(0, 5, (2, 9, 11))
    target[0, 0] = 255
    expected = F.cross_entropy(logits, target, ignore_index=255)
    assert torch.allclose(head_losses([logits], target)[0], expected)


def test_heads_are_weighted_and_labels_are_downsampled_to_each():
    fine, coarse = torch.randn(1, 4, 9, 9), torch.randn(1, 4, 5, 5)
    target = torch.randint(0, 4, (1, 9, 9))
    expected = F.cross_entropy(fine, target) + 0.4 * F.cross_entropy(coarse, target[:, ::2, ::2])
    losses = head_losses([fine, coarse], target)
    assert torch.allclose(label_guidance(losses, [1.0, 0.4]), expected)


def test_downsampled_labels_are_labels_that_were_there():
    target = torch.where(torch.rand(1, 33, 47) < 0.5, 3, 250)
    assert set(nearest_labels(target, (7, 5)).unique().tolist()) <= {3, 250}
    assert torch.equal(nearest_labels(target, (33, 47)), target)


@pytest.mark.parametrize("size", [(5, 8), (11, 40), (7, 3)])
def test_half_pixel_labels_are_those_below_the_centres(size):
    target = torch.randint(0, 19, (1, 33, 40))
    wanted = F.interpolate(target[None].float(), size, mode="nearest-exact")[0].long()
    assert torch.equal(nearest_labels(target, size, "half-pixel"), wanted)


def test_a_merged_target_takes_the_sum_of_the_probabilities():
    logits = torch.randn(1, 4, 3, 3)
    p = logits.softmax(1)
    loss = head_losses([logits], torch.full((1, 3, 3), 4), merged=[(1, 3)])[0]
    assert torch.allclose(loss, -(p[:, 1] + p[:, 3]).log().mean())


def test_nothing_known_is_no_loss_and_no_nan():
    logits = torch.randn(1, 4, 3, 3, requires_grad=True)
    loss = head_losses([logits], torch.full((1, 3, 3), 255))[0]
    assert float(loss) == 0
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_class_weights_weigh_as_torchs_own_loss_does():
    logits, target = torch.randn(2, 3, 5, 7), torch.randint(0, 3, (2, 5, 7))
    target[1, 2:] = 255
    weights = torch.tensor([1.0, 3.0, 0.2])
    expected = F.cross_entropy(logits, target, weights, ignore_index=255)
    assert torch.allclose(head_losses([logits], target, weights)[0], expected)


def test_hard_pixels_are_those_of_the_largest_loss_in_each_image():
    logits, target = torch.randn(2, 4, 6, 6), torch.randint(0, 4, (2, 6, 6))
    target[0, :3] = 255  # 18 of 36 are known there
    each = F.cross_entropy(logits, target, ignore_index=255, reduction="none").flatten(1)
    expected = torch.cat([each[0].topk(6).values, each[1].topk(12).values]).mean()
    assert torch.allclose(head_losses([logits], target, hard_pixels=1 / 3 + 1e-6)[0], expected)


def test_parts_of_a_batch_add_up_to_the_whole():
    """What several processes do: each divides by the mean of all their weights."""
    logits, target = torch.randn(4, 3, 5, 5), torch.randint(0, 3, (4, 5, 5))
    target[0, 1:] = 255
    weights = torch.tensor([1.0, 2.0, 0.5])
    whole = head_losses([logits], target, weights)[0]
    sums = []
    for part in (slice(0, 2), slice(2, 4)):
        head_losses([logits[part]], target[part], weights, share=lambda w: sums.append(w) or w)
    parts = [
        head_losses([logits[p]], target[p], weights, share=lambda w: sum(sums) / 2)[0]
        for p in (slice(0, 2), slice(2, 4))
    ]
    assert torch.allclose(sum(parts) / 2, whole)


@pytest.mark.parametrize("resize", [(1.0, 1.0), (0.3, 0.5), (2.0, 3.0)])
def test_image_and_labels_are_cropped_alike(resize):
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 2, (9, 12)), np.ones((10, 10))).astype(np.uint8)
    image = np.repeat(labels[:, :, None] * 255, 3, 2).astype(np.uint8)
    for _ in range(20):
        crop = augment(Sample("one", image, labels), (65, 97), resize, rng)
        patch, truth = crop.image, crop.labels
        assert patch.shape == (65, 97, 3)
        assert truth.shape == (65, 97)
        known = truth != 255
        # Bright where the label is 1, whatever the colours went through.
        if known.any() and len(set(truth[known])) == 2:
            bright = patch.mean(2)
            assert bright[truth == 1].mean() > bright[truth == 0].mean() + 20
    assert set(np.unique(truth)) <= {0, 1, 255}


def test_a_sets_scale_brings_its_images_to_like_size(tmp_path):
    from icnet_deploy.data import open_dataset
    from icnet_deploy.data.scenes import write_scenes
    from icnet_deploy.training.config import TrainConfig
    from icnet_deploy.training.loader import Mix

    write_scenes(tmp_path, 1, (128, 192), 4, "train", progress=False)
    scenes = open_dataset("scenes", tmp_path, "train")

    def outside(scale):
        """The share of a crop that lies outside the image: it grows as the image shrinks."""
        config = TrainConfig(crop=(128, 192), resize=(1.0, 1.0), scales=(scale,))
        draws = iter(Mix([scenes], CITYSCAPES, config))
        return np.mean([float((next(draws)[1] == 255).float().mean()) for _ in range(8)])

    assert outside(0.5) > 0.6 > 0.3 > outside(1.0)
    with pytest.raises(LabelSetError, match="scales"):
        Mix([scenes], CITYSCAPES, TrainConfig(scales=(1.0, 2.0)))


def test_the_power_of_the_class_weights(tmp_path):
    from icnet_deploy.data import open_dataset
    from icnet_deploy.data.scenes import write_scenes
    from icnet_deploy.training.config import TrainConfig
    from icnet_deploy.training.loader import Mix, class_weights

    write_scenes(tmp_path, 2, (64, 96), 4, "train", progress=False)
    scenes = open_dataset("scenes", tmp_path, "train")
    whole, half = (
        class_weights(Mix([scenes], CITYSCAPES, TrainConfig(class_weights=p))) for p in (1, 0.5)
    )
    ratio = (whole / whole[0]).sqrt() / (half / half[0])
    assert torch.allclose(ratio, torch.ones(19), atol=1e-5)
    assert whole[17] > whole[0]  # motorcycles are rarer than road


def test_what_lies_outside_is_ignored():
    rng = np.random.default_rng(1)
    image, labels = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), np.uint8)
    truth = augment(Sample("one", image, labels), (80, 80), (1.0, 1.0), rng).labels
    assert 0.03 < (truth == 0).mean() < 0.12
    assert (truth[truth != 0] == 255).all()
