"""Every rule, stride and number of classes: the label map is the dense way's, in little memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icnet_deploy.errors import NotFinite
from icnet_deploy.metadata import UPSAMPLINGS
from icnet_deploy.runtime import labelmap
from icnet_deploy.runtime.labelmap import label_map_dense

MIB = 1 << 20


@pytest.fixture(scope="module", params=["numpy", "compiled"])
def run(request):
    """One way, then the other."""
    if request.param == "numpy":
        return None
    compiled, why = labelmap._compiled()
    if compiled is None:
        pytest.skip(why)
    return compiled


def by(run, logits, size, rule, threads=2):
    return labelmap._label_map(logits, size, threads, rule, run)


def laid_out(logits, last):
    """The same values, channels first or last in memory."""
    return np.ascontiguousarray(logits.transpose(1, 2, 0)).transpose(2, 0, 1) if last else logits


def drawn(classes, grid, kind, seed=0):
    """Random: most cells mixed. Areas: most cells of one class. Ties: whole numbers."""
    rng = np.random.default_rng(seed)
    if kind == "ties":
        return rng.integers(0, 3, (classes, *grid)).astype(np.float32)
    logits = rng.standard_normal((classes, *grid), np.float32)
    if kind == "areas":
        y, x = np.ogrid[: grid[0], : grid[1]]
        area = (y // 5 * 31 + x // 7 * 17) % classes
        np.put_along_axis(logits, area[None], np.float32(9), axis=0)
    return logits


cases = {
    "classes": st.one_of(st.integers(2, 254), st.integers(2, 21)),
    "grid": st.tuples(st.integers(1, 9), st.integers(1, 11)),
    "stride": st.sampled_from([1, 2, 4, 8, 16, 32]),
    "cut": st.tuples(st.integers(0, 31), st.integers(0, 31)),
    "rule": st.sampled_from(UPSAMPLINGS),
    "kind": st.sampled_from(["random", "areas", "ties"]),
    "dtype": st.sampled_from([np.float32, np.float16, np.float64, np.dtype(">f4")]),
    "last": st.booleans(),
    "seed": st.integers(0, 2**32 - 1),
}


def size_of(grid, stride, cut, rule):
    """That of an image whose logits these are: ceil(side / stride) on each axis."""
    if rule == "none":
        return grid
    return tuple(side * stride - less % stride for side, less in zip(grid, cut, strict=True))


@given(**cases)
@settings(max_examples=80, deadline=None)
def test_it_is_the_dense_way_to_the_byte(
    run, classes, grid, stride, cut, rule, kind, dtype, last, seed
):
    logits = laid_out(drawn(classes, grid, kind, seed).astype(dtype), last)
    size = size_of(grid, stride, cut, rule)
    with pytest.MonkeyPatch.context() as patch:  # so small that a few rows are several bands
        patch.setattr(labelmap, "_BAND_BYTES", 4 * classes * grid[1] * 2)
        patch.setattr(labelmap, "_BAND_SHARE", 0)
        patch.setattr(labelmap, "_PLANE", 100)
        labels = by(run, logits, size, rule)
    dense = label_map_dense(np.ascontiguousarray(logits, np.float32), size, upsampling=rule)
    np.testing.assert_array_equal(labels, dense)
    np.testing.assert_array_equal(label_map_dense(logits, size, upsampling=rule), dense)


@given(**cases)
@settings(max_examples=40, deadline=None)
def test_it_is_pytorchs_in_double_precision_where_no_two_classes_nearly_tie(
    run, classes, grid, stride, cut, rule, kind, dtype, last, seed
):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    logits = laid_out(drawn(classes, grid, kind, seed).astype(dtype), last)
    size = size_of(grid, stride, cut, rule)
    dense = torch.from_numpy(np.array(logits, np.float64))[None]
    if rule != "none":
        dense = torch.nn.functional.interpolate(
            dense, size, mode="bilinear", align_corners=rule == "aligned-corners"
        )
    first, second = torch.topk(dense[0], 2, dim=0)[0]
    labels = by(run, logits, size, rule)
    differs = labels != dense[0].argmax(dim=0).numpy()
    assert ((first - second).numpy()[differs] < 1e-5).all()
    if kind == "random":
        assert not differs.all()


@pytest.mark.parametrize("rule", UPSAMPLINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_a_logit_that_is_not_finite_is_found_in_every_band(run, monkeypatch, rule, dtype, last):
    """Also in a band whose rows no pixel lies beside, as in a label map smaller than the grid."""
    monkeypatch.setattr(labelmap, "_BAND_BYTES", 4 * 3 * 8 * 2)
    monkeypatch.setattr(labelmap, "_BAND_SHARE", 0)
    for size in ((24, 8),) if rule == "none" else ((24, 8), (96, 32), (3, 8), (1, 1)):
        for row in range(24):
            logits = drawn(3, (24, 8), "random").astype(dtype)
            logits[2, row, 5] = np.inf if row % 2 else np.nan
            with pytest.raises(NotFinite):
                by(run, laid_out(logits, last), size, rule)


@pytest.fixture(scope="module")
def real_logits():
    """Of the shipped network on a drawn scene: 19 x 32 x 64."""
    pytest.importorskip("torch", reason="torch is not installed")
    from icnet_deploy.data.scenes import draw_scene
    from icnet_deploy.evaluation.reference import Reference, shipped_checkpoint

    scene = draw_scene(5, (128, 256)).image
    return np.array(Reference(shipped_checkpoint(), None).logits(scene))


@pytest.mark.parametrize(
    ("size", "rule"),
    [
        ((32, 64), "none"),
        ((128, 256), "aligned-corners"),
        ((128, 256), "half-pixel"),
        ((256, 512), "half-pixel"),
        ((251, 467), "aligned-corners"),
    ],
)
def test_on_the_logits_of_a_network(run, real_logits, size, rule):
    """Real ones, whatever rule they are read by."""
    for dtype, last in ((np.float32, False), (np.float32, True), (np.float16, False)):
        logits = laid_out(real_logits.astype(dtype), last)
        dense = label_map_dense(logits, size, upsampling=rule)
        assert len(np.unique(dense)) > 4
        np.testing.assert_array_equal(by(run, logits, size, rule), dense)


def extra_bytes(run, logits, size, rule, threads=2):
    """The most memory that was taken beside the logits: NumPy's and Python's, and that of C."""
    by(run, logits[:, :2, :2], (2, 2), rule, threads)
    labelmap.axes.__globals__["_axis"].cache_clear()
    tracemalloc.start()
    try:
        labels = by(run, logits, size, rule, threads)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert labels.nbytes == size[0] * size[1]
    native = 0 if run is None else threads * (len(logits) * 512 + 2 * logits.shape[2] + 8192)
    return peak + native


@pytest.mark.parametrize(("kind", "rule"), [("areas", "half-pixel"), ("random", "aligned-corners")])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_150_classes_take_half_as_much_again_as_their_logits(run, kind, rule, dtype, last):
    """With the label map. At a seventh of the pixels of 1024 x 2048, and stride 4."""
    logits = laid_out(drawn(150, (96, 192), kind).astype(dtype), last)
    assert extra_bytes(run, logits, (384, 768), rule) < 0.5 * logits.nbytes


def test_a_label_map_holds_no_logits_where_the_helpers_are_busy():
    """What they did not come to waits in their queue, without what it was about."""
    run, why = labelmap._compiled()
    if run is None:
        pytest.skip(why)
    logits, release = drawn(3, (8, 8), "random"), threading.Event()
    busy = [labelmap._pool().submit(release.wait) for _ in range(labelmap._MOST_THREADS)]
    try:
        by(run, logits, (32, 32), "half-pixel", threads=4)
        left = weakref.ref(logits)
        del logits
        assert left() is None
    finally:
        release.set()
    assert all(future.result() for future in busy)


@pytest.mark.parametrize("stride", [8, 16])
def test_so_they_do_at_1024_x_2048(run, stride):
    """At stride 16 the label map alone is 0.43 of the logits."""
    logits = np.zeros((150, 1024 // stride, 2048 // stride), np.float32)
    logits[7, ::40], logits[90, :, ::100] = 1, 2
    assert extra_bytes(run, logits, (1024, 2048), "aligned-corners") < 0.5 * logits.nbytes


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_so_they_do_at_stride_1(run, dtype):
    logits = drawn(150, (128, 256), "random").astype(dtype)
    assert extra_bytes(run, logits, (128, 256), "none") < 0.2 * logits.nbytes


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells a process's memory on Linux")
def test_the_process_grows_by_no_more(run):
    """As the system counts it, at 1024 x 2048 and stride 4."""
    script = f"""
        import numpy as np
        from icnet_deploy.runtime import labelmap

        run = {"None" if run is None else "labelmap._compiled()[0]"}
        labelmap._label_map(np.zeros((150, 4, 4), "f4"), (16, 16), 2, "half-pixel", run)
        logits = np.zeros((150, 256, 512), "f4")
        area = np.arange(256)[:, None] // 5 * 31 + np.arange(512) // 7 * 17
        np.put_along_axis(logits, area[None] % 150, np.float32(9), axis=0)
        logits += np.linspace(0, 1, 150, dtype="f4")[:, None, None]

        def told(what):
            lines = open("/proc/self/status").read().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith(what))

        open("/proc/self/clear_refs", "w").write("5")
        before = told("VmRSS")
        labelmap._label_map(logits, (1024, 2048), 2, "half-pixel", run)
        print((told("VmHWM") - before) * 1024 / logits.nbytes)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "clear_refs" in done.stderr:
        pytest.skip("this system does not let a process reset its peak")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.5
