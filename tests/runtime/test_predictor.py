"""`Predictor` over the fake: sizes, heads, batches, streams, and what it refuses."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from fake_backend import FakeBackend

from icnet_deploy.errors import BackendError, ImageError, InputError, ModelError
from icnet_deploy.images import resize_image, resize_labels
from icnet_deploy.labels import CAMVID, CITYSCAPES
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime import Predictor, TensorSpec, label_map

SIZE = (64, 96)


def fake_predictor(size=SIZE, head="logits", batch=None, **said):
    backend = FakeBackend.of_colours(CITYSCAPES, size, head, batch)
    return Predictor(backend, ArtefactMetadata(CITYSCAPES, size, head, "fp32", **said)), backend


def test_it_finds_the_colours(blocks):
    image = blocks(SIZE)
    predictor, _ = fake_predictor()
    prediction = predictor.predict(image)
    assert prediction.labels.shape == SIZE
    assert prediction.labels.dtype == np.uint8
    # Right but within the 4 pixels over which the edges of blocks are interpolated.
    right = (prediction.colours() == image).all(axis=2)
    assert right.reshape(4, 16, 6, 16)[:, 4:12, :, 4:12].all()
    assert prediction.label_set is CITYSCAPES


@pytest.mark.parametrize("size", [(64, 96), (128, 192), (33, 50), (201, 97)])
@pytest.mark.parametrize("head", ["logits", "labels"])
def test_labels_come_back_at_the_images_size(blocks, size, head):
    predictor, _ = fake_predictor(head=head)
    prediction = predictor.predict(blocks(size))
    assert prediction.labels.shape == size
    assert prediction.image.shape == (*size, 3)
    assert prediction.overlay().shape == (*size, 3)


def test_both_heads_give_the_same_labels_at_the_artefacts_size(blocks):
    logits, _ = fake_predictor(head="logits")
    labels, _ = fake_predictor(head="labels")
    image = blocks(SIZE, seed=3)
    np.testing.assert_array_equal(logits.predict(image).labels, labels.predict(image).labels)


def test_the_image_is_resized_in_and_the_logits_are_resized_out(blocks):
    predictor, backend = fake_predictor()
    image = blocks((100, 130))
    logits = backend.run({"image": resize_image(image, SIZE)[None]})["logits"][0]
    expected = label_map(logits, (100, 130))
    np.testing.assert_array_equal(predictor.predict(image).labels, expected)


def test_a_prediction_is_frozen(blocks):
    predictor, _ = fake_predictor()
    prediction = predictor.predict(blocks(SIZE))
    with pytest.raises(dataclasses.FrozenInstanceError):
        prediction.labels = prediction.labels


def test_overlay_goes_from_the_image_to_the_colours(blocks):
    predictor, _ = fake_predictor()
    image = 255 - blocks(SIZE)
    prediction = predictor.predict(image)
    np.testing.assert_array_equal(prediction.overlay(0), image)
    np.testing.assert_array_equal(prediction.overlay(1), prediction.colours())
    half = (image.astype(float) + prediction.colours()) / 2
    assert np.abs(prediction.overlay() - half).max() <= 0.5
    with pytest.raises(ValueError, match="0 to 1"):
        prediction.overlay(1.5)


def test_a_free_size_takes_each_image_at_its_own(blocks):
    predictor, backend = fake_predictor(size=None)
    assert predictor.size is None
    for size in ((64, 64), (65, 129), (70, 90)):
        image = blocks(size)
        expected = label_map(backend.run({"image": image[None]})["logits"][0], size)
        np.testing.assert_array_equal(predictor.predict(image).labels, expected)
    with pytest.raises(ImageError, match="63 x 200"):
        predictor.predict(blocks((63, 200)))


@pytest.mark.parametrize(
    "image",
    [
        None,
        [[1, 2, 3]],
        np.zeros((64, 96), np.uint8),
        np.zeros((64, 96, 4), np.uint8),
        np.zeros((64, 96, 3), np.float32),
        np.zeros((0, 96, 3), np.uint8),
        np.zeros((1, 64, 96, 3), np.uint8),
    ],
    ids=["none", "list", "grey", "alpha", "float", "empty", "batch"],
)
def test_what_is_no_image_is_refused_before_a_run(image):
    predictor, backend = fake_predictor()
    for ask in (predictor.predict, lambda x: predictor.predict_batch([x])):
        with pytest.raises(ImageError, match="an image is"):
            ask(image)
    assert backend.runs == 0


def test_views_that_are_not_contiguous_are_images(blocks):
    predictor, _ = fake_predictor()
    for image in (blocks(SIZE), blocks((90, 90))):
        flipped = image[:, ::-1, ::-1]
        expected = predictor.predict(flipped.copy()).labels
        np.testing.assert_array_equal(predictor.predict(flipped).labels, expected)


class TestBatch:
    def test_one_run_for_images_of_any_size(self, blocks):
        predictor, backend = fake_predictor()
        images = [blocks(size, seed) for seed, size in enumerate([(64, 96), (30, 40), (200, 100)])]
        alone = [predictor.predict(image).labels for image in images]
        backend.runs = 0
        together = predictor.predict_batch(images)
        assert backend.runs == 1
        for expected, prediction in zip(alone, together, strict=True):
            np.testing.assert_array_equal(prediction.labels, expected)

    def test_one_by_one_where_the_model_takes_one(self, blocks):
        predictor, backend = fake_predictor(batch=1)
        assert len(predictor.predict_batch([blocks(SIZE, 0), blocks(SIZE, 1)])) == 2
        assert backend.runs == 2

    def test_a_free_size_takes_one_run_a_size_and_keeps_the_order(self, blocks):
        predictor, backend = fake_predictor(size=None)
        images = [blocks(size, i) for i, size in enumerate([(64, 96), (80, 80), (64, 96)])]
        predictions = predictor.predict_batch(images)
        assert backend.runs == 2
        for image, prediction in zip(images, predictions, strict=True):
            np.testing.assert_array_equal(prediction.image, image)
            np.testing.assert_array_equal(prediction.labels, predictor.predict(image).labels)

    def test_no_images_are_no_predictions(self):
        predictor, backend = fake_predictor()
        assert predictor.predict_batch([]) == []
        assert backend.runs == 0


def test_after_close_every_use_says_so(blocks):
    predictor, backend = fake_predictor()
    with predictor:
        predictor.warmup(2)
        assert backend.runs == 2
    predictor.close()
    assert backend.closed
    for use in (
        lambda: predictor.predict(blocks(SIZE)),
        lambda: predictor.predict_batch([]),
        lambda: predictor.stream([]),
        predictor.warmup,
    ):
        with pytest.raises(BackendError, match="the predictor is closed"):
            use()


def specs(name="image", shape=(None, *SIZE, 3), dtype=np.uint8):
    return (TensorSpec(name, shape, np.dtype(dtype)),)


LOGITS = specs("logits", (None, 19, 16, 24), np.float32)


@pytest.mark.parametrize(
    ("inputs", "outputs", "metadata", "message"),
    [
        (specs("input"), LOGITS, {}, "input is input"),
        (specs(dtype=np.float32), LOGITS, {}, "input is image: float32"),
        (specs(shape=(None, 3, *SIZE)), LOGITS, {}, "its metadata says"),
        (specs(shape=(None, 32, 96, 3)), LOGITS, {}, "its metadata says"),
        (specs(shape=(None, *SIZE, 4)), LOGITS, {}, "its metadata says"),
        (specs(), LOGITS, {"size": None}, "its metadata says"),
        (specs(shape=(4, *SIZE, 3)), LOGITS, {}, "4 images at a time"),
        (specs() + specs("mask"), LOGITS, {}, "2 inputs"),
        (specs(), LOGITS, {"label_set": CAMVID}, "11 classes"),
        (specs(), LOGITS, {"head": "labels"}, "no output 'labels'"),
        (specs(), LOGITS, {"head": "boxes"}, "head is 'boxes'"),
        (specs(), specs("logits", (None, 19, 16, 24), np.int32), {}, "expected float"),
        (specs(), specs("labels", (None, *SIZE), np.int64), {"head": "labels"}, "expected uint8"),
    ],
)
def test_a_model_that_is_not_what_it_says_is_refused(inputs, outputs, metadata, message):
    told = {"label_set": CITYSCAPES, "size": SIZE, "head": "logits", "precision": "fp32"}
    backend = FakeBackend(inputs, outputs, lambda feed: {})
    with pytest.raises(ModelError, match=message):
        Predictor(backend, ArtefactMetadata(**(told | metadata)))


def test_streams_are_for_the_cpu_and_at_least_one(tiny_model):
    with pytest.raises(InputError, match="0 streams on 'cpu'"):
        Predictor.from_onnx(tiny_model(), "openvino", "cpu", streams=0)


def test_auto_finds_a_runtime(tiny_model, blocks):
    with Predictor.from_onnx(str(tiny_model())) as predictor:
        assert predictor.runtime in ("onnxruntime", "openvino")
        assert predictor.predict(blocks(SIZE)).labels.shape == SIZE


def test_the_label_map_obeys_the_metadatas_upsampling(blocks):
    image = blocks((100, 130))
    found = {}
    for rule in ("aligned-corners", "half-pixel"):
        predictor, backend = fake_predictor(upsampling=rule)
        logits = backend.run({"image": resize_image(image, SIZE)[None]})["logits"][0]
        found[rule] = predictor.predict(image).labels
        expected = label_map(logits, (100, 130), upsampling=rule)
        np.testing.assert_array_equal(found[rule], expected)
    assert (found["aligned-corners"] != found["half-pixel"]).any()


def test_logits_that_are_not_upsampled_are_finished_at_their_own_size(tiny_model, blocks):
    described = {"upsampling": "none"}
    with Predictor.from_onnx(tiny_model(stride=1, describe=described), "openvino") as predictor:
        for size in (SIZE, (100, 130)):
            image = blocks(size)
            pixels = resize_image(image, SIZE)
            logits = predictor.backend.run({"image": pixels[None]})["logits"][0]
            labels = logits.argmax(axis=0).astype(np.uint8)
            expected = resize_labels(labels, size)
            np.testing.assert_array_equal(predictor.predict(image).labels, expected)
    with pytest.raises(ModelError, match=r"one logit for every s pixels .* s is 1"):
        Predictor.from_onnx(tiny_model(describe=described), "openvino")


def test_the_least_side_is_the_networks(blocks):
    with pytest.raises(ImageError, match="from 64 x 64 on"):
        fake_predictor(size=None)[0].predict(blocks((40, 96)))
    predictor, _ = fake_predictor(size=None, min_side=33)
    assert predictor.predict(blocks((40, 96))).labels.shape == (40, 96)
    with pytest.raises(ImageError, match="from 33 x 33 on"):
        predictor.predict(blocks((96, 32)))


def test_files_of_other_kinds_say_what_to_do(tmp_path):
    with pytest.raises(ModelError, match="cannot read the engine"):
        Predictor.from_engine(tmp_path / "icnet.engine")
    for suffix in (".engine", ".plan"):
        with pytest.raises(ModelError, match=r"is an engine.*Predictor\.from_engine"):
            Predictor.from_onnx(tmp_path / f"icnet{suffix}")
    with pytest.raises(ModelError, match="icnet export --weights"):
        Predictor.from_onnx(tmp_path / "icnet.safetensors")
    with pytest.raises(ModelError, match="cannot read the model"):
        Predictor.from_onnx(tmp_path / "absent.onnx")
    with pytest.raises(InputError, match="unknown runtime"):
        Predictor.from_onnx(tmp_path / "absent.onnx", runtime="tensorflow")


def test_a_network_that_overflowed_is_an_error_not_a_picture(blocks):
    predictor, backend = fake_predictor()
    run = backend.run
    backend.run = lambda feed: {"logits": np.full_like(run(feed)["logits"], np.nan)}
    with pytest.raises(BackendError, match="overflowed: use the float32 artefact"):
        predictor.predict(blocks(SIZE))


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_it_is_not_pickled_or_copied_and_says_what_to_do_in_a_pool(copied):
    predictor, _ = fake_predictor()
    with pytest.raises(InputError, match=r"cannot be pickled.*initializer of a process pool"):
        copied(predictor)


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**30])
def test_threads_that_no_machine_has_are_refused(tiny_model, threads):
    """ONNX Runtime ends the process, or raises an error of another type."""
    for runtime in ("onnxruntime", "openvino"):
        with pytest.raises(InputError, match=f"got {threads} threads, expected 1 to 1024"):
            Predictor.from_onnx(tiny_model(), runtime, "cpu", threads)
    with pytest.raises(InputError, match="got 100000 streams, expected 1 to 1024"):
        Predictor.from_onnx(tiny_model(), "openvino", "cpu", streams=100_000)
