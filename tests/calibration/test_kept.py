"""A kept calibration is used again only as it was written: bad ranges give a bad file, silently."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from icnet_deploy.calibration.calibrate import Calibration, load_calibration, save_calibration
from icnet_deploy.calibration.histogram import TensorStatistics
from icnet_deploy.calibration.selection import CalibrationSet
from icnet_deploy.errors import InputError

HASHES = ("a" * 64, "b" * 64)


@pytest.fixture
def kept(tmp_path):
    """A calibration of two tensors on two images, its file, and its JSON."""
    random = np.random.default_rng(0)
    found = {}
    for name, scale in (("x", 1.0), ("y", 0.0)):
        found[name] = TensorStatistics(3)
        for _ in HASHES:
            found[name].add(scale * random.normal(size=(1, 3, 8, 8)).astype(np.float32))
    made = Calibration("c" * 64, HASHES, {"x": np.array([0.5, 1.0, 0.25])}, found)
    path = tmp_path / "m.calibration.json"
    save_calibration(path, made)
    return made, path, json.loads(path.read_text())


def test_it_is_read_as_it_was_written(kept):
    made, path, _ = kept
    again = Calibration.read(path)
    assert (again.parent_sha256, again.images) == (made.parent_sha256, made.images)
    for name, range_ in made.ranges().tensors.items():
        found = again.ranges().tensors[name]
        assert (found.limit, found.low, found.high) == (range_.limit, range_.low, range_.high)
        np.testing.assert_allclose(found.means, range_.means, rtol=1e-6)


def of_x(value):
    return value["tensors"]["x"]


CHANGES = {
    "minimum NaN": lambda v: of_x(v).update(minimum=float("nan")),
    "maximum infinite": lambda v: of_x(v).update(maximum=float("inf")),
    "low above high": lambda v: of_x(v).update(minimum=5.0, maximum=-5.0),
    "wider than its histogram": lambda v: of_x(v).update(minimum=-1e6),
    "a text": lambda v: of_x(v).update(maximum="1.0"),
    "images 0": lambda v: of_x(v).update(images=0),
    "images of another set": lambda v: of_x(v).update(images=4),
    "images true": lambda v: of_x(v).update(images=True),
    "negative count": lambda v: of_x(v)["histogram"]["counts"].__setitem__(0, -5),
    "no count": lambda v: of_x(v)["histogram"].update(counts=[]),
    "counts of 0": lambda v: of_x(v)["histogram"].update(counts=[0, 0]),
    "count 0.5": lambda v: of_x(v)["histogram"]["counts"].__setitem__(0, 0.5),
    "another count": lambda v: of_x(v)["histogram"]["counts"].__setitem__(0, 10**6 + 1),
    "counts past the end": lambda v: of_x(v)["histogram"].update(first=8190),
    "first negative": lambda v: of_x(v)["histogram"].update(first=-1),
    "limit 0": lambda v: of_x(v)["histogram"].update(limit=0.0),
    "limit negative": lambda v: of_x(v)["histogram"].update(limit=-8.0),
    "limit no power of two": lambda v: of_x(v)["histogram"].update(limit=9.5),
    "other bins": lambda v: of_x(v)["histogram"].update(bins=2048),
    "a mean NaN": lambda v: of_x(v)["channel_means"].__setitem__(0, float("nan")),
    "a mean above the highest": lambda v: of_x(v)["channel_means"].__setitem__(0, 99.0),
    "a channel less": lambda v: of_x(v)["channel_means"].pop(),
    "highest negative": lambda v: of_x(v)["channel_highest"].__setitem__(0, -1.0),
    "highest of another": lambda v: of_x(v).update(channel_highest=[99.0, 99.0, 99.0]),
    "factor 0": lambda v: v["factors"]["x"].__setitem__(0, 0),
    "factor negative": lambda v: v["factors"]["x"].__setitem__(0, -0.5),
    "factor NaN": lambda v: v["factors"]["x"].__setitem__(0, float("nan")),
    "factor a text": lambda v: v["factors"].update(x="123"),
    "no tensor": lambda v: v.update(tensors={}),
    "no image": lambda v: v.update(images=[]),
    "an image twice": lambda v: v.update(images=["a" * 64] * 2),
    "images a text": lambda v: v.update(images="ab"),
    "no parent": lambda v: v.update(parent_sha256=None),
    "another kind": lambda v: v.update(kind="verified"),
    "another schema": lambda v: v.update(schema=True),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("of", ["this version", "version 0.1"])
def test_what_is_not_as_it_was_written_is_not_used(kept, name, of):
    _, path, value = kept
    if of == "version 0.1":  # it wrote no digest
        del value["digest"], value["stamped"]
    path.write_text(json.dumps(value))
    assert Calibration.read(path).images == HASHES
    before = copy.deepcopy(value)
    CHANGES[name](value)
    assert repr(value) != repr(before)
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"m\.calibration\.json"):
        Calibration.read(path)
    images = CalibrationSet((), HASHES, (8, 8))
    assert load_calibration(path, onnx.ModelProto(), "c" * 64, images) is None


def test_one_that_lacks_a_tensor_is_read_and_made_again(calibration, shipped, tmp_path):
    """An earlier release knew fewer operators."""
    model, path, parent = onnx.load(shipped), tmp_path / "m.calibration.json", "c" * 64
    whole = replace(calibration, parent_sha256=parent)
    save_calibration(path, whole)
    assert load_calibration(path, model, parent) is not None
    last = list(whole.statistics)[-1]
    fewer = {name: one for name, one in whole.statistics.items() if name != last}
    save_calibration(path, replace(whole, statistics=fewer))
    assert Calibration.read(path).statistics.keys() == fewer.keys()
    assert load_calibration(path, model, parent) is None


def test_a_change_that_contradicts_nothing_is_found_by_its_digest(kept):
    _, path, value = kept
    value["tensors"]["x"]["channel_means"][0] /= 2
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match="SHA-256"):
        Calibration.read(path)


def test_one_that_scales_what_may_not_be_scaled_is_made_again(calibration, shipped, tmp_path):
    """An earlier release took other channels for what only weights make and read."""
    model, path, parent = onnx.load(shipped), tmp_path / "m.calibration.json", "c" * 64
    factors = {**calibration.factors, "image": np.array([0.5, 1.0, 0.25])}
    save_calibration(path, replace(calibration, parent_sha256=parent, factors=factors))
    assert load_calibration(path, model, parent) is None
