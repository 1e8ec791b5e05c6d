"""What every backend must do, for a runtime's tests to inherit in a few lines.

    class TestMyRuntime(FileContract):
        name = "my-runtime"

Their fixtures, `tiny_model`, `write_graph` and `blocks`, are those of tests/runtime.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from fake_backend import FakeBackend

from icnet_deploy.errors import BackendError, ModelError, NotFinite
from icnet_deploy.labels import CAMVID, CITYSCAPES, LabelSet
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime import Predictor, open_backend

SIZE = (64, 96)
FIVE = LabelSet("five", tuple("abcde"), tuple((i, i, i) for i in range(5)))
THREE = LabelSet("three", tuple("abc"), tuple((i, i, i) for i in range(3)))
METADATA = ArtefactMetadata(CITYSCAPES, SIZE, "logits", "fp32")


class BackendContract:
    """Of a model of 64 x 96 with a free batch, the one of `tiny_model` or `FakeBackend`'s.

    A subclass has a fixture `opened`, a backend, and closes nothing.
    """

    @pytest.fixture
    def backend(self, opened):
        yield opened
        opened.close()

    def test_it_says_what_it_takes_and_gives(self, backend):
        (image,), (logits,) = backend.inputs, backend.outputs
        assert (image.name, image.shape, image.dtype) == ("image", (None, *SIZE, 3), np.uint8)
        assert (logits.name, logits.dtype) == ("logits", np.float32)
        assert logits.shape == (None, 19, 16, 24)

    def test_it_runs_batches(self, backend, blocks):
        images = np.stack([blocks(SIZE, seed) for seed in range(3)])
        values = backend.run({"image": images})
        assert list(values) == ["logits"]
        assert values["logits"].shape == (3, 19, 16, 24)
        closest = np.array(CITYSCAPES.palette)[values["logits"].argmax(axis=1)]
        np.testing.assert_array_equal(closest, images[:, ::4, ::4])

    def test_it_agrees_with_the_fake(self, backend, blocks):
        image = blocks(SIZE, 5)[None]
        fake = FakeBackend.of_colours(CITYSCAPES, SIZE).run({"image": image})["logits"]
        real = backend.run({"image": image})["logits"]
        # The fake's score has a term that is the same for all classes of a pixel.
        np.testing.assert_allclose(real - real[:, :1], fake - fake[:, :1], atol=1e-3)

    def test_it_answers_the_same_again(self, backend, blocks):
        feeds = [{"image": blocks(SIZE, seed)[None]} for seed in (1, 2, 1, 1)]
        first, other, *again = (backend.run(feed)["logits"].copy() for feed in feeds)
        assert (first != other).any()
        for values in again:
            np.testing.assert_array_equal(values, first)

    def test_another_threads_run_leaves_the_results_as_they_are(self, backend, blocks):
        first = backend.run({"image": blocks(SIZE, 1)[None]})["logits"]
        kept = first.copy()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(backend.run, {"image": blocks(SIZE, 2)[None]}).result()
        np.testing.assert_array_equal(first, kept)

    def test_it_takes_arrays_that_are_not_contiguous(self, backend, blocks):
        image = blocks((64, 192))[None, :, ::2]
        expected = backend.run({"image": image.copy()})["logits"].copy()
        np.testing.assert_array_equal(backend.run({"image": image})["logits"], expected)

    @pytest.mark.parametrize(
        "feed",
        [
            {},
            {"picture": np.zeros((1, *SIZE, 3), np.uint8)},
            {"image": np.zeros((1, *SIZE, 3), np.uint8), "other": np.zeros(1)},
            {"image": np.zeros((1, *SIZE, 3), np.float32)},
            {"image": np.zeros((1, 64, 97, 3), np.uint8)},
            {"image": np.zeros((*SIZE, 3), np.uint8)},
            {"image": np.zeros((0, *SIZE, 3), np.uint8)},
        ],
        ids=["empty", "name", "extra", "dtype", "size", "rank", "nothing"],
    )
    def test_it_refuses_what_does_not_fit(self, backend, feed):
        with pytest.raises(BackendError, match="the model takes"):
            backend.run(feed)

    def test_closing_twice_is_fine_and_running_then_is_not(self, backend):
        backend.close()
        backend.close()
        with pytest.raises(BackendError, match="closed"):
            backend.run({"image": np.zeros((1, *SIZE, 3), np.uint8)})

    def test_a_predictor_serves_it_and_threads_share_it(self, backend, blocks):
        predictor = Predictor(backend, METADATA)
        images = [blocks(size, seed) for seed, size in enumerate([SIZE, (33, 50), (128, 192)])]
        alone = [predictor.predict(image) for image in images]
        for image, prediction in zip(images, alone, strict=True):
            assert prediction.labels.shape == image.shape[:2]
            *stages, total = prediction.timings_ms.values()
            assert list(prediction.timings_ms)[:3] == ["preprocess", "inference", "label_map"]
            assert total == pytest.approx(sum(stages))
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(predictor.predict, images * 4))
        for wanted, prediction in zip(alone * 4, found, strict=True):
            np.testing.assert_array_equal(prediction.labels, wanted.labels)

    def test_it_is_held_to_the_metadata(self, backend):
        with pytest.raises(ModelError, match="11 classes"):
            Predictor(backend, replace(METADATA, label_set=CAMVID))
        with pytest.raises(ModelError, match="no output 'labels'"):
            Predictor(backend, replace(METADATA, head="labels"))


class FileContract(BackendContract):
    """What a runtime that loads ONNX files must do besides.

    Attributes:
        name: the runtime's.
        device: where it runs.
    """

    name: str
    device = "cpu"

    @pytest.fixture
    def opened(self, tiny_model):
        return self.open(tiny_model())

    def open(self, path):
        return open_backend(self.name, path, self.device, threads=1)

    def predictor(self, path, **options):
        return Predictor.from_onnx(path, self.name, self.device, threads=1, **options)

    def ask(self, path, value=7):
        with self.predictor(path) as predictor:
            image = np.full((*SIZE, 3), value, np.uint8)
            image[0, 0] = (1, 2, 0)
            return predictor.predict(image)

    def test_half_precision_and_free_sizes(self, tiny_model, blocks):
        backend = self.open(tiny_model(size=None, half="out"))
        assert backend.inputs[0].shape == (None, None, None, 3)
        assert backend.outputs[0].dtype == np.float16
        for size in (SIZE, (100, 72)):
            logits = backend.run({"image": blocks(size)[None]})["logits"]
            assert logits.dtype == np.float16
            assert logits.shape == (1, 19, size[0] // 4, size[1] // 4)
        backend.close()

    def test_the_outputs_name_outlives_its_cast(self, tiny_model, blocks):
        """A float16 artefact ends in a cast, which a runtime that computes in float32 drops."""
        backend = self.open(tiny_model(half="inside"))
        assert [spec.name for spec in backend.outputs] == ["logits"]
        assert backend.outputs[0].dtype == np.float32
        assert list(backend.run({"image": blocks(SIZE)[None]})) == ["logits"]

    def test_a_broken_file_is_a_model_error(self, tiny_model, tmp_path):
        whole = tiny_model().read_bytes()
        broken = tmp_path / "broken.onnx"
        broken.write_bytes(whole.replace(b"Transpose", b"Transqose"))
        with pytest.raises(ModelError, match="cannot load"):
            self.open(broken)
        with pytest.raises(ModelError):
            self.open(tmp_path / "absent.onnx")

    def test_both_heads_agree(self, tiny_model, blocks):
        images = [blocks(SIZE, 4), blocks((77, 130), 2)]
        fake = Predictor(FakeBackend.of_colours(CITYSCAPES, SIZE), METADATA)
        with (
            self.predictor(tiny_model()) as logits,
            self.predictor(tiny_model(head="labels")) as labels,
        ):
            assert (logits.runtime, logits.device, logits.size) == (self.name, self.device, SIZE)
            assert logits.metadata.label_set == CITYSCAPES
            for image, prediction in zip(images, logits.predict_batch(images), strict=True):
                same = prediction.labels == fake.predict(image).labels
                assert same.mean() > 0.999  # but for ties on the edges of blocks
            same = labels.predict(images[0]).labels == logits.predict(images[0]).labels
            assert same.mean() > 0.999

    def test_metadata_that_lies_is_refused_with_the_files_name(self, tiny_model):
        path = tiny_model(describe={"label_set": CAMVID})
        with pytest.raises(ModelError, match=rf"{path.name}.*11 classes"):
            self.predictor(path)
        with pytest.raises(ModelError, match="input is pixels_in"):
            self.predictor(tiny_model(input_name="pixels_in"))

    def test_a_cut_off_file_is_refused(self, tiny_model):
        path = tiny_model()
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(ModelError, match="cut off"):
            self.predictor(path)

    def labels_of_red(self, write_graph, label_set, perm=(0, 1, 2), size=SIZE):
        """A graph that answers with the image's red: what it is shown is what it says."""
        from onnx import helper as h

        zero = h.make_tensor("zero", 6, [], [0])
        nodes = [
            h.make_node("Gather", ["image", "zero"], ["red"], axis=3),
            h.make_node("Transpose", ["red"], ["labels"], perm=perm),
        ]
        return write_graph(nodes, ("N", "a", "b"), label_set, "labels", [zero], size)

    def test_labels_that_are_no_class_are_refused(self, write_graph):
        path = self.labels_of_red(write_graph, FIVE)
        assert self.ask(path, value=4).labels.max() == 4
        for value in (5, 13, 254):
            with pytest.raises(BackendError, match=f"holds {value}, .*'five'"):
                self.ask(path, value=value)
        with pytest.raises(NotFinite):
            self.ask(path, value=255)

    @pytest.mark.parametrize("size", [SIZE, None])
    def test_labels_that_are_transposed_are_refused(self, write_graph, size):
        path = self.labels_of_red(write_graph, CITYSCAPES, (0, 2, 1), size)
        with pytest.raises((ModelError, BackendError), match="96 x 64"):
            self.ask(path)

    @pytest.mark.parametrize("size", [SIZE, None])
    @pytest.mark.parametrize(
        ("kernel", "stride", "message"),
        [([64, 96], [1, 1], "1 x 1"), ([2, 4], [2, 4], "32 x 24")],
    )
    def test_logits_on_another_grid_are_refused(self, write_graph, size, kernel, stride, message):
        from onnx import helper as h

        pool = {"kernel_shape": kernel, "strides": stride}
        nodes = [*planes(), h.make_node("AveragePool", ["planes"], ["logits"], **pool)]
        path = write_graph(nodes, ("N", 3, "h", "w"), THREE, size=size)
        with pytest.raises((ModelError, BackendError), match=f"3 x {message}"):
            self.ask(path)

    @pytest.mark.parametrize(("kind", "value"), [("Sqrt", "NaN"), ("Log", "-infinity")])
    def test_one_logit_of_a_class_that_loses_is_refused(self, write_graph, kind, value):
        """Blue is 0 at one pixel, where red and green are more: it could not win there."""
        from onnx import helper as h

        constants = [h.make_tensor("one", 1, [], [1.0 if kind == "Sqrt" else 0.0])]
        nodes = [
            *planes(),
            h.make_node("Sub", ["planes", "one"], ["less"]),
            h.make_node(kind, ["less"], ["logits"]),
        ]
        path = write_graph(nodes, ("N", 3, *SIZE), THREE, constants=constants)
        with pytest.raises(NotFinite, match="the network overflowed"):
            self.ask(path)


class StreamsContract:
    """What a runtime with streams must do besides."""

    @pytest.mark.parametrize("head", ["logits", "labels"])
    def test_streams_answer_as_one_does(self, tiny_model, blocks, head):
        frames = [blocks((70 + seed, 90), seed) for seed in range(8)]
        path = tiny_model(head=head)
        with self.predictor(path) as predictor:
            expected = [predictor.predict(frame).labels for frame in frames]
        with self.predictor(path, streams=2) as predictor:
            assert predictor.streams == 2
            for wanted, prediction in zip(expected, predictor.stream(frames), strict=True):
                np.testing.assert_array_equal(prediction.labels, wanted)


def planes():
    """The nodes from the image to `planes`, float, channels first."""
    from onnx import helper as h

    return [
        h.make_node("Cast", ["image"], ["pixels"], to=1),
        h.make_node("Transpose", ["pixels"], ["planes"], perm=(0, 3, 1, 2)),
    ]
