"""The label map without the dense tensor is the dense way's, and PyTorch's; compiled or not."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.linalg import _umath_linalg

from icnet_deploy.errors import NotFinite
from icnet_deploy.runtime import labelmap
from icnet_deploy.runtime.labelmap import label_map, label_map_dense

SOURCE = Path(labelmap.__file__).with_name("native") / "labelmap.c"
PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"

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


RULES = ["aligned-corners", "half-pixel"]


def interpolate(logits, size, rule):
    """Float64, straight from the definition: the judge of both ways."""
    _, height, width = logits.shape

    def line(grid, count):
        if rule == "half-pixel":
            at = np.clip((np.arange(count) + 0.5) * grid / count - 0.5, 0, grid - 1)
        else:
            at = np.arange(count) * (grid - 1) / max(count - 1, 1)
        near = np.minimum(at.astype(int), max(grid - 2, 0))
        return near, np.minimum(near + 1, grid - 1), at - near

    y0, y1, v = line(height, size[0])
    x0, x1, u = line(width, size[1])
    values, v = logits.astype(np.float64), v[:, None]
    rows = values[:, y0] * (1 - v) + values[:, y1] * v
    return rows[:, :, x0] * (1 - u) + rows[:, :, x1] * u


def assert_right(labels, logits, size, rule, margin=1e-4):
    dense = interpolate(logits, size, rule)
    assert labels.dtype == np.uint8
    assert labels.shape == size
    chosen = np.take_along_axis(dense, labels[None].astype(int), axis=0)[0]
    assert (dense.max(axis=0) - chosen).max() < margin


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """labelmap.c as it is now, whatever is installed, compiled as pyproject.toml has it."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang) is here")
    parts = tomllib.loads(PROJECT.read_text())["tool"]["setuptools"]["ext-modules"]
    (part,) = [part for part in parts if part["sources"][0].endswith(SOURCE.name)]
    library = tmp_path_factory.mktemp("labelmap") / "labelmap.so"
    command = [compiler, *part["extra-compile-args"], "-Wall", "-Wextra", "-Werror"]
    command += ["-shared", "-fPIC", str(SOURCE), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run, why = labelmap._load(library)
    assert run is not None, why
    return run


def going(run):
    """`label_map`, going the way of a compiled function, or of NumPy without one."""

    def label_map_this_way(logits, size, threads=None, *, upsampling="aligned-corners"):
        return labelmap._label_map(logits, size, threads, upsampling, run)

    return label_map_this_way


@pytest.fixture
def fast(compiled):
    """`label_map`, going the compiled way."""
    return going(compiled)


@pytest.fixture(scope="module", params=["numpy", "compiled"])
def way(request):
    """`label_map`, going one way, then the other."""
    return going(request.getfixturevalue("compiled") if request.param == "compiled" else None)


def by_numpy(logits, size, rule="aligned-corners"):
    """What the compiled way must return."""
    return labelmap._label_map(logits, size, None, rule, None)


def by_compiled(run, logits, size, threads, rule="aligned-corners"):
    """Called on a label map between rows that it must not touch."""
    framed = np.full((size[0] + 2, size[1]), 255, np.uint8)
    labelmap._label(logits, framed[1:-1], threads, rule, run)
    assert (framed[[0, -1]] == 255).all()
    return framed[1:-1]


grids = {
    "seed": st.integers(0, 2**32 - 1),
    "classes": st.integers(1, 6),
    "grid": st.tuples(side, side),
    "size": st.tuples(pixels, pixels),
    "kind": st.sampled_from(["random", "smooth", "coarse"]),
    "rule": st.sampled_from(RULES),
}


@given(**grids)
@settings(max_examples=150, deadline=None)
def test_it_is_the_class_of_largest_interpolated_logit(way, seed, classes, grid, size, kind, rule):
    logits = logits_of(seed, classes, *grid, kind)
    for ask in (way, label_map_dense):
        assert_right(ask(logits, size, upsampling=rule), logits, size, rule)


@given(**grids)
@settings(max_examples=150, deadline=None)
def test_cells_give_what_the_dense_way_gives(seed, classes, grid, size, kind, rule):
    """With the switch to the dense way off, so that mixed cells are really worked out."""
    logits = logits_of(seed, classes, *grid, kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labelmap, "_MIXED_SHARE", 2.0)
        patch.setattr(labelmap, "_CELL_PIXELS", 10**9)
        patch.setattr(labelmap, "_VALUES", (0, 3 * classes))
        cells = by_numpy(logits, size, rule)
    np.testing.assert_array_equal(cells, by_numpy(logits, size, rule))
    dense = label_map_dense(logits, size, upsampling=rule)
    values = np.sort(interpolate(logits, size, rule), axis=0)
    tie = values[-1] - values[-2] < 1e-6 if classes > 1 else np.zeros(size, bool)
    assert not ((cells != dense) & ~tie).any()


@given(
    seed=grids["seed"],
    classes=st.integers(1, 30),
    grid=st.tuples(st.integers(1, 20), st.integers(1, 70)),
    size=st.tuples(st.integers(1, 90), st.integers(1, 300)),
    kind=grids["kind"],
    threads=st.integers(1, 4),
    rule=grids["rule"],
)
@settings(max_examples=300, deadline=None)
def test_compiled_it_is_numpys_to_the_byte(
    compiled, seed, classes, grid, size, kind, threads, rule
):
    logits = logits_of(seed, classes, *grid, kind)
    labels = by_compiled(compiled, logits, size, threads, rule)
    np.testing.assert_array_equal(labels, by_numpy(logits, size, rule))


@pytest.mark.parametrize(
    ("classes", "grid", "size"),
    [
        (255, (6, 9), (23, 40)),
        (5, (2, 2), (301, 1003)),
        (
            5,
            (3, 3000),
            (9, 500),
        ),  # wider than what is gathered in one go, and smaller than the grid
        (5, (300, 2), (70, 64)),
        (4, (1, 1), (50, 70)),
        (7, (64, 1), (256, 3)),
    ],
)
@pytest.mark.parametrize("kind", ["random", "smooth", "coarse"])
@pytest.mark.parametrize("rule", RULES)
def test_of_unusual_shapes_too(compiled, classes, grid, size, kind, rule):
    logits = logits_of(1, classes, *grid, kind)
    expected = by_numpy(logits, size, rule)
    for threads in (1, 3):
        labels = by_compiled(compiled, logits, size, threads, rule)
        np.testing.assert_array_equal(labels, expected)


def test_a_tie_that_only_rounding_makes_is_none_where_the_corners_agree(way):
    """Class 1 is one step of float32 above class 0 at every corner, so it wins between, too."""
    logits = np.empty((2, 5, 5), np.float32)
    logits[0] = np.random.default_rng(0).standard_normal((5, 5))
    logits[1] = np.nextafter(logits[0], np.float32(np.inf))
    assert (label_map_dense(logits, (37, 41)) == 0).any()
    assert (way(logits, (37, 41)) == 1).all()


@pytest.mark.parametrize("kind", ["random", "smooth"])
@pytest.mark.parametrize(
    ("grid", "size"),
    [((32, 64), (128, 256)), ((33, 65), (129, 257)), ((33, 65), (20, 31)), ((1, 9), (7, 50))],
)
@pytest.mark.parametrize("rule", RULES)
def test_it_is_pytorchs_interpolate_and_argmax(way, kind, grid, size, rule):
    torch = pytest.importorskip("torch")
    logits = logits_of(1, 19, *grid, kind)
    aligned = rule == "aligned-corners"
    dense = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], size=size, mode="bilinear", align_corners=aligned
    )[0].numpy()
    labels = way(logits, size, upsampling=rule)
    top = np.sort(dense, axis=0)
    differs = labels != dense.argmax(axis=0)
    assert differs.mean() < 1e-3
    assert (top[-1] - top[-2])[differs].max(initial=0) < 1e-4


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [(0, 0), (-1, -1), (2, 3)])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_a_network_that_overflowed_is_refused(way, value, at, last):
    logits = logits_of(4, 5, 7, 300, "random")
    logits[:, at[0], at[1]] = value
    if last:
        logits = np.ascontiguousarray(logits.transpose(1, 2, 0)).transpose(2, 0, 1)
    for ask in (way, label_map_dense):
        with pytest.raises(NotFinite, match="the network overflowed"):
            ask(logits, (20, 900))


NOT_FINITE = {
    "a class is NaN": lambda v: v.__setitem__(3, np.nan),
    "all is NaN": lambda v: v.fill(np.nan),
    "one NaN in the first class": lambda v: v.__setitem__((0, 2, 150), np.nan),
    "one NaN in the last class": lambda v: v.__setitem__((4, 6, 299), np.nan),
    "one logit of a class that loses": lambda v: v.__setitem__((1, 0, 0), -np.inf),
    "a class that never wins": lambda v: v.__setitem__(2, -np.inf),
    "a class that always wins": lambda v: v.__setitem__(2, np.inf),
    "a NaN with its sign set": lambda v: v.view(np.uint32).__setitem__((2, 3, 7), 0xFFC00001),
    "a NaN that signals": lambda v: v.view(np.uint32).__setitem__((2, 3, 7), 0x7F800001),
}


@pytest.mark.parametrize("spoil", NOT_FINITE.values(), ids=NOT_FINITE)
@pytest.mark.parametrize("size", [(28, 1200), (7, 300), (3, 40), (1, 1)], ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_every_logit_is_looked_at_not_only_the_largest(way, spoil, size, last):
    """Also those beside which a small label map has no pixel."""
    logits = logits_of(4, 5, 7, 300, "random")
    spoil(logits)
    if last:
        logits = np.ascontiguousarray(logits.transpose(1, 2, 0)).transpose(2, 0, 1)
    for ask in (way, label_map_dense):
        with pytest.raises(NotFinite, match="the network overflowed"):
            ask(logits, size)
        with pytest.raises(ValueError, match="the network overflowed"):
            ask(np.stack([np.zeros_like(logits), logits]), size)


@given(
    seed=grids["seed"],
    classes=st.integers(1, 9),
    grid=st.tuples(st.integers(1, 40), st.integers(1, 140)),
    size=st.tuples(st.integers(1, 60), st.integers(1, 200)),
    value=st.sampled_from([np.nan, -np.nan, np.inf, -np.inf]),
    threads=st.integers(1, 4),
)
@settings(max_examples=200, deadline=None)
def test_one_logit_anywhere_is_found_on_every_way(
    compiled, seed, classes, grid, size, value, threads
):
    rng = np.random.default_rng(seed)
    logits = logits_of(seed, classes, *grid, "random")
    logits.reshape(-1)[rng.integers(logits.size)] = value
    for ask in (
        lambda: by_compiled(compiled, logits, size, threads),
        lambda: by_numpy(logits, size),
        lambda: label_map_dense(logits, size),
    ):
        with pytest.raises(NotFinite):
            ask()


def test_the_largest_floats_are_numbers(way):
    """Nothing short of infinity is refused, nor zeros and what is nearly zero."""
    most = np.finfo(np.float32).max
    for value in (most, -most, 0.0, -0.0, np.finfo(np.float32).smallest_subnormal):
        logits = np.full((3, 4, 6), value, np.float32)
        assert (way(logits, (13, 17)) == 0).all()


def test_what_becomes_infinite_as_float32_is_refused_without_a_warning(way):
    half = np.zeros((2, 4, 4), np.float16)
    half[1, 2, 2] = np.inf  # what 70000 becomes
    for logits in (half, np.full((2, 4, 4), 1e300)):
        for ask in (way, label_map_dense):
            with pytest.raises(NotFinite):
                ask(logits, (9, 9))


def test_ties_go_to_the_lowest_class(way):
    logits = np.zeros((5, 4, 4), np.float32)
    logits[[2, 4]] = 1
    assert (way(logits, (13, 17)) == 2).all()
    assert (label_map_dense(logits, (13, 17)) == 2).all()
    logits[1, :, 2:] = 1  # mixed cells between: class 1 ties only where its weight is whole
    labels = way(logits, (4, 7))
    np.testing.assert_array_equal(labels, [[2, 2, 2, 2, 1, 1, 1]] * 4)


@pytest.mark.parametrize("rule", [*RULES, "none"])
def test_at_the_grids_own_size_it_is_the_argmax(way, rule):
    logits = logits_of(3, 7, 20, 30, "random")
    for ask in (way, label_map_dense):
        labels = ask(logits, (20, 30), upsampling=rule)
        np.testing.assert_array_equal(labels, logits.argmax(axis=0))


def test_logits_that_are_not_upsampled_are_of_their_own_size_only(way):
    logits = logits_of(3, 7, 20, 30, "random")
    for ask in (way, label_map_dense):
        for size in ((20, 60), (10, 30)):
            with pytest.raises(ValueError, match="each logit is one pixel"):
                ask(logits, size, upsampling="none")
        with pytest.raises(ValueError, match="known: aligned-corners, half-pixel, none"):
            ask(logits, (20, 30), upsampling="bicubic")


def test_a_batch_and_half_precision(way):
    batch = np.stack([logits_of(seed, 5, 8, 12, "smooth") for seed in (0, 1)]).astype(np.float16)
    labels = way(batch, (29, 45))
    assert labels.shape == (2, 29, 45)
    np.testing.assert_array_equal(labels[1], way(batch[1].astype(np.float32), (29, 45)))
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
    labels = going(None)(logits, (37, 37))
    assert filled == [1]
    assert 0 < (labels == 1).sum() < 25


@pytest.mark.parametrize("shape", [(3, 4), (0, 4, 4), (256, 4, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="expected logits"):
        label_map(np.zeros(shape, np.float32), (4, 4))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_logits_in_another_order_of_memory(compiled, order):
    logits = logits_of(2, 5, 8, 600, "random")
    turned = np.ascontiguousarray(logits.transpose(order)).transpose(np.argsort(order))
    expected = by_numpy(logits, (29, 901))
    np.testing.assert_array_equal(by_compiled(compiled, turned, (29, 901), 2), expected)


def test_logits_that_are_part_of_others(way):
    whole = logits_of(3, 5, 24, 36, "random")
    odd = np.zeros(whole.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(whole.shape)
    odd[:] = whole
    fields = np.zeros(whole.shape, [("a", "u1"), ("logit", "<f4")])
    fields["logit"] = whole
    for part in (whole[::-1, 1::3, ::-2], odd[:, 3:, 5:], fields["logit"]):
        expected = label_map_dense(np.ascontiguousarray(part), (29, 45))
        np.testing.assert_array_equal(way(part, (29, 45)), expected)


def test_several_threads_may_call_at_once(fast):
    scenes = [logits_of(seed, 6, 20, 30, "smooth") for seed in range(24)]
    expected = [by_numpy(logits, (160, 240)) for logits in scenes]
    with ThreadPoolExecutor(4) as callers:
        found = list(callers.map(lambda logits: fast(logits, (160, 240), 3), scenes))
    np.testing.assert_array_equal(found, expected)


def test_it_does_not_wait_for_threads_that_are_busy(fast):
    """The calling thread works out what the others do not come to."""
    logits, release = logits_of(4, 6, 20, 30, "random"), threading.Event()
    busy = [labelmap._pool().submit(release.wait) for _ in range(labelmap._MOST_THREADS)]
    try:
        labels = fast(logits, (80, 120), threads=4)
    finally:
        release.set()
    assert all(future.result() for future in busy)
    np.testing.assert_array_equal(labels, by_numpy(logits, (80, 120)))


def test_it_works_alone_where_no_thread_can_be_had(fast, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    logits = logits_of(4, 6, 20, 30, "random")
    monkeypatch.setattr(threading.Thread, "start", start)
    labelmap._pool.cache_clear()
    try:
        labels = fast(logits, (80, 120), threads=4)
    finally:
        labelmap._pool.cache_clear()
    np.testing.assert_array_equal(labels, by_numpy(logits, (80, 120)))


def test_it_works_alone_where_the_interpreter_ends():
    script = """
import atexit, sys
import numpy as np
from icnet_deploy.runtime.labelmap import label_map

logits = np.random.default_rng(0).random((6, 20, 30), np.float32)
expected = label_map(logits, (1600, 2400), threads=4)
atexit.register(lambda: print((label_map(logits, (1600, 2400), threads=4) == expected).all()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(fast):
    logits = logits_of(4, 6, 20, 30, "random")
    expected = fast(logits, (80, 120), threads=2)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            fresh = labelmap._pool.cache_info().currsize == 0
            same = np.array_equal(fast(logits, (80, 120), threads=2), expected)
            labelmap._pool().submit(int).result(10)
            os._exit(0 if fresh and same else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_less_than_one_thread_is_refused():
    with pytest.raises(ValueError, match="at least 1 thread"):
        label_map(np.zeros((2, 4, 4), np.float32), (4, 4), threads=0)


def test_it_says_which_way_it_goes(tmp_path):
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    broken.mkdir()
    (broken / "labelmap.abi3.so").write_bytes(b"no library")
    for folder, message in ((empty, "compiler"), (broken, "does not load")):
        run, why = labelmap._compiled(folder)
        assert run is None
        assert message in why
    run, why = labelmap._compiled()
    assert labelmap.kind() == ("numpy" if run is None else "compiled", why)
    logits = logits_of(3, 4, 8, 12, "random")
    np.testing.assert_array_equal(label_map(logits, (20, 30)), by_numpy(logits, (20, 30)))


def test_an_older_build_is_not_called():
    """Any library without the function: an earlier one has it by another name."""
    run, why = labelmap._load(Path(_umath_linalg.__file__))
    assert run is None
    assert "icnet_label_bands" in why
