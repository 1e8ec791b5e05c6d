"""An image of another shape than the model's: stretched, or kept in shape with a border."""

import numpy as np
import pytest

from icnet_deploy.errors import ImageError, ModelError
from icnet_deploy.images import Fitting, fit_image, resize_image, unfit_labels
from icnet_deploy.labels import CITYSCAPES
from icnet_deploy.metadata import ArtefactMetadata


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


def metadata(**said):
    return ArtefactMetadata(CITYSCAPES, None, "logits", "fp32", **said)


def test_the_border_has_the_mean_in_the_images_order_of_channels():
    caffe = {"mean": (103.939, 116.779, 123.68), "scale": [1, 1, 1], "channels": "bgr"}
    assert Fitting.of(metadata(preprocessing=caffe)).border == (123.68, 116.779, 103.939)
    assert Fitting.of(metadata(preprocessing=caffe | {"channels": "rgb"})).border == caffe["mean"]
    assert Fitting.of(metadata()).border == (0, 0, 0)
    with pytest.raises(ModelError, match=r"mean is \[1, 2\], expected three numbers"):
        Fitting.of(metadata(preprocessing={"mean": [1, 2]}))


def test_at_a_free_size_a_letterbox_only_pads():
    fitting = Fitting("letterbox", (9, 8, 7), min_side=40, side_multiple=32)
    image = np.random.default_rng(0).integers(0, 256, (33, 65, 3), np.uint8)
    pixels, content = fitting.apply(image, None)
    assert (pixels.shape, content) == ((64, 96, 3), (33, 65))
    assert np.array_equal(pixels[:33, :65], image)
    assert (pixels[33:] == (9, 8, 7)).all()
    assert (pixels[:, 65:] == (9, 8, 7)).all()
    assert fitting.apply(pixels, None).pixels is pixels


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((100, 160), "multiples of 32, such as 96 x 160 or 128 x 160: crop or resize"),
        ((65, 97), "such as 64 x 96 or 96 x 128: .* 'letterbox', which pads"),
        ((32, 96), "from 64 x 64 on: enlarge the image"),
    ],
)
def test_at_a_free_size_a_stretch_says_which_sizes_fit(size, message):
    fitting = Fitting(min_side=33, side_multiple=32)
    image = np.zeros((64, 96, 3), np.uint8)
    assert fitting.apply(image, None) == (image, (64, 96))
    with pytest.raises(ImageError, match=message):
        fitting.apply(np.zeros((*size, 3), np.uint8), None)
