"""Engines on the fake TensorRT: what comes out is what ONNX Runtime gives on the same graph."""

from __future__ import annotations

import gc
import threading
import warnings

import numpy as np
import pytest
from backend_contract import BackendContract
from host_cuda import HostCuda, HostFault

from icnet_deploy.errors import BackendError, ImageError
from icnet_deploy.images import resize_image, resize_labels
from icnet_deploy.runtime import Predictor
from icnet_deploy.runtime.cuda.base import OutOfMemory, read_frame
from icnet_deploy.runtime.labelmap import label_map_dense
from icnet_deploy.runtime.loading import load_engine

SIZE = (64, 96)
ONE = ((1, *SIZE, 3),) * 3


def expected(onnx, images):
    """What the CPU says: from the head's values the dense way, which the kernel equals."""
    with Predictor.from_onnx(onnx, "onnxruntime", "cpu", threads=1) as predictor:
        found = predictor.predict_batch(images)
        if predictor.metadata.head == "labels" or predictor.metadata.fit == "letterbox":
            return [prediction.labels for prediction in found]
        size = predictor.size
        pixels = [resize_image(image, size or image.shape[:2])[None] for image in images]
        logits = [predictor.backend.run({"image": one})["logits"][0] for one in pixels]
        sizes = [image.shape[:2] for image in images]
        rule = predictor.metadata.upsampling
        if rule == "none":
            own = [label_map_dense(one, one.shape[1:], upsampling=rule) for one in logits]
            return [resize_labels(one, size) for one, size in zip(own, sizes, strict=True)]
        return [
            label_map_dense(one, size, upsampling=rule)
            for one, size in zip(logits, sizes, strict=True)
        ]


HALF_PIXEL = {"describe": {"upsampling": "half-pixel"}}
NOT_UPSAMPLED = {"describe": {"upsampling": "none"}, "stride": 1}
LETTERBOX = {"describe": {"fit": "letterbox"}}
HEADS = [
    {"head": "logits"},
    {"head": "labels"},
    {"head": "logits", "half": "out"},
    {"head": "logits", "half": "inside"},
    HALF_PIXEL,
    NOT_UPSAMPLED,
    LETTERBOX,
]


@pytest.mark.parametrize("options", HEADS, ids=str)
def test_it_labels_as_onnx_runtime_does(desk, blocks, options):
    """Alone and in batches larger than the engine's, at the engine's size and at others."""
    onnx = desk.onnx(**options)
    shapes = ((1, *SIZE, 3), (2, *SIZE, 3), (3, *SIZE, 3))
    sizes = [SIZE, (33, 50), (201, 97), SIZE, (128, 192)]
    images = [blocks(size, seed) for seed, size in enumerate(sizes)]
    wanted = expected(onnx, images)
    with desk.open(desk.engine(onnx, shapes)) as predictor:
        assert (predictor.runtime, predictor.device) == ("tensorrt", "cuda")
        together = predictor.predict_batch(images)
        alone = [predictor.predict(image) for image in images]
        streamed = list(predictor.stream(iter(images)))
    for predictions in (together, alone, streamed):
        for image, labels, prediction in zip(images, wanted, predictions, strict=True):
            np.testing.assert_array_equal(prediction.labels, labels)
            assert prediction.overlay().shape == image.shape
    assert desk.cuda.live == 0


def test_what_comes_back_is_the_label_map_and_not_the_logits(desk, blocks, batched):
    with desk.open(batched()) as predictor:
        predictor.predict(blocks((201, 97)))
    # Besides, four bytes that say whether the logits are finite.
    assert desk.cuda.moved == {"in": 64 * 96 * 3 + 4, "out": 201 * 97 + 4, "across": 0}


def test_an_engine_of_trtexec_needs_no_sidecar(desk, blocks, batched):
    for head in ("logits", "labels"):
        image = blocks((100, 130), 3)
        with desk.open(batched(sidecar=False, head=head)) as predictor:
            assert predictor.metadata.head == head
            assert predictor.metadata.label_set.name == "cityscapes"
            assert predictor.size == SIZE
            alone = predictor.predict(image).labels
        with desk.open(batched(head=head)) as predictor:
            np.testing.assert_array_equal(predictor.predict(image).labels, alone)


class TestProfiles:
    def test_the_one_that_fits_is_taken(self, desk, blocks):
        onnx = desk.onnx(size=None)
        small, large = ((1, 64, 64, 3), (2, 64, 96, 3), (4, 96, 96, 3)), ((1, 100, 100, 3),) * 3
        images = [blocks(size, i) for i, size in enumerate([(64, 96), (100, 100), (72, 64)])]
        wanted = expected(onnx, images)
        with desk.open(desk.engine(onnx, small, large)) as predictor:
            assert predictor.size is None
            for image, labels in zip(images, wanted, strict=True):
                np.testing.assert_array_equal(predictor.predict(image).labels, labels)
            np.testing.assert_array_equal(predictor.predict(images[0]).labels, wanted[0])

    def test_a_size_that_none_takes_names_what_they_take(self, desk, blocks):
        engine = desk.engine(desk.onnx(size=None), ((1, 64, 64, 3), (1, 64, 96, 3), (2, 96, 96, 3)))
        with desk.open(engine) as predictor:
            with pytest.raises(
                BackendError, match=r"1 x 64 x 64 x 3 to 2 x 96 x 96 x 3, got .*120"
            ):
                predictor.predict(blocks((120, 96)))
            predictor.predict(blocks((96, 96)))

    def test_a_fixed_batch_of_one_runs_one_by_one(self, desk, blocks):
        onnx = desk.onnx(batch=1)
        images = [blocks(SIZE, seed) for seed in range(3)]
        with desk.open(desk.engine(onnx)) as predictor:
            found = [prediction.labels for prediction in predictor.predict_batch(images)]
        np.testing.assert_array_equal(found, expected(onnx, images))


class TestGraphs:
    def test_a_shape_that_comes_again_runs_as_a_graph(self, desk, blocks, batched):
        images = [blocks(SIZE, seed) for seed in range(4)]
        engine = batched()
        wanted = expected(engine.with_suffix(".onnx"), images)
        with desk.open(engine) as predictor:
            found = [predictor.predict(image).labels for image in images]
            assert desk.cuda.graph_launches == 3  # all but the first, which TensorRT sets up
        np.testing.assert_array_equal(found, wanted)

    def test_another_shape_drops_it(self, desk, blocks, batched):
        images = [blocks(SIZE, seed) for seed in range(3)]
        engine = batched()
        wanted = expected(engine.with_suffix(".onnx"), images)
        with desk.open(engine) as predictor:
            for count in (1, 1, 3, 3, 1, 2, 1, 1):
                found = predictor.predict_batch(images[:count])
                for labels, prediction in zip(wanted, found, strict=False):
                    np.testing.assert_array_equal(prediction.labels, labels)
        assert desk.cuda.graph_launches == 3
        assert desk.cuda.live == 0

    def test_where_capture_fails_it_says_so_once_and_goes_on(self, desk, blocks, batched):
        desk.cuda.fail_capture = "operation not permitted when stream is capturing"
        image = blocks(SIZE)
        engine = batched()
        (wanted,) = expected(engine.with_suffix(".onnx"), [image])
        with desk.open(engine) as predictor, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(4):
                np.testing.assert_array_equal(predictor.predict(image).labels, wanted)
        assert len(caught) == 1
        assert "without a CUDA graph" in str(caught[0].message)
        assert "not permitted" in str(caught[0].message)
        assert desk.cuda.graph_launches == 0


class TestOnTheGpu:
    @pytest.mark.parametrize("options", [{}, {"head": "labels"}, HALF_PIXEL, NOT_UPSAMPLED])
    def test_a_frame_there_never_leaves_it(self, desk, blocks, batched, options):
        image = blocks(SIZE, 5)
        engine = batched(**options)
        (wanted,) = expected(engine.with_suffix(".onnx"), [image])
        with desk.open(engine) as predictor:
            frame = desk.frame(image)
            prediction = predictor.predict(frame, on_device=True)
            moved = dict(desk.cuda.moved)
            # `in` is the test's own, but for the four bytes of a flag, which comes back.
            assert (moved["in"], moved["out"]) == (image.nbytes + 4, 4)
            labels = prediction.labels
            assert labels.__cuda_array_interface__["shape"] == SIZE
            assert prediction.image is frame
            np.testing.assert_array_equal(labels.to_host(), wanted)
            predictor.predict(blocks(SIZE, 6), on_device=True)
            np.testing.assert_array_equal(labels.to_host(), wanted)
            np.testing.assert_array_equal(predictor.predict(frame).labels, wanted)
            with pytest.raises(ImageError, match="on the GPU"):
                prediction.overlay()
        np.testing.assert_array_equal(labels.to_host(), wanted)  # outlives the predictor
        labels.free()
        labels.free()
        with pytest.raises(BackendError, match="freed"):
            labels.to_host()

    def test_it_waits_for_the_frames_stream(self, desk, blocks, batched):
        """Version 3 names it; before it, the default stream is meant; None: it is there."""
        image = blocks(SIZE, 5)
        engine = batched()
        (wanted,) = expected(engine.with_suffix(".onnx"), [image])
        with desk.open(engine) as predictor:
            np.testing.assert_array_equal(predictor.predict(desk.frame(image)).labels, wanted)
            assert desk.cuda.waited == []
            old = desk.frame(image, version=2)
            old.stream.run()
            predictor.predict(old)
            assert desk.cuda.waited == [1]
            early = desk.frame(image, stream=None)
            assert (predictor.predict(early).labels != wanted).any()  # the fake does not forgive

    def test_batches_mix_both_kinds(self, desk, blocks, batched):
        images = [blocks(SIZE, seed) for seed in range(3)]
        engine = batched()
        wanted = expected(engine.with_suffix(".onnx"), images)
        with desk.open(engine) as predictor:
            frames = [images[0], desk.frame(images[1]), images[2]]
            found = [prediction.labels for prediction in predictor.predict_batch(frames)]
        np.testing.assert_array_equal(found, wanted)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"typestr": "<f4"}, "got float32"),
            ({"shape": (3, 64, 96)}, r"got uint8 of shape \(3, 64, 96\)"),
            ({"strides": (96 * 4, 4, 1)}, "contiguous"),
            ({"shape": (32, 96, 3)}, "32 x 96, but the engine takes 64 x 96"),
            ({"stream": 0}, "stream 0"),
        ],
    )
    def test_other_arrays_are_refused(self, desk, blocks, batched, changes, message):
        with desk.open(batched()) as predictor:
            frame = desk.frame(blocks(SIZE), **changes)
            with pytest.raises(ImageError, match=message):
                predictor.predict(frame)

    @pytest.mark.parametrize("options", [{"head": "labels"}, NOT_UPSAMPLED])
    def test_a_label_map_of_the_graphs_size_does_not_stay(self, desk, blocks, batched, options):
        with (
            desk.open(batched(**options)) as predictor,
            pytest.raises(ImageError, match="at 64 x 96, but the image is 30 x 40"),
        ):
            predictor.predict(blocks((30, 40)), on_device=True)

    def test_a_letterbox_is_cut_on_the_host_alone(self, desk, blocks, batched):
        engine = batched(**LETTERBOX)
        with desk.open(engine) as predictor:
            labels = predictor.predict(blocks(SIZE), on_device=True).labels.to_host()
            np.testing.assert_array_equal(labels, predictor.predict(blocks(SIZE)).labels)
            with pytest.raises(ImageError, match="a border around the image"):
                predictor.predict(blocks((30, 40)), on_device=True)

    @pytest.mark.parametrize("options", [{}, HALF_PIXEL, NOT_UPSAMPLED, LETTERBOX])
    def test_confidence_is_of_logits_that_come_to_the_host(self, desk, blocks, batched, options):
        images = [blocks((30, 40), 1), blocks(SIZE, 2), blocks(SIZE, 3)]
        engine = batched(**options)
        with Predictor.from_onnx(engine.with_suffix(".onnx"), "onnxruntime", "cpu") as peer:
            wanted = peer.predict_batch(images, confidence=True)
        with desk.open(engine) as predictor:
            later = predictor.predict_batch(images)
            now = predictor.predict_batch(images, confidence=True)
            for first, second, peers in zip(later, now, wanted, strict=True):
                np.testing.assert_array_equal(second.labels, peers.labels)
                np.testing.assert_array_equal(second.confidence, peers.confidence)
                np.testing.assert_array_equal(first.confidence, peers.confidence)
            frame = desk.frame(images[1])
            with pytest.raises(
                ImageError, match=r"on the GPU, but the confidence .* as a numpy array"
            ):
                predictor.predict(frame, confidence=True)
            with pytest.raises(ImageError, match="leave out on_device"):
                predictor.predict(images[1], on_device=True, confidence=True)
            with pytest.raises(ImageError, match="image is on the GPU, but the confidence"):
                _ = predictor.predict(frame).confidence
            if not options:
                with pytest.raises(ImageError, match="label map is on the GPU, but the confidence"):
                    _ = predictor.predict(images[1], on_device=True).confidence

    def test_other_runtimes_say_that_they_do_not(self, desk, blocks):
        with Predictor.from_onnx(desk.onnx(), "onnxruntime", "cpu") as predictor:
            with pytest.raises(ImageError, match=r"only a TensorRT engine .* this is onnxruntime"):
                predictor.predict(desk.frame(blocks(SIZE)))
            with pytest.raises(ImageError, match="leave out on_device"):
                predictor.predict(blocks(SIZE), on_device=True)


class TestThreads:
    def test_predictors_share_the_engine_and_nothing_else(self, desk, blocks, batched):
        engine = batched()
        images = [blocks(SIZE, seed) for seed in range(4)]
        wanted = expected(engine.with_suffix(".onnx"), images)
        predictors = [desk.open(engine) for _ in range(3)]
        assert desk.trt.machine.live == {"engines": 1, "contexts": 3}
        wrong = []

        def work(predictor):
            for _ in range(5):
                for image, labels in zip(images, wanted, strict=True):
                    if (predictor.predict(image).labels != labels).any():
                        wrong.append(predictor)

        threads = [threading.Thread(target=work, args=(one,)) for one in predictors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        predictors.pop().close()
        np.testing.assert_array_equal(predictors[0].predict(images[0]).labels, wanted[0])
        for one in predictors:
            one.close()
        gc.collect()
        assert desk.trt.machine.live == {"engines": 0, "contexts": 0}
        assert desk.cuda.live == 0

    def test_threads_take_turns_on_one_predictor(self, desk, blocks, batched):
        engine = batched()
        images = [blocks(SIZE, seed) for seed in range(3)]
        wanted = expected(engine.with_suffix(".onnx"), images)
        wrong = []
        with desk.open(engine) as predictor:

            def work(index):
                found = [predictor.predict(images[index]).labels for _ in range(5)]
                wrong.extend(index for labels in found if (labels != wanted[index]).any())

            threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not wrong


class TestClose:
    def test_everything_is_freed_and_twice_is_fine(self, desk, blocks, batched):
        predictor = desk.open(batched())
        backend = predictor.backend
        predictor.predict_batch([blocks(SIZE, seed) for seed in range(3)])
        predictor.predict_batch([blocks(SIZE, seed) for seed in range(3)])
        assert desk.cuda.live > 5
        predictor.close()
        predictor.close()
        backend.close()
        gc.collect()
        assert desk.cuda.live == 0
        assert desk.trt.machine.live == {"engines": 0, "contexts": 0}
        with pytest.raises(BackendError, match="the predictor is closed"):
            predictor.predict(blocks(SIZE))
        with pytest.raises(BackendError, match="the model was closed"):
            backend.run({"image": blocks(SIZE)[None]})
        with pytest.raises(BackendError, match="the model was closed"):
            backend.label(predictor.metadata, [blocks(SIZE)], [SIZE])
        with pytest.raises(BackendError, match="the model was closed"):
            backend.keep(read_frame(desk.frame(blocks(SIZE))))

    def test_what_fails_half_way_leaves_nothing(self, desk, blocks, batched, monkeypatch):
        engine = batched()
        monkeypatch.setattr(desk.cuda, "event", lambda: (_ for _ in ()).throw(OutOfMemory("full")))
        with pytest.raises(OutOfMemory, match="full"):
            desk.open(engine)
        assert desk.cuda.live == 0


class TestMemory:
    def test_no_room_for_the_buffers(self, desk, blocks, batched):
        desk.cuda.capacity = 64 * 96 * 3
        with desk.open(batched()) as predictor:
            with pytest.raises(OutOfMemory, match=r"the GPU has no .* MiB of memory left"):
                predictor.predict(blocks(SIZE))
            desk.cuda.capacity = 1 << 20
            predictor.predict(blocks(SIZE))
        assert desk.cuda.live == 0

    def test_no_room_for_a_context(self, desk, blocks, batched, monkeypatch):
        monkeypatch.setattr(
            desk.trt.ICudaEngine, "create_execution_context", lambda *args, **kwargs: None
        )
        with pytest.raises(
            OutOfMemory, match=r"cannot make an execution context: it needs .* MiB are free"
        ):
            desk.open(batched())
        assert desk.cuda.live == 0

    def test_buffers_grow_and_are_used_again(self, desk, blocks, batched):
        images = [blocks(SIZE, seed) for seed in range(4)]
        with desk.open(batched()) as predictor:
            predictor.predict_batch(images)
            live, free = desk.cuda.live, desk.cuda.free_memory()
            for count in (1, 4, 2, 1):
                predictor.predict_batch(images[:count])
            # But for a graph, which comes and goes.
            assert (desk.cuda.live, desk.cuda.free_memory()) == (live, free)


def test_a_run_that_tensorrt_refuses_says_what_it_said(desk, blocks, batched, monkeypatch):
    with desk.open(batched()) as predictor:
        predictor.predict(blocks(SIZE))
        logger = predictor.backend._engine.lines

        def refuse(this, *args, **kwargs):
            logger.add("Error Code 1: Cuda Runtime (out of memory)")
            return False

        monkeypatch.setattr(desk.trt.IExecutionContext, "execute_async_v3", refuse)
        desk.cuda.fail_capture = None
        with (
            pytest.warns(RuntimeWarning, match="without a CUDA graph"),
            pytest.raises(BackendError, match=r"failed to run: .*Cuda Runtime \(out of memory\)"),
        ):
            predictor.predict(blocks(SIZE))


class TestRun(BackendContract):
    """The part of the contract that every backend has."""

    @pytest.fixture
    def opened(self, desk, batched):
        path = batched()
        yield load_engine(path, "auto", cuda=desk.cuda, called=path).backend
        assert desk.cuda.live == 0

    def test_it_answers_as_onnx_runtime_does_and_the_answer_stays(self, desk, backend, blocks):
        images = np.stack([blocks(SIZE, seed) for seed in range(3)])
        (onnx,) = desk.folder.glob("*.onnx")
        with Predictor.from_onnx(onnx, "onnxruntime", "cpu", threads=1) as predictor:
            wanted = predictor.backend.run({"image": images})["logits"]
        first = backend.run({"image": images})["logits"]
        np.testing.assert_array_equal(first, wanted)
        backend.run({"image": images[::-1]})
        np.testing.assert_array_equal(first, wanted)

    def test_it_refuses_what_no_profile_takes(self, backend):
        with pytest.raises(BackendError, match="takes images of 1 x 64 x 96 x 3 to 4 x"):
            backend.run({"image": np.zeros((5, 64, 96, 3), np.uint8)})


class TestHost:
    """The CUDA of host memory is as strict as it says, or the tests above say nothing."""

    def test_work_waits_until_it_is_waited_for(self):
        cuda = HostCuda()
        with cuda.current():
            stream, block, pinned = cuda.stream(), cuda.allocate(8), cuda.pinned(8)
            pinned.array[:] = 7
            cuda.copy_in(block.address, pinned.array, stream)
            pinned.array[:] = 9
            cuda.copy_out(pinned.array, block.address, stream)
            assert (pinned.array == 9).all()
            stream.synchronize()
            assert block.address % 256 == 0

    def test_use_after_free_and_past_the_end_are_found(self):
        cuda = HostCuda()
        with cuda.current():
            stream, block, pinned = cuda.stream(), cuda.allocate(8), cuda.pinned(16)
            cuda.copy_in(block.address, pinned.array, stream)
            with pytest.raises(HostFault, match="past the end"):
                stream.synchronize()
            cuda.copy_in(block.address, pinned.array[:8], stream)
            block.free()
            with pytest.raises(HostFault, match="after it was freed"):
                stream.synchronize()
            with pytest.raises(HostFault, match="no memory of the GPU"):
                cuda.copy_in(block.address, np.zeros(8, np.uint8), stream)
        with pytest.raises(HostFault, match=r"outside of `current\(\)`"):
            cuda.allocate(8)
        assert cuda.live == 2

    def test_a_kernel_is_launched_as_it_is_declared(self):
        cuda = HostCuda()
        arguments = [np.uint64(0), *[np.int32(4)] * 3, np.uint64(0), *[np.int32(40)] * 2]
        arguments += [np.uint64(0), np.int32(0)]
        with cuda.current():
            stream = cuda.stream()
            with pytest.raises(HostFault, match="do not cover 40 x 40"):
                cuda.launch("label_map_float", (1, 5), (32, 8), arguments, stream)
            arguments[1] = 4
            with pytest.raises(HostFault, match="is launched with"):
                cuda.launch("label_map_float", (2, 5), (32, 8), arguments, stream)
