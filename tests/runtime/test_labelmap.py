"""The label map without the dense tensor is the dense way's, and PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icnet_deploy.runtime import labelmap
from icnet_deploy.runtime.labelmap import label_map, label_map_dense

side = st.integers(1, 9)
pixels = st.integers(1, 40)


def logits_of(seed, classes, height, width, kind):
    """Random: most cells mixed. Smooth: few. Coarse: whole numbers, so that ties abound."""
    rng = np.random.default_rng(seed)
    if kind == "coarse":
        return rng.integers(0, 3, (classes, height, width)).astype(np.float32)
    if kind == "random":
        return rng.standard_normal((classes, height, width)).astype(np.float32)
    y, x = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)
    a, b, c = rng.standard_normal((3, classes, 1, 1))
    return (a * y + b * x + c * np.sin(4 * x)).astype(np.float32)


def interpolate(logits, size):
    """Float64, straight from the definition: the judge of both ways."""
    _, height, width = logits.shape

    def line(grid, count):
        at = np.arange(count) * (grid - 1) / max(count - 1, 1)
        near = np.minimum(at.astype(int), max(grid - 2, 0))
        return near, np.minimum(near + 1, grid - 1), at - near

    y0, y1, v = line(height, size[0])
    x0, x1, u = line(width, size[1])
    values, v = logits.astype(np.float64), v[:, None]
    rows = values[:, y0] * (1 - v) + values[:, y1] * v
    return rows[:, :, x0] * (1 - u) + rows[:, :, x1] * u


def assert_right(labels, logits, size, margin=1e-4):
    dense = interpolate(logits, size)
    assert labels.dtype == np.uint8
    assert labels.shape == size
    chosen = np.take_along_axis(dense, labels[None].astype(int), axis=0)[0]
    assert (dense.max(axis=0) - chosen).max() < margin


grids = {
    "seed": st.integers(0, 2**32 - 1),
    "classes": st.integers(1, 6),
    "grid": st.tuples(side, side),
    "size": st.tuples(pixels, pixels),
    "kind": st.sampled_from(["random", "smooth", "coarse"]),
}


@given(**grids)
@settings(max_examples=200, deadline=None)
def test_it_is_the_class_of_largest_interpolated_logit(seed, classes, grid, size, kind):
    logits = logits_of(seed, classes, *grid, kind)
    assert_right(label_map(logits, size), logits, size)
    assert_right(label_map_dense(logits, size), logits, size)


@given(**grids)
@settings(max_examples=200, deadline=None)
def test_cells_give_what_the_dense_way_gives(seed, classes, grid, size, kind):
    """With the switch to the dense way off, so that mixed cells are really worked out."""
    logits = logits_of(seed, classes, *grid, kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labelmap, "_MIXED_SHARE", 2.0)
        patch.setattr(labelmap, "_CELL_PIXELS", 10**9)
        patch.setattr(labelmap, "_CELLS", 3)
        cells = label_map(logits, size)
    dense = label_map_dense(logits, size)
    values = np.sort(interpolate(logits, size), axis=0)
    tie = values[-1] - values[-2] < 1e-6 if classes > 1 else np.zeros(size, bool)
    assert not ((cells != dense) & ~tie).any()


@pytest.mark.parametrize("kind", ["random", "smooth"])
@pytest.mark.parametrize(
    ("grid", "size"),
    [((32, 64), (128, 256)), ((33, 65), (129, 257)), ((33, 65), (20, 31)), ((1, 9), (7, 50))],
)
def test_it_is_pytorchs_interpolate_and_argmax(kind, grid, size):
    torch = pytest.importorskip("torch")
    logits = logits_of(1, 19, *grid, kind)
    dense = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], size=size, mode="bilinear", align_corners=True
    )[0].numpy()
    labels = label_map(logits, size)
    top = np.sort(dense, axis=0)
    differs = labels != dense.argmax(axis=0)
    assert differs.mean() < 1e-3
    assert (top[-1] - top[-2])[differs].max(initial=0) < 1e-4


def test_ties_go_to_the_lowest_class():
    logits = np.zeros((5, 4, 4), np.float32)
    logits[[2, 4]] = 1
    assert (label_map(logits, (13, 17)) == 2).all()
    assert (label_map_dense(logits, (13, 17)) == 2).all()
    logits[1, :, 2:] = 1  # mixed cells between: class 1 ties only where its weight is whole
    labels = label_map(logits, (4, 7))
    np.testing.assert_array_equal(labels, [[2, 2, 2, 2, 1, 1, 1]] * 4)


def test_at_the_grids_own_size_it_is_the_argmax():
    logits = logits_of(3, 7, 20, 30, "random")
    np.testing.assert_array_equal(label_map(logits, (20, 30)), logits.argmax(axis=0))


def test_a_batch_and_half_precision():
    batch = np.stack([logits_of(seed, 5, 8, 12, "smooth") for seed in (0, 1)]).astype(np.float16)
    labels = label_map(batch, (29, 45))
    assert labels.shape == (2, 29, 45)
    np.testing.assert_array_equal(labels[1], label_map(batch[1].astype(np.float32), (29, 45)))
    assert (labels[0] != labels[1]).any()


def test_only_mixed_cells_are_worked_out(monkeypatch):
    """One class but in one corner: the dense way is not taken, and one cell is filled."""
    filled = []
    fill = labelmap._fill_cells

    def counting(labels, values, rows, columns, cell_row, cell_column):
        filled.append(len(cell_row))
        fill(labels, values, rows, columns, cell_row, cell_column)

    monkeypatch.setattr(labelmap, "_fill_cells", counting)
    monkeypatch.delattr(labelmap, "_dense")
    logits = np.zeros((2, 10, 10), np.float32)
    logits[1, 0, 0] = 1
    labels = label_map(logits, (37, 37))
    assert filled == [1]
    assert 0 < (labels == 1).sum() < 25


@pytest.mark.parametrize("shape", [(3, 4), (0, 4, 4), (256, 4, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="expected logits"):
        label_map(np.zeros(shape, np.float32), (4, 4))
