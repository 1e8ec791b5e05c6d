"""Whose memory a frame is: a source may fill one buffer anew, a caller may go on writing to its."""

from __future__ import annotations

import gc
import mmap
import threading

import numpy as np
import pytest
from fake_backend import FakeBackend

from icnet_deploy.labels import CITYSCAPES
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime import Predictor
from icnet_deploy.runtime.prediction import _may_change

SIZE = (64, 96)


@pytest.fixture(params=["fake", "onnxruntime", "openvino"])
def opened(request, tiny_model):
    """A function that opens a model for a number of streams, on each runtime."""

    def make(streams=1, head="logits", size=SIZE):
        if request.param == "fake":
            backend = FakeBackend.of_colours(CITYSCAPES, size, head)
            told = ArtefactMetadata(CITYSCAPES, size, head, "fp32")
            return Predictor(backend, told, streams=streams)
        path = tiny_model(head=head, size=size)
        return Predictor.from_onnx(path, request.param, "cpu", streams, streams=streams)

    return make


def camera(pictures, size, how="fill"):
    """Yields frames as cameras and readers of videos do: all in one memory."""
    buffer = np.empty((*size, 3), np.uint8)
    for picture in pictures:
        buffer[:] = picture
        if how == "view":
            yield buffer.view()
        elif how == "read-only view":
            view = buffer.view()
            view.flags.writeable = False
            yield view
        elif how == "flipped":
            yield buffer[::-1, ::-1]
        elif how == "colours turned":
            yield buffer[:, :, ::-1]
        elif how == "lent":
            yield Lent(buffer).array
        else:
            yield buffer


class Lent:
    """What PyTorch and others do: an array over memory that another object owns, read-only."""

    def __init__(self, array):
        self.kept = array
        self.__array_interface__ = array.__array_interface__ | {
            "data": (array.ctypes.data, True),
            "version": 3,
        }

    @property
    def array(self):
        return np.asarray(self)


HOWS = ["fill", "view", "read-only view", "flipped", "colours turned", "lent"]


@pytest.mark.parametrize("streams", [1, 2, 4])
@pytest.mark.parametrize("size", [SIZE, (80, 100)], ids=["its size", "another"])
def test_a_stream_labels_a_buffer_that_is_filled_anew(opened, blocks, streams, size):
    pictures = [blocks(size, seed) for seed in range(12)]
    with opened(streams) as predictor:
        expected = [predictor.predict(picture).labels for picture in pictures]
        predictions = list(predictor.stream(camera(pictures, size)))
    assert len(predictions) == 12
    for picture, labels, prediction in zip(pictures, expected, predictions, strict=True):
        np.testing.assert_array_equal(prediction.labels, labels)
        np.testing.assert_array_equal(prediction.image, picture)
        np.testing.assert_array_equal(prediction.overlay(0), picture)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("head", ["logits", "labels"])
def test_however_the_buffer_is_given(opened, blocks, how, head):
    pictures = [blocks(SIZE, seed) for seed in range(8)]
    shown = [next(camera([picture], SIZE, how)).copy() for picture in pictures]
    with opened(2, head) as predictor:
        expected = [predictor.predict(picture).labels for picture in shown]
        predictions = list(predictor.stream(camera(pictures, SIZE, how)))
    for picture, labels, prediction in zip(shown, expected, predictions, strict=True):
        np.testing.assert_array_equal(prediction.labels, labels)
        np.testing.assert_array_equal(prediction.image, picture)


def test_a_frame_is_held_before_the_next_is_drawn(blocks):
    """Whatever the network is at: the source here waits until it has been asked again."""
    backend = FakeBackend.of_colours(CITYSCAPES, SIZE)
    go = threading.Event()
    run = backend.run
    backend.run = lambda feed: (go.wait(5), run(feed))[1]
    predictor = Predictor(backend, ArtefactMetadata(CITYSCAPES, SIZE, "logits", "fp32"), streams=2)
    pictures = [blocks(SIZE, seed) for seed in range(6)]

    def frames():
        buffer = np.empty((*SIZE, 3), np.uint8)
        for index, picture in enumerate(pictures):
            buffer[:] = picture
            if index == 2:
                go.set()  # only now the network may see the first
            yield buffer

    for picture, prediction in zip(pictures, predictor.stream(frames()), strict=True):
        np.testing.assert_array_equal(prediction.labels, predictor.predict(picture).labels)


@pytest.mark.parametrize("size", [SIZE, (80, 100)], ids=["its size", "another"])
def test_a_callers_array_may_be_written_over_after_the_answer(opened, blocks, size):
    pictures = [blocks(size, seed) for seed in range(3)]
    buffer = np.empty((*size, 3), np.uint8)
    with opened() as predictor:
        for picture in pictures:
            buffer[:] = picture
            alone = predictor.predict(buffer)
            together = predictor.predict_batch([buffer, buffer[::-1]])
            buffer[:] = 255
            for prediction in (alone, together[0]):
                np.testing.assert_array_equal(prediction.image, picture)
                np.testing.assert_array_equal(prediction.overlay(0), picture)
                np.testing.assert_array_equal(prediction.labels, alone.labels)
            np.testing.assert_array_equal(together[1].image, picture[::-1])


def test_a_batch_may_be_drawn_from_one_buffer(opened, blocks):
    pictures = [blocks(SIZE, seed) for seed in range(4)]
    with opened() as predictor:
        expected = [predictor.predict(picture).labels for picture in pictures]
        found = predictor.predict_batch(camera(pictures, SIZE))
    for picture, labels, prediction in zip(pictures, expected, found, strict=True):
        np.testing.assert_array_equal(prediction.labels, labels)
        np.testing.assert_array_equal(prediction.image, picture)


@pytest.mark.parametrize("read_only", [False, True])
def test_what_is_written_to_the_image_changes_nothing_else(opened, blocks, read_only):
    picture = blocks(SIZE, 1)
    given = picture.copy()
    given.flags.writeable = not read_only
    with opened() as predictor:
        prediction = predictor.predict(given)
    prediction.image[:] = 0
    np.testing.assert_array_equal(prediction.image, picture)
    np.testing.assert_array_equal(prediction.overlay(0), picture)
    np.testing.assert_array_equal(given, picture)
    assert not np.shares_memory(prediction.image, given)
    prediction.overlay()[:] = 0
    prediction.colours()[:] = 0
    np.testing.assert_array_equal(prediction.overlay(0), picture)


@pytest.mark.parametrize("head", ["logits", "labels"])
@pytest.mark.parametrize("size", [SIZE, None])
def test_label_maps_share_no_memory(opened, blocks, head, size):
    """Not with one another, the image or the runtime, whose later runs leave them as they are."""
    if head == "labels" and size is None:
        pytest.skip("the tiny model of label maps has a fixed size")
    images = [blocks(SIZE, seed) for seed in range(4)]
    with opened(2, head, size) as predictor:
        given = [predictor.predict(image) for image in images]
        given += predictor.predict_batch(images)
        given += predictor.stream(camera(images, SIZE))
        kept = [prediction.labels.copy() for prediction in given]
        for image in reversed(images):
            predictor.predict(255 - image)
            predictor.predict_batch([255 - image] * 4)
        list(predictor.stream(255 - image for image in images))
    del predictor
    gc.collect()
    for index, (prediction, labels) in enumerate(zip(given, kept, strict=True)):
        np.testing.assert_array_equal(prediction.labels, labels)
        assert prediction.labels.flags.writeable
        assert prediction.labels.flags.owndata
        for other in given[index + 1 :]:
            assert not np.shares_memory(prediction.labels, other.labels)


class TestMayChange:
    def test_what_can_be_written_to(self):
        array = np.zeros((4, 6, 3), np.uint8)
        view = array.view()
        view.flags.writeable = False
        for each in (array, array[::-1], view, view[1:], np.broadcast_to(array[:1], (4, 6, 3))):
            assert _may_change(each)

    def test_what_cannot(self):
        array = np.zeros((4, 6, 3), np.uint8)
        array.flags.writeable = False
        flat = np.frombuffer(bytes(72), np.uint8)
        for each in (array, array[:, ::-1], flat.reshape(4, 6, 3), flat.reshape(4, 6, 3)[::2]):
            assert not _may_change(each)

    def test_what_another_object_lends_read_only(self, tmp_path):
        """A view of a bytearray, a map of a file, an array of another library."""
        memory = bytearray(72)
        lent = np.frombuffer(memoryview(memory).toreadonly(), np.uint8).reshape(4, 6, 3)
        assert not lent.flags.writeable
        assert _may_change(lent)
        assert _may_change(Lent(np.zeros((4, 6, 3), np.uint8)).array)
        (tmp_path / "frame").write_bytes(bytes(72))
        assert _may_change(np.memmap(tmp_path / "frame", np.uint8, "r", shape=(4, 6, 3)))
        with (tmp_path / "frame").open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            assert _may_change(np.frombuffer(mapped, np.uint8).reshape(4, 6, 3))

    def test_a_read_only_frame_is_not_copied(self, blocks):
        backend = FakeBackend.of_colours(CITYSCAPES, SIZE)
        seen = []
        run = backend.run
        backend.run = lambda feed: (seen.append(feed["image"]), run(feed))[1]
        predictor = Predictor(backend, ArtefactMetadata(CITYSCAPES, SIZE, "logits", "fp32"))
        frame = blocks(SIZE).copy()
        frame.flags.writeable = False
        predictor.predict(frame)
        list(predictor.stream([frame]))
        assert [np.shares_memory(each, frame) for each in seen] == [True, True]
