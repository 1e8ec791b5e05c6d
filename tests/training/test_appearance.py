"""Other light, weather and cameras: each change does what it says, and no more than it may."""

from dataclasses import fields, replace

import numpy as np
import pytest

from icnet_deploy.data import Sample
from icnet_deploy.errors import InputError
from icnet_deploy.training.appearance import Appearance, changed

NAMES = [f.name for f in fields(Appearance)]
PAIRS = [f.name for f in fields(Appearance) if isinstance(f.default, tuple)]
PLAIN = Appearance(**{name: (0.0, 0.0) if name in PAIRS else 0.0 for name in NAMES})
HEIGHT, WIDTH = 64, 96


def only(name, strength=None):
    """That change alone, on every crop."""
    default = getattr(Appearance(), name)
    if name in PAIRS:
        return replace(PLAIN, **{name: (1.0, default[1] if strength is None else strength)})
    return replace(PLAIN, **{name: default if strength is None else strength})


@pytest.fixture
def crop():
    """Colourful, smooth from left to right, and with an edge."""
    x = np.linspace(30, 220, WIDTH)[None, :, None] * [1.0, 0.8, 0.5]
    image = np.repeat(x, HEIGHT, 0).astype(np.uint8)
    image[HEIGHT // 2 :] //= 2
    labels = np.repeat((np.arange(HEIGHT) // 16).astype(np.uint8)[:, None], WIDTH, 1)
    return Sample("one", image, labels)


def draws(crop, appearance, count=30, strength=1.0):
    return [changed(crop, np.random.default_rng(i), strength, appearance) for i in range(count)]


@pytest.mark.parametrize("name", NAMES)
def test_each_changes_the_image_and_only_erasing_the_labels(crop, name):
    before = crop.image.copy(), crop.labels.copy()
    found = draws(crop, only(name))
    assert any((one.image != crop.image).any() for one in found)
    assert len({one.image.tobytes() for one in found}) > 10
    for one in found:
        assert one.image.shape == crop.image.shape
        assert one.image.dtype == np.uint8
        assert one.image.flags.c_contiguous
        assert (one.labels == crop.labels).all() or name == "erase"
    assert (crop.image == before[0]).all()
    assert (crop.labels == before[1]).all()


@pytest.mark.parametrize(("appearance", "strength"), [(PLAIN, 1.0), (Appearance(), 0.0), (None, 0)])
def test_without_a_strength_nothing_changes(crop, appearance, strength):
    for one in draws(crop, appearance, 5, strength):
        assert np.abs(one.image.astype(int) - crop.image).max() <= 1  # sRGB there and back
        assert (one.labels == crop.labels).all()


@pytest.mark.parametrize("appearance", [None, Appearance()])
def test_the_same_seed_is_the_same_crop(crop, appearance):
    first, second = draws(crop, appearance), draws(crop, appearance)
    assert all((a.image == b.image).all() for a, b in zip(first, second, strict=True))


def test_each_channels_gain_is_of_its_own_and_within_its_range(crop):
    dim = replace(crop, image=crop.image // 4)  # so that nothing is cut off
    means = np.array([one.image.mean((0, 1)) for one in draws(dim, only("channels", 0.4), 200)])
    gains = np.log(means / dim.image.mean((0, 1)))
    assert np.abs(gains).max() < 0.43
    assert gains.min() < -0.3
    assert gains.max() > 0.3
    assert np.abs(np.corrcoef(gains.T) - np.eye(3)).max() < 0.3


def gains(name, strength):
    """Of the light of a grey crop, natural logarithms: a row for each of 200 draws."""

    def light(values):
        values = values / 255
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)

    grey = Sample("one", np.full((4, 4, 3), 120, np.uint8), np.zeros((4, 4), np.uint8))
    drawn = draws(grey, only(name, strength), 200)
    return np.log([light(one.image[0, 0]) / light(120) for one in drawn])


def test_exposure_is_stops_of_all_channels_light():
    stops = gains("exposure", 1.0) / np.log(2)
    assert (stops == stops[:, :1]).all()
    assert 0.7 < stops.max() < 1.03
    assert -1.03 < stops.min() < -0.7
    assert np.median(np.abs(stops)) < 0.4  # drawn of one strength for all crops it would be 0.5


def test_white_balance_is_of_red_against_blue_and_less_of_green():
    red, green, blue = gains("white_balance", 0.3).T
    for found, most in (((red - blue) / 2, 0.3), (green, 0.15)):
        assert 0.8 * most < found.max() < most + 0.02
        assert -most - 0.02 < found.min() < -0.8 * most


def test_grain_is_no_stronger_than_it_may_be(crop):
    grey = replace(crop, image=np.full_like(crop.image, 120))
    strengths = [one.image.std() / 255 for one in draws(grey, only("noise", 0.04))]
    assert 0.006 < min(strengths) < 0.02 < 0.03 < max(strengths) < 0.042


def test_saturation_goes_down_to_grey(crop):
    spread = [np.ptp(one.image, axis=2).mean() for one in draws(crop, only("saturation", 1.0), 300)]
    assert min(spread) < 0.1 * np.ptp(crop.image, axis=2).mean() < max(spread)


def test_shadow_only_darkens_and_haze_only_lightens_what_is_dark(crop):
    dark = replace(crop, image=np.full_like(crop.image, 40))
    assert all((one.image <= 41).all() for one in draws(dark, only("shadow")))
    hazy = [one.image.astype(float).mean((1, 2)) for one in draws(dark, only("haze"), 60)]
    assert all((rows >= 39).all() for rows in hazy)
    assert np.mean([rows[0] for rows in hazy]) > 1.3 * np.mean([rows[-1] for rows in hazy])


def test_what_is_erased_is_not_learned_and_is_no_more_than_it_may(crop):
    shares = []
    for one in draws(crop, only("erase", 0.3), 40):
        gone = one.labels == 255
        assert (one.image[~gone] == crop.image[~gone]).all()
        shares.append(gone.mean())
    assert min(shares) > 0
    assert 0.2 < max(shares) < 0.33


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"fog": [0.1, 1]}, "appearance holds fog; known: shadow, haze, "),
        ({"haze": 0.5}, r"appearance.haze is \(a chance from 0 to 1, .*; got 0.5"),
        ({"haze": [1.5, 0.5]}, r"appearance.haze is \(a chance from 0 to 1"),
        ({"channels": float("nan")}, "appearance.channels is a strength from 0 to 2; got nan"),
        ({"saturation": 1.5}, "appearance.saturation is"),
        ({"jpeg": [0.1, 100]}, "appearance.jpeg is"),
        ({"exposure": True}, "appearance.exposure is"),
    ],
)
def test_a_wrong_table_is_refused(table, said):
    with pytest.raises(InputError, match=said):
        Appearance.of(table)


def test_what_a_table_leaves_out_is_as_it_is():
    assert Appearance.of({}) == Appearance()
    assert Appearance.of({"blur": [0, 1], "gamma": 0}) == Appearance(blur=(0, 1), gamma=0)
