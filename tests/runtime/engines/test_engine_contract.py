"""What an engine answers is held to its metadata: with a sidecar or without, and on the GPU."""

from __future__ import annotations

import numpy as np
import pytest
from backend_contract import FIVE, THREE

from icnet_deploy.errors import BackendError, ModelError, NotFinite
from icnet_deploy.labels import CITYSCAPES
from icnet_deploy.runtime.cuda.base import OutOfMemory

SIZE = (64, 96)
BATCHES = ((1, *SIZE, 3), (2, *SIZE, 3), (4, *SIZE, 3))


def node(kind, *names, **attributes):
    from onnx import helper as h

    *inputs, output = names
    return h.make_node(kind, inputs, [output], **attributes)


def picture(value, size=SIZE):
    """All of one value, but for one pixel of value 1, 2, 3."""
    image = np.full((*size, 3), value, np.uint8)
    image[5, 7] = (1, 2, 3)
    return image


@pytest.fixture
def shown(desk, write_graph):
    """A function that builds an engine whose label map is the largest of the image's colours."""

    def build(label_set, perm=(0, 1, 2), sidecar=True, size=SIZE, shapes=BATCHES, sides=("a", "b")):
        nodes = [
            node("Cast", "image", "pixels", to=1),
            node("ReduceMax", "pixels", "largest", axes=[3], keepdims=0),
            node("Transpose", "largest", "turned", perm=perm),
            node("Cast", "turned", "labels", to=2),
        ]
        onnx = write_graph(nodes, ("N", *sides), label_set, "labels", size=size)
        return desk.engine(onnx, shapes, sidecar=sidecar)

    return build


@pytest.fixture
def divided(desk, write_graph):
    """A function that builds one whose logits are 1, and not finite where a colour is 0.

    With `infinite` they are infinite there, else NaN; `half`: they are float16.
    """

    def build(infinite=False, half=False, sidecar=True):
        from onnx import helper as h

        one = h.make_tensor("one", 1, [1, 1, 1, 1], [1.0])
        nodes = [
            node("Cast", "image", "pixels", to=1),
            node("Transpose", "pixels", "planes", perm=(0, 3, 1, 2)),
            node("Div", "one" if infinite else "planes", "planes", "scores"),
            node("Cast", "scores", "logits", to=10 if half else 1),
        ]
        onnx = write_graph(nodes, ("N", 3, *SIZE), THREE, "logits", [one], half=half)
        return desk.engine(onnx, BATCHES, sidecar=sidecar)

    return build


def ways(desk, predictor, image):
    """The host's picture and the GPU's, the label map to the host and left there, and batches."""
    yield lambda: predictor.predict(image)
    yield lambda: predictor.predict(image)  # as a graph
    yield lambda: predictor.predict(desk.frame(image), on_device=True)
    yield lambda: predictor.predict_batch([picture(1), picture(1), image])
    yield lambda: list(predictor.stream([image]))


class TestLabels:
    @pytest.mark.parametrize("sidecar", [True, False])
    def test_what_is_no_class_is_refused_wherever_it_stays(self, desk, shown, sidecar):
        """Without a sidecar it has the label set that it is given."""
        given = {} if sidecar else {"label_set": FIVE}
        with desk.open(shown(FIVE, sidecar=sidecar), **given) as predictor:
            assert predictor.predict(picture(4)).labels.max() == 4
            left = predictor.predict(picture(4), on_device=True).labels
            for value in (5, 13, 254):
                for way in ways(desk, predictor, picture(value)):
                    with pytest.raises(BackendError, match=f"holds {value}, .*'five'"):
                        way()
            for way in ways(desk, predictor, picture(255)):
                with pytest.raises(NotFinite, match="the network overflowed"):
                    way()
            assert predictor.predict(picture(4), on_device=True).labels.to_host().max() == 4
            assert left.to_host().max() == 4

    def test_without_a_label_set_there_are_19(self, desk, shown):
        with desk.open(shown(FIVE, sidecar=False)) as predictor:
            assert predictor.metadata.label_set is CITYSCAPES
            assert predictor.predict(picture(18)).labels.max() == 18
            for way in ways(desk, predictor, picture(19)):
                with pytest.raises(BackendError, match=r"holds 19, .*'cityscapes'"):
                    way()

    def test_also_where_the_image_is_smaller_and_leaves_it_out(self, desk, blocks, batched):
        """One pixel of the engine's label map, which resizing to the image's size passes over."""
        with desk.open(batched(head="labels")) as predictor:
            image = blocks((16, 24))
            predictor.predict(image)
            address = predictor.backend._execution.addresses["labels"]
            execute = predictor.backend._execution.enqueue

            def spoiled():
                execute()
                handle = predictor.backend._stream.handle
                desk.cuda.enqueue(
                    handle,
                    lambda: desk.cuda._view(address, (64, 96), np.dtype(np.uint8)).__setitem__(
                        (0, 0), 77
                    ),
                )

            predictor.backend._execution.enqueue = spoiled
            with pytest.raises(BackendError, match="holds 77"):
                predictor.predict(image)

    @pytest.mark.parametrize("sidecar", [True, False])
    def test_a_label_map_of_another_size_is_refused(self, desk, shown, sidecar):
        with pytest.raises(ModelError, match=r"uint8 \? x 96 x 64, but its metadata says"):
            desk.open(shown(FIVE, (0, 2, 1), sidecar, sides=(96, 64)))

    @pytest.mark.parametrize("sidecar", [True, False])
    def test_of_a_free_size_at_the_answer(self, desk, shown, sidecar):
        shapes = ((1, 64, 64, 3), (1, 64, 96, 3), (2, 96, 96, 3))
        engine = shown(FIVE, (0, 2, 1), sidecar, size=None, shapes=shapes)
        with desk.open(engine) as predictor:
            assert predictor.predict(picture(4, (72, 72))).labels.shape == (72, 72)
            for image in (picture(4), desk.frame(picture(4))):
                with pytest.raises(BackendError, match="labels: uint8 1 x 96 x 64 for 1 image"):
                    predictor.predict(image)


class TestLogits:
    @pytest.mark.parametrize("half", [False, True])
    @pytest.mark.parametrize("infinite", [False, True])
    def test_one_that_is_not_finite_is_refused_wherever_the_label_map_stays(
        self, desk, divided, infinite, half
    ):
        spoilt = picture(7)
        spoilt[63, 95, 2] = 0  # the last class alone, at one point
        with desk.open(divided(infinite, half)) as predictor:
            for image in (spoilt, picture(0)):
                for way in ways(desk, predictor, image):
                    with pytest.raises(NotFinite, match="overflowed: use the float32 artefact"):
                        way()
            for _ in range(2):  # the flag is put back
                assert predictor.predict(picture(7)).labels.max() < 3
                predictor.predict(picture(7), on_device=True).labels.free()

    @pytest.mark.parametrize("sidecar", [True, False])
    @pytest.mark.parametrize(("kernel", "stride"), [([64, 96], [1, 1]), ([2, 4], [2, 4])])
    def test_another_grid_is_refused(self, desk, write_graph, kernel, stride, sidecar):
        nodes = [
            node("Cast", "image", "pixels", to=1),
            node("Transpose", "pixels", "planes", perm=(0, 3, 1, 2)),
            node("AveragePool", "planes", "logits", kernel_shape=kernel, strides=stride),
        ]
        given = {} if sidecar else {"label_set": THREE}
        grid = (1, 1) if kernel[0] == 64 else (32, 24)
        onnx = write_graph(nodes, ("N", 3, *grid), THREE)
        with pytest.raises(ModelError, match=r"logits: float32 .* its metadata says"):
            desk.open(desk.engine(onnx, BATCHES, sidecar=sidecar), **given)
        onnx = write_graph(nodes, ("N", 3, "h", "w"), THREE, size=None)
        with (
            desk.open(desk.engine(onnx, BATCHES, sidecar=sidecar), **given) as predictor,
            pytest.raises(BackendError, match="logits: float32 1 x 3 x"),
        ):
            predictor.predict(picture(7))


class TestStream:
    def test_a_buffer_on_the_gpu_may_be_filled_anew(self, desk, blocks, batched):
        pictures = [blocks(SIZE, seed) for seed in range(8)]
        with desk.open(batched()) as predictor:
            expected = [predictor.predict(each).labels for each in pictures]
            frame = desk.frame(pictures[0])

            def frames():
                for each in pictures:
                    frame.fill(each)
                    yield frame

            predictions = list(predictor.stream(frames()))
        for each, labels, prediction in zip(pictures, expected, predictions, strict=True):
            np.testing.assert_array_equal(prediction.labels, labels)
            np.testing.assert_array_equal(prediction.image.to_host(), each)
        live = desk.cuda.live
        del prediction, predictions
        assert desk.cuda.live == live - len(pictures)

    def test_a_batch_may_be_drawn_from_it(self, desk, blocks, batched):
        pictures = [blocks(SIZE, seed) for seed in range(4)]
        with desk.open(batched()) as predictor:
            expected = [predictor.predict(each).labels for each in pictures]
            frame = desk.frame(pictures[0])
            drawn = ((frame.fill(each), frame)[1] for each in pictures)
            found = [prediction.labels for prediction in predictor.predict_batch(drawn)]
        np.testing.assert_array_equal(found, expected)

    def test_there_may_be_no_room_for_the_copy(self, desk, blocks, batched):
        with desk.open(batched()) as predictor:
            predictor.predict(blocks(SIZE))
            frame = desk.frame(blocks(SIZE))
            desk.cuda.capacity -= desk.cuda.free_memory()
            with pytest.raises(OutOfMemory):
                list(predictor.stream([frame]))
