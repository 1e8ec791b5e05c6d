"""Crops that show rare classes: where they are found, drawn and pasted."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training room needs torch")

from icnet_deploy.data import Dataset, Sample  # noqa: E402
from icnet_deploy.errors import LabelSetError  # noqa: E402
from icnet_deploy.labels import LabelSet  # noqa: E402
from icnet_deploy.training.augment import augment  # noqa: E402
from icnet_deploy.training.config import TrainConfig  # noqa: E402
from icnet_deploy.training.loader import Mix  # noqa: E402
from icnet_deploy.training.rare import aim_at, mixed, places, rare_targets  # noqa: E402

NAMES = ("road", "sky", "pole", "sign")
STREET = LabelSet("street", NAMES, ((0, 0, 0),) * 4)
ROAD, SKY, POLE, SIGN = range(4)


class Streets(Dataset):
    """Three images of 150 x 200: road and sky, with a pole and a sign on one, a pole on another."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        labels = np.full((150, 200), ROAD, np.uint8)
        labels[:60] = SKY
        if index < 2:
            labels[30:90, 20 + 130 * index : 24 + 130 * index] = POLE
        if index == 0:
            labels[20:30, 180:190] = SIGN
        image = np.repeat(labels[..., None] * 60, 3, 2)
        return Sample(str(index), image, labels)


def mix(count=1, **settings):
    config = TrainConfig(crop=(64, 64), resize=(1.0, 1.0), colour=0, seed=5, **settings)
    return Mix([Streets("own", "train", STREET, (), None)] * count, STREET, config)


def shows(crops, target):
    return np.mean([bool((crop[1] == target).any()) for crop in crops])


def draws(of, count=150):
    return [of.draw(number) for number in range(count)]


def test_what_is_rare_is_weighed_by_how_rare():
    shares = np.array([0.9, 0.01, 0.0, 0.005, 0.00001])
    assert rare_targets(shares, 0.02) == {1: 100.0, 3: 200.0, 4: 500.0}


def test_places_are_cells_that_show_enough_of_a_class():
    labels = np.zeros((100, 203), np.uint8)
    labels[10:12, 10:14] = 1  # 8 pixels
    labels[99, 200:203] = 1  # 3, in the last cell
    labels[50:60, 50:60] = 2
    found = places(labels, {1, 2, 3})
    assert found.keys() == {1, 2}
    assert found[1].tolist() == [27]  # cells of 8 pixels, 26 a row
    for seed in range(20):
        row, column = aim_at(labels, found, {1: 1.0, 2: 1.0}, np.random.default_rng(seed))
        assert labels[row, column] in (1, 2)
    assert aim_at(labels, {}, {}, np.random.default_rng(0)) is None


def test_a_window_holds_what_it_is_aimed_at():
    labels = np.zeros((90, 120), np.uint8)
    labels[80, 3] = 1
    sample = Sample("one", np.zeros((90, 120, 3), np.uint8), labels)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        crop = augment(sample, (64, 64), (2.0, 3.0), rng, 0, aim=(80, 3))
        assert (crop.labels == 1).any()


def test_crops_are_cut_where_rare_classes_are():
    plain, balanced = draws(mix()), draws(mix(rare_crops=1.0))
    assert shows(plain, SIGN) < 0.2 < 0.25 < shows(balanced, SIGN)
    assert shows(balanced, POLE) > shows(plain, POLE)
    none = sum(not ((crop[1] == POLE) | (crop[1] == SIGN)).any() for crop in balanced)
    assert 30 < none < 70  # the third image, which has none


def test_rare_classes_are_pasted_with_their_pixels():
    plain, pasted = draws(mix(), 80), draws(mix(class_mix=1.0), 80)
    assert shows(pasted, SIGN) > shows(plain, SIGN) + 0.15
    for image, labels in pasted:
        known = labels != 255
        alike = image[known][:, 0].long() == 60 * labels[known]
        assert alike.float().mean() > 0.9  # images are resized linearly, labels are not


def test_labels_and_weights_come_along():
    first, second = (np.full((4, 4), value, np.uint8) for value in (0, 1))
    second[:2] = 7
    image = np.zeros((4, 4, 3), np.uint8)
    onto = Sample("a", image, first, weights=np.full((4, 4), 200, np.uint8))
    of = Sample("b", image + 9, second, weights=np.full((4, 4), 50, np.uint8))
    found = mixed(onto, of, {7, 9}, np.random.default_rng(0))
    assert (found.labels == [[7] * 4] * 2 + [[0] * 4] * 2).all()
    assert (found.weights == [[50] * 4] * 2 + [[200] * 4] * 2).all()
    assert (found.image[..., 0] == [[9] * 4] * 2 + [[0] * 4] * 2).all()
    assert mixed(onto, of, {9}, np.random.default_rng(0)) is onto


def test_half_of_the_rare_classes_are_pasted():
    image = np.zeros((4, 4, 3), np.uint8)
    onto = Sample("a", image, np.zeros((4, 4), np.uint8))
    of = Sample("b", image, np.repeat(np.arange(1, 5, dtype=np.uint8)[:, None], 4, 1))
    chosen = [
        {*mixed(onto, of, {1, 2, 3, 4}, np.random.default_rng(i)).labels.ravel().tolist()} - {0}
        for i in range(20)
    ]
    assert {len(each) for each in chosen} == {2}
    assert set.union(*chosen) == {1, 2, 3, 4}


@pytest.mark.parametrize("settings", [{}, {"rare_crops": 0.5, "class_mix": 0.5}], ids=str)
def test_a_draw_depends_on_the_seed_and_its_number_alone(settings):
    forth, back = mix(**settings), mix(**settings)
    ones = [forth.draw(number) for number in range(12)]
    others = [back.draw(number) for number in reversed(range(12))][::-1]
    for one, other in zip(ones, others, strict=True):
        assert all(map(torch.equal, one, other))


def test_settings_of_rare_classes_leave_the_stream_alone_until_they_are_used():
    for one, other in zip(draws(mix(), 8), draws(mix(rare=0.5), 8), strict=True):
        assert all(map(torch.equal, one, other))


def test_squeezed_pixels_are_stretched():
    labels = np.zeros((64, 64), np.uint8)
    labels[16:48, 24:40] = 1  # 16 wide, 32 high
    sample = Sample("one", np.zeros((64, 64, 3), np.uint8), labels)
    crop = augment(sample, (128, 128), (1.0, 1.0), np.random.default_rng(0), 0, pixel_aspect=2.0)
    rows, columns = np.nonzero(crop.labels == 1)
    assert np.ptp(columns) / np.ptp(rows) == pytest.approx(1.0, abs=0.2)
    with pytest.raises(LabelSetError, match="pixel_aspects"):
        mix(pixel_aspects=(1.0, 2.0))


def test_how_rare_a_class_is_goes_by_its_frequency(monkeypatch):
    """What a teacher left open has few pixels, and is as frequent as all classes inside it."""
    monkeypatch.setattr(Mix, "frequencies", lambda self: np.array([0.9, 0.5, 0.5, 0.01]))
    crops = draws(mix(rare_crops=1.0))
    monkeypatch.undo()
    assert shows(crops, SIGN) > shows(draws(mix(rare_crops=1.0)), SIGN)
