"""`Predictor.stream` over the fake: order, what is worked on ahead, errors, and its threads."""

from __future__ import annotations

import threading
from itertools import count

import numpy as np
import pytest
from fake_backend import FakeBackend

from icnet_deploy.errors import BackendError, ImageError
from icnet_deploy.labels import CITYSCAPES
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime import Predictor
from icnet_deploy.runtime.answer import Prediction

SIZE = (64, 96)


def fake_predictor():
    backend = FakeBackend.of_colours(CITYSCAPES, SIZE)
    return Predictor(backend, ArtefactMetadata(CITYSCAPES, SIZE, "logits", "fp32")), backend


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("icnet-ahead")]


class TestStream:
    def test_it_keeps_the_order(self, blocks):
        predictor, _ = fake_predictor()
        frames = [blocks((40 + seed, 60), seed) for seed in range(12)]
        predictions = list(predictor.stream(iter(frames)))
        for frame, prediction in zip(frames, predictions, strict=True):
            np.testing.assert_array_equal(prediction.image, frame)
            np.testing.assert_array_equal(prediction.labels, predictor.predict(frame).labels)
        assert not workers()

    def test_it_draws_two_frames_ahead_and_no_more(self, blocks):
        predictor, _ = fake_predictor()
        drawn, waited = [], threading.Event()

        def frames():
            for index in count():
                drawn.append(index)
                if len(drawn) == 3:
                    waited.set()
                yield blocks(SIZE, index)

        stream = predictor.stream(frames())
        next(stream)
        assert waited.wait(5)  # frame 0 is with the caller; 1 and 2 were prepared meanwhile
        threading.Event().wait(0.05)
        assert len(drawn) == 3
        stream.close()
        assert not workers()

    def test_a_source_that_has_stopped_does_not_hold_the_caller(self, blocks):
        predictor, backend = fake_predictor()
        moving, asked = threading.Event(), threading.Event()

        def frames():
            yield blocks(SIZE)
            asked.set()
            moving.wait(20)
            yield blocks(SIZE)

        stream = predictor.stream(frames())
        next(stream)
        assert asked.wait(5)
        stream.close()
        [waiting] = workers()
        moving.set()
        waiting.join(5)
        assert not workers()
        assert backend.runs == 1  # the frame that came too late is not labelled

    def test_the_network_works_on_while_the_caller_is_busy(self, blocks):
        predictor, backend = fake_predictor()
        ran = threading.Event()
        run = backend.run

        def told(feed):
            if backend.runs == 2:
                ran.set()
            return run(feed)

        backend.run = told
        stream = predictor.stream(blocks(SIZE, seed) for seed in range(3))
        next(stream)
        assert ran.wait(5)  # frame 2's turn came while frame 0 was with the caller
        assert len(list(stream)) == 2

    @pytest.mark.parametrize("streams", [1, 2, 3])
    def test_as_many_frames_are_in_the_network_as_there_are_streams(self, blocks, streams):
        backend = FakeBackend.of_colours(CITYSCAPES, SIZE)
        metadata = ArtefactMetadata(CITYSCAPES, SIZE, "logits", "fp32")
        predictor = Predictor(backend, metadata, streams=streams)
        inside, most, run = 0, 0, backend.run
        lock, together = threading.Lock(), threading.Barrier(streams)

        def counted(feed):
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            together.wait(5)  # breaks, and raises, if fewer get here at once
            with lock:
                inside -= 1
            return run(feed)

        backend.run = counted
        frames = [blocks(SIZE, seed) for seed in range(6)]
        predictions = list(predictor.stream(frames))
        assert most == streams
        for frame, prediction in zip(frames, predictions, strict=True):
            np.testing.assert_array_equal(prediction.image, frame)

    def test_it_prepares_in_another_thread(self, blocks):
        predictor, _ = fake_predictor()
        names = []

        def frames():
            names.append(threading.current_thread().name)
            yield blocks(SIZE)

        list(predictor.stream(frames()))
        assert names == ["icnet-ahead"]

    def test_what_the_source_raises_arrives_after_the_frames_before(self, blocks):
        predictor, _ = fake_predictor()

        def frames():
            yield blocks(SIZE)
            yield blocks(SIZE)
            raise RuntimeError("the camera is gone")

        stream = predictor.stream(frames())
        assert isinstance(next(stream), Prediction)
        assert isinstance(next(stream), Prediction)
        with pytest.raises(RuntimeError, match="camera"):
            next(stream)
        assert not workers()

    def test_a_frame_that_is_no_image_is_an_error(self, blocks):
        predictor, _ = fake_predictor()
        stream = predictor.stream([blocks(SIZE), np.zeros((4, 4))])
        next(stream)
        with pytest.raises(ImageError):
            next(stream)
        assert not workers()

    def test_a_failing_run_ends_the_worker(self, blocks):
        predictor, backend = fake_predictor()
        backend.fail_with = "out of memory"
        with pytest.raises(BackendError, match="out of memory"):
            list(predictor.stream(blocks(SIZE) for _ in count()))
        assert not workers()

    def test_leaving_early_ends_the_worker(self, blocks):
        predictor, _ = fake_predictor()
        for _ in predictor.stream(blocks(SIZE) for _ in count()):
            break
        assert not workers()

    def test_no_thread_before_the_first_frame_is_asked_for(self, blocks):
        predictor, _ = fake_predictor()
        stream = predictor.stream([blocks(SIZE)])
        assert not workers()
        assert len(list(stream)) == 1
