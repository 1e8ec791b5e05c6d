"""What a model answers is held to its metadata: by its shapes at opening, else answer by answer."""

from __future__ import annotations

import numpy as np
import pytest
from backend_contract import FIVE
from fake_backend import FakeBackend

from icnet_deploy.errors import BackendError, ImageError, ModelError, NotFinite
from icnet_deploy.labels import CAMVID, CITYSCAPES
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime import Predictor, TensorSpec
from icnet_deploy.runtime.backends.base import Labelled
from icnet_deploy.runtime.contract import check_answer

SIZE = (64, 96)


def answering(values, head="logits", *, size=SIZE, label_set=CITYSCAPES, stride=None, shape=None):
    """A predictor whose model gives `values`, an array or what makes one of the images.

    Its outputs are declared free, unless `shape` says more.
    """
    image = TensorSpec("image", (None, *(size or (None, None)), 3), np.dtype(np.uint8))
    rank, kind = (3, np.uint8) if head == "labels" else (4, np.float32)
    output = TensorSpec(head, shape or (None,) * rank, np.dtype(kind))
    make = values if callable(values) else lambda images: values
    backend = FakeBackend((image,), (output,), lambda feed: {head: make(feed["image"])})
    metadata = ArtefactMetadata(label_set, size, head, "fp32", stride=stride)
    return Predictor(backend, metadata)


def ask(predictor, size=SIZE):
    return predictor.predict(np.full((*size, 3), 7, np.uint8))


def logits(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


GOOD_GRIDS = [(64, 96), (32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
BAD_GRIDS = [(1, 1), (24, 16), (16, 23), (15, 24), (18, 25), (16, 12), (64, 24), (96, 64), (128, 1)]


@pytest.mark.parametrize("grid", GOOD_GRIDS)
def test_a_grid_of_one_stride_is_taken(grid):
    assert ask(answering(logits(1, 19, *grid))).labels.shape == SIZE
    assert ask(answering(logits(1, 19, *grid), shape=(None, 19, *grid))).labels.shape == SIZE


@pytest.mark.parametrize("grid", BAD_GRIDS)
def test_another_grid_is_refused_at_opening_or_at_the_answer(grid):
    with pytest.raises(BackendError, match=rf"float32 1 x 19 x {grid[0]} x {grid[1]} for 1 image"):
        ask(answering(logits(1, 19, *grid)))
    with pytest.raises(ModelError, match=f"{grid[0]} x {grid[1]}, but its metadata says"):
        answering(logits(1, 19, *grid), shape=(None, 19, *grid))


def test_a_network_of_no_one_stride_may_round_down():
    """As of a stem of stride 7, or a pool that leaves the last pixel out."""
    for grid in ((9, 13), (10, 14), (21, 32), (4, 6)):
        assert ask(answering(logits(1, 19, *grid))).labels.shape == SIZE
    for grid in ((9, 9), (8, 15), (20, 32)):
        with pytest.raises(BackendError, match="a whole number up to 32"):
            ask(answering(logits(1, 19, *grid)))


@pytest.mark.parametrize("stride", [1, 7, 14, 48, 64])
def test_any_stride_may_be_said(stride):
    grid = tuple(-(-side // stride) for side in SIZE)
    assert ask(answering(logits(1, 19, *grid), stride=stride)).labels.shape == SIZE


def test_an_answer_of_another_size_names_the_multiple_of_the_sides():
    metadata = ArtefactMetadata(CITYSCAPES, SIZE, "logits", "fp32", stride=4, side_multiple=32)
    with pytest.raises(BackendError, match="images whose sides are multiples of 32"):
        check_answer(metadata, np.dtype(np.float32), (1, 19, 4, 4), (1, *SIZE, 3))


def test_the_stride_that_the_metadata_says_is_the_only_one():
    assert ask(answering(logits(1, 19, 22, 32), stride=3)).labels.shape == SIZE
    for grid in ((16, 24), (64, 96), (21, 32), (22, 33)):
        with pytest.raises(
            BackendError, match="one logit for every s pixels of 64 x 96, where s is 3"
        ):
            ask(answering(logits(1, 19, *grid), stride=3))
        with pytest.raises(ModelError, match="where s is 3"):
            answering(logits(1, 19, *grid), stride=3, shape=(None, 19, *grid))
    with pytest.raises(ModelError, match="stride is 0"):
        answering(logits(1, 19, 16, 24), stride=0)


def test_a_pool_that_rounds_up_may_leave_one_logit_more():
    """As PSPNet's, of which no whole number of pixels lies between two logits."""
    for grid in ((16, 25), (17, 24), (17, 25), (4, 7)):
        assert ask(answering(logits(1, 19, *grid))).labels.shape == SIZE
        with pytest.raises(BackendError, match="s is 4"):
            ask(answering(logits(1, 19, *grid), stride=4))
    for grid in ((15, 24), (18, 24), (16, 26), (1, 1), (24, 16)):
        with pytest.raises(BackendError, match="one logit for every s pixels"):
            ask(answering(logits(1, 19, *grid)))


def test_a_free_size_is_held_to_each_images_own():
    quarter = lambda images: logits(1, 19, 18, 25)  # noqa: E731 - a model that sees nothing
    predictor = answering(quarter, size=None)
    for size in ((72, 100), (70, 97), (69, 98)):
        assert ask(predictor, size).labels.shape == size
    for size in ((72, 92), (76, 100), (100, 72)):
        with pytest.raises(
            BackendError, match=f" for 1 image of {size[0]} x {size[1]} pixels, exp"
        ):
            ask(predictor, size)
    for shape in ((None, 19, 18, 25), (None, 19, 18, None)):
        with pytest.raises(ModelError, match="but its metadata says"):
            answering(quarter, size=None, shape=shape)
    for shape in ((None, 72, 100), (None, None, 100)):
        with pytest.raises(ModelError, match="its metadata says uint8 N x H x W"):
            answering(quarter, "labels", size=None, shape=shape)


@pytest.mark.parametrize(
    "values",
    [
        logits(2, 19, 16, 24),
        logits(0, 19, 16, 24),
        logits(1, 11, 16, 24),
        logits(1, 20, 16, 24),
        logits(1, 16, 24, 19),
        logits(19, 16, 24),
        logits(1, 1, 19, 16, 24),
        logits(1, 19, 16, 24, dtype=np.float64),
        logits(1, 19, 16, 24, dtype=np.int32),
        logits(1, 19, 16, 24, dtype=">f4"),
        logits(1, 19),
        logits(),
    ],
    ids=lambda values: f"{values.dtype} {values.shape}",
)
def test_logits_of_another_number_kind_or_rank_are_refused(values):
    with pytest.raises(BackendError, match="expected float N x 19 x h x w"):
        ask(answering(values))


def labels(*shape, dtype=np.uint8):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    "values",
    [
        labels(1, 7, 9),
        labels(1, 96, 64),
        labels(1, 1, 1),
        labels(1, 16, 24),
        labels(1, 64, 97),
        labels(2, 64, 96),
        labels(0, 64, 96),
        labels(64, 96),
        labels(1, 1, 64, 96),
        labels(1, 64, 96, dtype=np.int64),
        labels(1, 64, 96, dtype=np.int8),
        labels(1, 64, 96, dtype=np.float32),
    ],
    ids=lambda values: f"{values.dtype} {values.shape}",
)
def test_a_label_map_of_another_size_or_kind_is_refused_not_resized(values):
    predictor = answering(values, "labels")
    for size in (SIZE, (200, 300)):
        with pytest.raises(BackendError, match="expected uint8 N x 64 x 96"):
            ask(predictor, size)


@pytest.mark.parametrize("shape", [(None, 7, 9), (None, 96, 64), (None, None, 64), (2, 64, 96)])
def test_a_label_map_whose_sides_tell_is_refused_at_opening(shape):
    with pytest.raises(ModelError, match="its metadata says uint8 N x 64 x 96"):
        answering(labels(1, 64, 96), "labels", shape=shape)


@pytest.mark.parametrize("head", ["logits", "labels"])
def test_a_batch_that_is_answered_otherwise_is_refused(head):
    shape = (19, 16, 24) if head == "logits" else SIZE
    kind = np.float32 if head == "logits" else np.uint8
    images = [np.zeros((*SIZE, 3), np.uint8)] * 3
    for count in (1, 2, 4):
        predictor = answering(np.zeros((count, *shape), kind), head)
        with pytest.raises(BackendError, match="for 3 images of 64 x 96"):
            predictor.predict_batch(images)
    assert len(answering(np.zeros((3, *shape), kind), head).predict_batch(images)) == 3


def test_an_answer_without_the_head_or_without_an_array_is_refused():
    for values in ({}, {"labels": labels(1, 64, 96)}, {"logits": [[1.0]]}, {"logits": None}):
        predictor = answering(logits(1, 19, 16, 24))
        predictor.backend.run = lambda feed, values=values: values
        with pytest.raises(BackendError, match="gave no array 'logits'"):
            ask(predictor)


class TestValues:
    """Of a graph that makes the label map."""

    @pytest.mark.parametrize(
        ("label_set", "largest"),
        [(CITYSCAPES, 18), (CAMVID, 10), (FIVE, 4)],
        ids=lambda value: getattr(value, "name", value),
    )
    def test_every_class_is_taken(self, label_set, largest):
        values = labels(1, *SIZE)
        values[0, -1, -1] = largest
        found = ask(answering(values, "labels", label_set=label_set)).labels
        assert found.max() == largest

    @pytest.mark.parametrize("size", [SIZE, (20, 30), (128, 192)])
    @pytest.mark.parametrize(
        ("label_set", "largest"), [(CITYSCAPES, 19), (CITYSCAPES, 254), (FIVE, 13), (FIVE, 5)]
    )
    def test_a_label_that_is_no_class_is_refused(self, label_set, largest, size):
        """Even one pixel, also where the label map is resized to an image that leaves it out."""
        values = labels(1, *SIZE)
        values[0, 33, 51] = largest
        predictor = answering(values, "labels", label_set=label_set)
        with pytest.raises(BackendError, match=f"holds {largest}, .* {label_set.name!r}") as caught:
            ask(predictor, size)
        assert not isinstance(caught.value, NotFinite)

    def test_255_says_that_the_logits_were_not_finite(self):
        for pixels in (slice(None), slice(5, 6)):
            values = labels(1, *SIZE)
            values[0, pixels] = 255
            with pytest.raises(NotFinite, match="infinite or not numbers: the network overflowed"):
                ask(answering(values, "labels"))

    def test_one_spoilt_image_of_a_batch_is_enough(self):
        values = labels(3, *SIZE)
        values[2, 0, 0] = 19
        with pytest.raises(BackendError, match="holds 19"):
            answering(values, "labels").predict_batch([np.zeros((*SIZE, 3), np.uint8)] * 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [3, (3, 0, 0), (18, 15, 23), slice(None)], ids=str)
def test_one_error_says_that_logits_are_not_finite(value, where):
    values = logits(1, 19, 16, 24)
    values[0, 0] = 5  # wins everywhere
    values[0][where] = value
    for size in (SIZE, (20, 30)):
        with pytest.raises(NotFinite, match="overflowed: use the float32 artefact"):
            ask(answering(values), size)
        with pytest.raises(NotFinite):
            ask(answering(values.astype(np.float16)), size)


class Labelling(FakeBackend):
    """A backend that makes label maps itself, and keeps no contract."""

    answer = None

    def label(self, metadata, images, sizes, on_device=False):
        return Labelled(self.answer, 1.0, 1.0)


@pytest.mark.parametrize(
    "answer",
    [
        [],
        [labels(7, 9)],
        [labels(96, 64)],
        [labels(64, 96, dtype=np.int64)],
        [labels(64, 96)] * 2,
        [labels(64, 96, 1)],
    ],
    ids=lambda answer: str([each.shape for each in answer]),
)
def test_label_maps_of_the_backends_own_are_held_to_the_images(answer):
    backend = Labelling.of_colours(CITYSCAPES, SIZE)
    backend.answer = answer
    with pytest.raises(BackendError, match=r"expected uint8 of \(64, 96\)"):
        ask(Predictor(backend, ArtefactMetadata(CITYSCAPES, SIZE, "logits", "fp32")))


def test_a_stream_of_images_on_the_gpu_wants_a_backend_that_copies_them():
    class OnTheGpu:
        shape = (*SIZE, 3)
        __cuda_array_interface__ = {  # noqa: RUF012 - read only
            "shape": shape,
            "typestr": "|u1",
            "data": (4096, False),
            "version": 3,
            "stream": None,
        }

    backend = Labelling.of_colours(CITYSCAPES, SIZE)
    backend.answer = [labels(*SIZE)]
    predictor = Predictor(backend, ArtefactMetadata(CITYSCAPES, SIZE, "logits", "fp32"))
    assert predictor.predict(OnTheGpu()).labels.shape == SIZE
    with pytest.raises(ImageError, match="the source of a stream may overwrite it"):
        list(predictor.stream([OnTheGpu()]))
