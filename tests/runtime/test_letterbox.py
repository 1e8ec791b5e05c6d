"""A letterbox in `Predictor`: what the model gets, and the label map without the border."""

from __future__ import annotations

import numpy as np
import pytest
from fake_backend import FakeBackend

from icnet_deploy.errors import ImageError, ModelError
from icnet_deploy.evaluation.float_network import OnnxNetwork
from icnet_deploy.evaluation.reference import Reference
from icnet_deploy.images import fit_image, resize_labels
from icnet_deploy.labels import CITYSCAPES
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime import Predictor, label_map_dense
from icnet_deploy.runtime.auto.race import seconds_an_image, street_like

SIZE = (64, 96)
SIZES = [SIZE, (128, 192), (33, 50), (201, 97), (20, 300), (64, 95)]
MEAN = {"mean": [10.0, 120.0, 240.0], "scale": [1.0, 1.0, 1.0], "channels": "bgr"}


def fake(size=SIZE, head="logits", **said):
    """A predictor with a letterbox, whose backend keeps what it was fed."""
    backend = FakeBackend.of_colours(CITYSCAPES, size, head)
    run, fed = backend.run, []
    backend.run = lambda feed: fed.append(feed["image"]) or run(feed)
    said = {"fit": "letterbox", "preprocessing": MEAN} | said
    return Predictor(backend, ArtefactMetadata(CITYSCAPES, size, head, "fp32", **said)), fed


def plain(image, rule="aligned-corners"):
    """What the contract says, step by step."""
    pixels, (height, width) = fit_image(image, SIZE, "letterbox", (240, 120, 10))
    logits = FakeBackend.of_colours(CITYSCAPES, SIZE).run({"image": pixels[None]})["logits"][0]
    labels = label_map_dense(logits, SIZE, upsampling=rule)
    return pixels, resize_labels(np.ascontiguousarray(labels[:height, :width]), image.shape[:2])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("head", "rule"),
    [("logits", "aligned-corners"), ("labels", "aligned-corners"), ("logits", "half-pixel")],
)
def test_it_is_the_plain_computation(blocks, size, head, rule):
    predictor, fed = fake(head=head, upsampling=rule)
    image = blocks(size, 4)
    pixels, labels = plain(image, rule)
    prediction = predictor.predict(image)
    np.testing.assert_array_equal(fed[0][0], pixels)
    np.testing.assert_array_equal(prediction.labels, labels)
    assert prediction.labels.flags.c_contiguous
    assert prediction.overlay().shape == image.shape


def test_batches_and_streams_do_the_same(blocks):
    predictor, fed = fake()
    images = [blocks(size, seed) for seed, size in enumerate(SIZES)]
    for predictions in (predictor.predict_batch(images), predictor.stream(iter(images))):
        for image, prediction in zip(images, predictions, strict=True):
            np.testing.assert_array_equal(prediction.labels, plain(image)[1])
    assert len(fed[0]) == len(images)


def test_logits_that_are_not_upsampled_lose_the_border_too(tiny_model, blocks):
    described = {"upsampling": "none", "fit": "letterbox", "preprocessing": MEAN}
    with Predictor.from_onnx(tiny_model(stride=1, describe=described), "openvino") as predictor:
        image = blocks((50, 201))
        pixels, (height, width) = fit_image(image, SIZE, "letterbox", (240, 120, 10))
        logits = predictor.backend.run({"image": pixels[None]})["logits"][0]
        labels = logits.argmax(axis=0).astype(np.uint8)[:height, :width]
        expected = resize_labels(np.ascontiguousarray(labels), (50, 201))
        np.testing.assert_array_equal(predictor.predict(image).labels, expected)


def test_at_a_free_size_an_image_is_padded_and_not_scaled(blocks):
    predictor, fed = fake(None, min_side=70, side_multiple=16)
    image = blocks((33, 90))
    labels = predictor.predict(image).labels
    assert fed[0].shape == (1, 80, 96, 3)
    np.testing.assert_array_equal(fed[0][0, :33, :90], image)
    assert (fed[0][0, 33:] == (240, 120, 10)).all()
    logits = predictor.backend.run({"image": fed[0]})["logits"][0]
    np.testing.assert_array_equal(labels, label_map_dense(logits, (80, 96))[:33, :90])
    assert labels.flags.c_contiguous


def test_at_a_free_size_a_stretch_is_refused_before_a_run(blocks):
    predictor, fed = fake(None, fit="stretch", side_multiple=32)
    assert predictor.predict(blocks((64, 96))).labels.shape == (64, 96)
    for ask in (predictor.predict, lambda x: predictor.predict_batch([blocks((64, 96)), x])):
        with pytest.raises(ImageError, match="multiples of 32, such as 64 x 64 or 96 x 96"):
            ask(blocks((65, 95)))
    assert len(fed) == 1


def test_warmup_and_the_race_take_a_size_that_the_model_takes():
    predictor, fed = fake(None, fit="stretch", min_side=600, side_multiple=48)
    predictor.warmup(1)
    assert fed[0].shape == (1, 624, 1056, 3)
    assert predictor.size_near((1024, 2048)) == (1056, 2064)
    assert seconds_an_image(predictor, street_like(predictor.size_near((10, 10))), 1) > 0
    assert fake()[0].size_near((1024, 2048)) == SIZE


def test_a_model_that_does_not_say_the_borders_colour_is_refused():
    with pytest.raises(ModelError, match="mean is 'grey', expected three numbers"):
        fake(preprocessing={"mean": "grey"})


@pytest.mark.parametrize("rule", ["half-pixel", "none"])
def test_the_reference_says_the_same(tiny_model, rule):
    described = {"upsampling": rule, "fit": "letterbox", "preprocessing": MEAN}
    described |= {"stride": 1 if rule == "none" else 4, "weights_sha256": "a" * 64}
    for size in (SIZE, None):
        extent = {"side_multiple": 16} if size is None else {}
        path = tiny_model(stride=described["stride"], size=size, describe=described | extent)
        reference = Reference(OnnxNetwork(path), size)
        with Predictor.from_onnx(path, "onnxruntime", "cpu", threads=1) as predictor:
            for image in (street_like((50, 201)), street_like((130, 70))):
                expected = reference.labels(image)
                assert (predictor.predict(image).labels == expected).mean() > 0.999
