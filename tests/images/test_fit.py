"""An image of another shape than the model's: stretched, or kept in shape with a border."""

import numpy as np
import pytest

from icnet_deploy.images import fit_image, resize_image, unfit_labels


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (50, 50), (7, 200)])
def test_a_letterbox_keeps_the_shape_and_has_the_border_right_and_below(size):
    image = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
    fitted = fit_image(image, size, "letterbox", (10.4, 20.6, 300))
    height, width = fitted.content
    assert fitted.pixels.shape == (*size, 3)
    assert height == size[0] or width == size[1]
    assert abs(height / 40 - width / 80) <= max(0.5 / 40, 0.5 / 80)
    assert np.array_equal(fitted.pixels[:height, :width], resize_image(image, (height, width)))
    border = np.ones(size, bool)
    border[:height, :width] = False
    assert (fitted.pixels[border] == (10, 21, 255)).all()


def test_the_border_of_a_label_map_is_cut_off():
    labels = np.full((10, 20), 9, np.uint8)
    labels[:5, :10] = np.arange(50).reshape(5, 10) % 7
    assert np.array_equal(unfit_labels(labels, (5, 10), (5, 10)), labels[:5, :10])
    assert 9 not in unfit_labels(labels, (5, 10), (33, 71))


def test_what_has_the_models_shape_is_only_resized():
    image = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
    for fit in ("stretch", "letterbox"):
        fitted = fit_image(image, (20, 40), fit)
        assert np.array_equal(fitted.pixels, resize_image(image, (20, 40)))
        assert fitted.content == (20, 40)
    assert fit_image(image, (64, 64)).content == (64, 64)
