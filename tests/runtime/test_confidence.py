"""How sure a pixel is: the softmax share of its class, exact, in little memory, and on demand."""

from __future__ import annotations

import dataclasses
import gc
import pickle
import tracemalloc
import weakref

import numpy as np
import pytest
from fake_backend import FakeBackend

from icnet_deploy.errors import BackendError, ImageError, InputError, NotFinite
from icnet_deploy.images import fit_image, resize_labels
from icnet_deploy.labels import CITYSCAPES, LabelSet
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime import Predictor, TensorSpec, label_map
from icnet_deploy.runtime.confidence import confidence_map

SIZE = (64, 96)


def dense_shares(logits, size, rule):
    """PyTorch's softmax of PyTorch's interpolation, in double precision: float64 C x H x W."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    dense = torch.from_numpy(np.array(logits, np.float64))[None]
    if rule != "none":
        aligned = rule == "aligned-corners"
        dense = torch.nn.functional.interpolate(dense, size, mode="bilinear", align_corners=aligned)
    return dense.softmax(dim=1)[0].numpy()


@pytest.mark.parametrize("rule", ["aligned-corners", "half-pixel", "none"])
@pytest.mark.parametrize("classes", [1, 2, 19, 254])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_it_is_the_softmax_share_of_the_label_maps_class(rule, classes, dtype):
    """Whole numbers, too, where classes tie: the share is that of the one that the map names."""
    rng = np.random.default_rng(classes)
    grid = (9, 13)
    size = grid if rule == "none" else (70, 101)
    for scale, whole in ((1, False), (8, False), (2, True)):
        logits = (rng.standard_normal((classes, *grid)) * scale).astype(dtype)
        logits = np.round(logits) if whole else logits
        for laid in (logits, np.ascontiguousarray(logits.transpose(1, 2, 0)).transpose(2, 0, 1)):
            shares = confidence_map(laid, size, upsampling=rule)
            labels = label_map(laid, size, upsampling=rule)
            expected = np.take_along_axis(
                dense_shares(logits, size, rule), labels[None].astype(int), axis=0
            )[0]
            assert shares.dtype == np.float32
            assert shares.shape == size
            assert shares.max() <= 1
            np.testing.assert_allclose(shares, expected, rtol=0, atol=1e-5)


def test_large_logits_do_not_overflow_and_a_single_channel_is_the_sigmoid():
    z = np.array([[-300.0, -2.0, 0.0, 3.0, 80.0, 3e38]], np.float32)
    shares = confidence_map(np.stack([np.zeros_like(z), z]), z.shape, upsampling="none")
    with np.errstate(over="ignore"):
        sigmoid = 1 / (1 + np.exp(-np.abs(z.astype(np.float64))))
    np.testing.assert_allclose(shares, sigmoid, atol=1e-6)


def test_what_is_not_finite_is_refused():
    logits = np.zeros((3, 4, 5), np.float32)
    logits[1, 2, 3] = np.nan
    with pytest.raises(NotFinite):
        confidence_map(logits, (8, 10))


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_150_classes_take_a_few_mib(last, dtype):
    logits = np.random.default_rng(0).standard_normal((150, 64, 128)).astype(dtype)
    if last:
        logits = np.ascontiguousarray(logits.transpose(1, 2, 0)).transpose(2, 0, 1)
    confidence_map(logits, (8, 8))
    tracemalloc.start()
    try:
        shares = confidence_map(logits, (256, 512), upsampling="half-pixel")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - shares.nbytes < 4 << 20  # the dense tensor has 75 MiB


def fake(size=SIZE, head="logits", **said):
    backend = FakeBackend.of_colours(CITYSCAPES, size, head)
    return Predictor(backend, ArtefactMetadata(CITYSCAPES, size, head, "fp32", **said)), backend


def logits_of(pixels):
    return FakeBackend.of_colours(CITYSCAPES).run({"image": pixels[None]})["logits"][0]


@pytest.mark.parametrize("size", [SIZE, (33, 50), (130, 100)])
@pytest.mark.parametrize("rule", ["aligned-corners", "half-pixel"])
def test_on_demand_and_at_once_it_is_the_same(blocks, size, rule):
    predictor, backend = fake(upsampling=rule)
    image = np.clip(blocks(size).astype(int) + 20, 0, 255).astype(np.uint8)
    later = predictor.predict(image)
    assert backend.runs == 1
    assert set(later.timings_ms) == {"preprocess", "inference", "label_map", "total"}
    expected = confidence_map(logits_of(fit_image(image, SIZE).pixels), size, upsampling=rule)
    image[:] = 0  # the prediction has its own
    np.testing.assert_array_equal(later.confidence, expected)
    assert later.confidence is later.confidence
    assert backend.runs == 2
    image[:] = later.image
    now = predictor.predict(image, confidence=True)
    assert backend.runs == 3
    np.testing.assert_array_equal(now.confidence, expected)
    np.testing.assert_array_equal(now.labels, later.labels)
    assert backend.runs == 3
    stages = {name: value for name, value in now.timings_ms.items() if name != "total"}
    assert "confidence" in stages
    assert now.timings_ms["total"] == pytest.approx(sum(stages.values()))


def test_batches_and_streams_tell_it_too(blocks):
    predictor, backend = fake()
    images = [blocks(size, seed) for seed, size in enumerate([SIZE, (33, 50), (130, 100)])]
    expected = [predictor.predict(image).confidence for image in images]
    backend.runs = 0
    batch = predictor.predict_batch(images, confidence=True)
    assert backend.runs == 1
    stream = list(predictor.stream(iter(images), confidence=True))
    assert backend.runs == 4
    lazy = predictor.predict_batch(images)
    for answers in (batch, stream, lazy):
        for prediction, shares in zip(answers, expected, strict=True):
            np.testing.assert_array_equal(prediction.confidence, shares)


@pytest.mark.parametrize("size", [(64, 95), (33, 50), (20, 300)])
def test_with_a_letterbox_it_is_of_the_models_size_without_the_border(blocks, size):
    predictor, _ = fake(fit="letterbox")
    image = blocks(size)
    pixels, (height, width) = fit_image(image, SIZE, "letterbox")
    whole = confidence_map(logits_of(pixels), SIZE)
    expected = whole[:height, :width]
    rows, columns = (
        resize_labels(np.mgrid[:height, :width][axis].astype(np.uint8), size) for axis in (0, 1)
    )
    expected = expected[rows, columns]
    np.testing.assert_array_equal(predictor.predict(image).confidence, expected)


def test_of_logits_that_are_not_upsampled_it_is_resized_as_the_labels_are(tiny_model, blocks):
    path = tiny_model(stride=1, describe={"upsampling": "none"})
    image = blocks((100, 130))
    with Predictor.open(path, "onnxruntime", "cpu") as predictor:
        later, now = predictor.predict(image), predictor.predict(image, confidence=True)
        pixels = fit_image(image, SIZE).pixels
        logits = predictor.backend.run({"image": pixels[None]})["logits"][0]
        own = confidence_map(logits, SIZE, upsampling="none")
        np.testing.assert_array_equal(later.confidence, now.confidence)
    rows, columns = (
        resize_labels(np.mgrid[: SIZE[0], : SIZE[1]][axis].astype(np.uint8), (100, 130))
        for axis in (0, 1)
    )
    np.testing.assert_array_equal(now.confidence, own[rows, columns])


def test_not_asked_for_it_costs_nothing(blocks, monkeypatch):
    """A prediction holds neither the logits nor what made them, nor works anything out."""
    monkeypatch.setattr("icnet_deploy.runtime.prediction.confidence_map", None)
    predictor, backend = fake()
    answers, network = [], backend._function

    def watched(feed):
        answer = network(feed)
        answers.append(weakref.ref(answer["logits"]))
        return answer

    backend._function = watched
    prediction = predictor.predict(blocks(SIZE))
    gc.collect()
    assert answers[0]() is None
    assert backend.runs == 1
    gone = weakref.ref(backend)
    del backend, predictor
    gc.collect()
    assert gone() is None
    with pytest.raises(BackendError, match=r"closed or deleted.*predict\(image, confidence=True\)"):
        _ = prediction.confidence


def test_after_close_only_what_was_asked_at_once_is_there(blocks):
    predictor, _ = fake()
    later, now = predictor.predict(blocks(SIZE)), predictor.predict(blocks(SIZE), confidence=True)
    predictor.close()
    with pytest.raises(BackendError, match=r"keep it open until you ask, or ask at once"):
        _ = later.confidence
    assert now.confidence.shape == SIZE


def test_a_copy_in_another_process_has_what_was_worked_out(blocks):
    predictor, _ = fake()
    image = blocks(SIZE)
    now, later = predictor.predict(image, confidence=True), predictor.predict(image)
    copied = pickle.loads(pickle.dumps(now))
    np.testing.assert_array_equal(copied.confidence, now.confidence)
    unasked = pickle.dumps(later)
    with pytest.raises(BackendError, match="closed or deleted"):
        _ = pickle.loads(unasked).confidence
    _ = later.confidence
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(later)).confidence, now.confidence)


def test_a_model_of_labels_cannot_tell_and_says_so_before_a_run(blocks):
    predictor, backend = fake(head="labels")
    image = blocks(SIZE)
    for ask in (
        lambda: predictor.predict(image, confidence=True),
        lambda: predictor.predict_batch([image], confidence=True),
        lambda: predictor.stream([image], confidence=True),
    ):
        with pytest.raises(InputError, match=r"'labels'.*export the network with --head logits"):
            ask()
    assert backend.runs == 0
    prediction = predictor.predict(image)
    with pytest.raises(InputError, match="--head logits"):
        _ = prediction.confidence
    assert backend.runs == 1


def test_labels_that_are_not_sure_are_no_class(blocks):
    predictor, _ = fake()
    image = np.clip(blocks(SIZE).astype(int) + 25, 0, 255).astype(np.uint8)
    prediction = predictor.predict(image)
    before = prediction.labels.copy()
    threshold = float(np.median(prediction.confidence))
    labels = prediction.sure_labels(threshold)
    unsure = prediction.confidence < threshold
    assert labels.dtype == np.uint8
    assert 0 < unsure.mean() < 1
    assert (labels[unsure] == 255).all()
    np.testing.assert_array_equal(labels[~unsure], before[~unsure])
    np.testing.assert_array_equal(prediction.labels, before)
    np.testing.assert_array_equal(prediction.sure_labels(0), before)
    with pytest.raises(ValueError, match="from 0 to 1, got 50"):
        prediction.sure_labels(50)


def test_on_the_gpu_it_says_what_to_do():
    from icnet_deploy.runtime.answer import Prediction

    host, there = np.zeros((4, 5), np.uint8), object()
    for labels, image, what in (
        (there, np.zeros((4, 5, 3), np.uint8), "label map"),
        (host, there, "image"),
    ):
        prediction = Prediction(labels, CITYSCAPES, {}, image, lambda image: image)
        with pytest.raises(ImageError, match=f"the {what} is on the GPU.*as a numpy array"):
            _ = prediction.confidence


@pytest.mark.parametrize("rule", ["none", "half-pixel"])
def test_of_tiles_it_is_that_of_their_averaged_logits(rule):
    """Of a pointwise network that is the whole image's: all tiles say the same of a pixel."""
    image = np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8)
    spec = TensorSpec("image", (None, 48, 64, 3), np.dtype(np.uint8))
    output = TensorSpec("logits", (None, 3, 48, 64), np.dtype(np.float32))

    def pointwise(images):
        return images.transpose(0, 3, 1, 2).astype(np.float32) / 40

    network = FakeBackend((spec,), (output,), lambda feed: {"logits": pointwise(feed["image"])})
    three = LabelSet("three", ("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    metadata = ArtefactMetadata(three, (48, 64), "logits", "fp32", stride=1, upsampling=rule)
    predictor = Predictor(network, metadata)
    expected = confidence_map(pointwise(image[None])[0], (100, 150), upsampling="none")
    now = predictor.predict_tiles(image, 0.5, confidence=True)
    np.testing.assert_allclose(now.confidence, expected, rtol=0, atol=1e-6)
    assert now.timings_ms["confidence"] > 0
    later, runs = predictor.predict_tiles(image, 0.5), network.runs
    assert "confidence" not in later.timings_ms
    np.testing.assert_array_equal(later.confidence, now.confidence)
    assert network.runs > runs
    one = predictor.predict_tiles(image[:48, :64], confidence=True)
    np.testing.assert_allclose(one.confidence, expected[:48, :64], rtol=0, atol=1e-6)
    predictor.close()
    with pytest.raises(BackendError, match="closed or deleted"):
        _ = dataclasses.replace(later).confidence  # as one that was not asked
