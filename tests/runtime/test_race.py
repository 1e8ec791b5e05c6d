"""The race between candidates: every model is opened, timed and closed, on one picture."""

from __future__ import annotations

import numpy as np
import pytest
from fake_backend import FakeBackend

from icnet_deploy.errors import ModelError
from icnet_deploy.labels import CITYSCAPES
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime import Predictor
from icnet_deploy.runtime.auto import race
from icnet_deploy.runtime.auto.candidates import Candidate


def fake(candidate):
    """A predictor without a model."""
    metadata = ArtefactMetadata(CITYSCAPES, (64, 96), "logits", "fp32")
    return Predictor(FakeBackend.of_colours(CITYSCAPES, (64, 96)), metadata)


@pytest.mark.parametrize("streams", [1, 2])
def test_a_race_closes_every_model_and_really_times_them(streams):
    opened = []

    def open_one(candidate):
        if candidate.runtime == "3":
            raise ModelError("cannot load it")
        opened.append(fake(candidate))
        assert sum(not one._backend.closed for one in opened if one._backend) <= 3
        return opened[-1]

    names = [Candidate("x.onnx", "0", "fp32", "logits", str(i), "cpu") for i in range(5)]
    ranked, failed = race.race(names, open_one, streams)
    assert len(opened) == len(ranked) == 4
    assert failed == ["x.onnx on 3, cpu: cannot load it"]
    assert all(one._backend is None for one in opened)
    assert all(0 < one.median_ms < 10_000 and one.runs for one in ranked)


def test_the_picture_is_the_same_and_has_borders():
    image = race.street_like((64, 96))
    assert image.dtype == np.uint8
    assert image.shape == (64, 96, 3)
    race.street_like.cache_clear()
    assert (image == race.street_like((64, 96))).all()
    assert image.std() > 20
