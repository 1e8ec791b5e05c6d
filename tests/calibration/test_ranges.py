"""Histograms and the ranges that are chosen of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from icnet_deploy.calibration.histogram import BINS, TensorStatistics
from icnet_deploy.calibration.ranges import METHODS, grid, rounded, set_ranges
from icnet_deploy.errors import BackendError, InputError


def statistics(*arrays):
    found = TensorStatistics(arrays[0].shape[1])
    for array in arrays:
        found.add(array.astype(np.float32))
    return found


@pytest.fixture(scope="module")
def bulk():
    """What a ReLU leaves of a normal distribution, and three values far out."""
    values = np.random.default_rng(0).normal(0, 1, (1, 4, 200, 200)).clip(0)
    values[0, 0, 0, 0] = 20.0
    return values


def test_a_histogram_that_grew_is_the_histogram_of_all_values_at_once():
    random = np.random.default_rng(0)
    arrays = [random.normal(0, scale, (1, 3, 20, 30)).astype(np.float32) for scale in (0.1, 1, 30)]
    grown = statistics(*arrays)
    whole = np.concatenate([a.ravel() for a in arrays])
    counts, _ = np.histogram(whole, BINS, (-grown.limit, grown.limit))
    assert np.abs(np.cumsum(counts) - np.cumsum(grown.counts)).max() <= 2  # float32 at an edge
    assert grown.counts.sum() == whole.size
    assert grown.images == 3
    assert grown.limit / 2 <= np.abs(whole).max() < grown.limit
    assert (grown.minimum, grown.maximum) == (whole.min(), whole.max())
    expected = np.mean([a.mean((0, 2, 3), dtype=np.float64) for a in arrays], axis=0)
    np.testing.assert_allclose(grown.means(), expected, atol=1e-6)


def test_the_json_form_reads_back():
    found = statistics(np.random.default_rng(0).normal(0, 3, (1, 5, 9, 9)))
    again = TensorStatistics.from_dict(json.loads(json.dumps(found.to_dict())), "x")
    assert (again.counts == found.counts).all()
    assert (again.limit, again.minimum, again.images) == (found.limit, found.minimum, 1)
    np.testing.assert_allclose(again.means(), found.means(), rtol=1e-6)


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(BackendError, match="not finite"):
        statistics(np.full((1, 1, 2, 2), np.inf))


@pytest.mark.parametrize("method", METHODS)
def test_a_method_covers_outliers_only_if_it_is_minmax(method, bulk):
    chosen = set_ranges({"x": statistics(bulk)}, method, {}).tensors["x"]
    assert chosen.low == 0
    if method == "minmax":
        assert chosen.high == chosen.limit == 20
    else:
        assert 2 < chosen.high < 19
        assert 2 < chosen.limit < 19


def test_mse_rounds_better_than_any_other_method(bulk):
    def error(method):
        chosen = set_ranges({"x": statistics(bulk)}, method, {}).tensors["x"]
        return np.square(rounded(bulk, chosen.low, chosen.high, 255) - bulk).mean()

    errors = {method: error(method) for method in METHODS}
    assert min(errors, key=errors.get) == "mse"
    assert errors["mse"] < 0.95 * errors["minmax"]


def test_entropy_is_not_minmax_on_an_even_distribution_only():
    """All of an even distribution is worth its steps; a Laplacian's tails are not."""
    random = np.random.default_rng(0)
    even = set_ranges({"x": statistics(random.uniform(-1, 1, (1, 1, 300, 300)))}, "entropy", {})
    peaked = set_ranges({"x": statistics(random.laplace(0, 1, (1, 1, 300, 300)))}, "entropy", {})
    assert even.tensors["x"].limit > 0.97
    assert peaked.tensors["x"].limit < 10


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_of_zeros_has_a_grid(method):
    chosen = set_ranges({"x": statistics(np.zeros((1, 2, 3, 3)))}, method, {}).tensors["x"]
    assert chosen.limit > 0
    assert chosen.high > chosen.low


def test_zero_lies_on_every_grid():
    for low, high in ((-1.0, 3.0), (0.0, 5.0), (-4.0, 0.0)):
        scale, zero = grid(low, high, 255)
        assert 0 <= zero <= 255
        assert rounded(np.array([0.0, scale]), low, high, 255)[0] == 0


def test_an_unknown_method_is_refused(bulk):
    with pytest.raises(InputError, match="unknown method 'best'"):
        set_ranges({"x": statistics(bulk)}, "best", {})


def test_values_count_as_much_as_an_activation_leaves_of_them():
    values = np.random.default_rng(0).normal(0, 1, (1, 1, 300, 300))
    alike, less = statistics(values), statistics(values)
    less.below_zero = 1 / 16
    for method in METHODS:
        all_alike, left = (set_ranges({"x": s}, method, {}).tensors["x"] for s in (alike, less))
        if method != "mse":
            assert (all_alike.low, all_alike.high) == (left.low, left.high)
            continue

        def error(chosen):
            behind = [np.where(v < 0, v / 4, v) for v in (values, rounded(values, *chosen, 255))]
            return np.square(behind[0] - behind[1]).mean()

        assert 0.5 < left.low / all_alike.low < 0.9
        ends = [(one.low, one.high) for one in (left, all_alike)]
        assert error(ends[0]) < 0.95 * error(ends[1])
