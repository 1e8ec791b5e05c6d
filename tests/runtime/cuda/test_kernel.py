"""The label map's kernel: its own source, run on the CPU, gives `label_map_dense` to the byte."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from host_cuda import HostCuda
from hypothesis import given, settings
from hypothesis import strategies as st

from icnet_deploy.errors import BackendError, NotFinite
from icnet_deploy.metadata import UPSAMPLINGS
from icnet_deploy.runtime.cuda import labels as kernels
from icnet_deploy.runtime.cuda.labels import launch_check, launch_label_map
from icnet_deploy.runtime.labelmap import label_map_dense

SOURCE = Path(kernels.__file__).with_name("labelmap.cu")
FAKES = Path(__file__).parents[2] / "fakes"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The kernels in a library of the CPU, by a C++ compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler (g++ or clang++) is here")
    library = tmp_path_factory.mktemp("kernel") / "labelmap.so"
    shim = FAKES / "cpu_shim.h"
    command = [compiler, "-O2", "-ffp-contract=off", "-Wno-unused", "-shared", "-fPIC"]
    command += ["-x", "c++", str(shim), "-I", str(SOURCE.parent), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


class Recorder(HostCuda):
    """Takes what `launch_label_map` launches, to run it elsewhere."""

    def launch(self, kernel, grid, block, arguments, stream):
        self.taken = kernel, grid, block, [int(argument) for argument in arguments]


def on_the_cpu(compiled, logits, size, flagged=0, rule="aligned-corners"):
    """Runs the compiled kernel as it would be launched, over a frame that it must not touch."""
    cuda = Recorder()
    labels = np.full((size[0] + 2, size[1]), 255, np.uint8)
    inner, flag = labels[1:-1], np.array([7, 0, 7], np.int32)
    where = inner.ctypes.data, size, flag[1:].ctypes.data
    launch_label_map(cuda, None, logits.ctypes.data, logits.shape, logits.dtype, *where, rule)
    kernel, grid, block, (source, classes, h, w, target, height, width, there, how) = cuda.taken
    run = compiled.run_half if kernel == "label_map_half" else compiled.run_float
    pointer = ctypes.c_void_p
    run(
        *(*grid, *block, pointer(source), classes, h, w),
        *(pointer(target), height, width, pointer(there), how),
    )
    assert (labels[[0, -1]] == 255).all()
    assert flag.tolist() == [7, flagged, 7]
    return inner


SIZES = [
    ((32, 64), (128, 256)),
    ((33, 65), (129, 257)),
    ((25, 41), (97, 161)),
    ((16, 24), (201, 97)),
    ((33, 65), (20, 31)),  # smaller than the grid
    ((1, 9), (7, 50)),
    ((9, 1), (50, 7)),
    ((1, 1), (5, 40)),
    ((7, 5), (1, 1)),
    ((2, 3), (9, 1)),
]


@pytest.mark.parametrize(("grid", "size"), SIZES)
@pytest.mark.parametrize("kind", ["random", "smooth", "ties"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("rule", ["aligned-corners", "half-pixel"])
def test_it_is_the_dense_way_to_the_byte(compiled, grid, size, kind, dtype, rule):
    rng = np.random.default_rng([*grid, *size])
    shape = (19, *grid)
    if kind == "random":
        logits = rng.standard_normal(shape) * 8
    elif kind == "ties":  # whole numbers: classes tie at most pixels, exactly
        logits = rng.integers(0, 2, shape)
    else:
        y, x = np.mgrid[: grid[0], : grid[1]] / 8
        a, b, c = rng.standard_normal((3, 19, 1, 1))
        logits = a * y + b * x + c * np.sin(x + y)
    logits = np.ascontiguousarray(logits.astype(dtype))
    dense = label_map_dense(logits, size, upsampling=rule)
    np.testing.assert_array_equal(on_the_cpu(compiled, logits, size, rule=rule), dense)


@given(
    classes=st.one_of(st.integers(2, 254), st.integers(2, 21)),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 11)),
    stride=st.sampled_from([1, 2, 4, 8, 16, 32]),
    cut=st.tuples(st.integers(0, 31), st.integers(0, 31)),
    rule=st.sampled_from(UPSAMPLINGS),
    dtype=st.sampled_from([np.float32, np.float16]),
    ties=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_so_it_is_by_every_rule_at_every_stride(
    compiled, classes, grid, stride, cut, rule, dtype, ties, seed
):
    rng = np.random.default_rng(seed)
    shape = (classes, *grid)
    logits = (rng.integers(0, 3, shape) if ties else rng.standard_normal(shape) * 8).astype(dtype)
    size = grid
    if rule != "none":
        size = tuple(side * stride - less % stride for side, less in zip(grid, cut, strict=True))
    dense = label_map_dense(logits, size, upsampling=rule)
    np.testing.assert_array_equal(on_the_cpu(compiled, logits, size, rule=rule), dense)


def test_logits_that_are_not_upsampled_are_the_argmax(compiled):
    logits = np.random.default_rng(0).standard_normal((5, 17, 40)).astype(np.float32)
    labels = on_the_cpu(compiled, logits, (17, 40), rule="none")
    np.testing.assert_array_equal(labels, logits.argmax(axis=0))


@pytest.mark.parametrize(("grid", "size"), SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_every_logit_that_is_not_finite_is_flagged_as_the_dense_way_refuses_it(
    compiled, grid, size, dtype, value
):
    """Wherever it is, also where it loses and where a small label map has no pixel."""
    rng = np.random.default_rng([*grid, *size])
    for _ in range(20):
        logits = rng.standard_normal((5, *grid)).astype(dtype)
        logits.reshape(-1)[rng.integers(logits.size)] = value
        on_the_cpu(compiled, logits, size, flagged=1)
        with pytest.raises(NotFinite):
            label_map_dense(logits, size)


def test_the_largest_numbers_are_not_flagged(compiled):
    for dtype in (np.float32, np.float16):
        for value in (np.finfo(dtype).max, np.finfo(dtype).min, np.finfo(dtype).tiny):
            on_the_cpu(compiled, np.full((3, 4, 5), value, dtype), (13, 17))


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (33, 7), (8, 32), (9, 33)])
def test_a_label_that_is_no_class_is_flagged_wherever_it_is(compiled, size):
    rng = np.random.default_rng(size)
    for classes in (1, 5, 19, 254):
        for largest in {classes - 1, classes, 255}:
            labels = rng.integers(0, classes, size).astype(np.uint8)
            labels.reshape(-1)[rng.integers(labels.size)] = largest
            cuda, flag = Recorder(), np.array([7, 0, 7], np.int32)
            launch_check(cuda, None, labels.ctypes.data, size, classes, flag[1:].ctypes.data)
            _, grid, block, (source, height, width, count, there) = cuda.taken
            pointer = ctypes.c_void_p
            compiled.run_check(
                *(*grid, *block, pointer(source), height, width, count, pointer(there))
            )
            assert flag.tolist() == [7, int(largest >= classes), 7]


def test_every_finite_half_is_read_as_what_it_is(compiled):
    """Denormals and both zeros, too: class 1 wins exactly where it is the larger of two halves."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    halves = bits[np.isfinite(bits.view(np.float16))].view(np.float16).reshape(62, 1024)
    for other in (np.float16(0), np.float16(6e-8), np.float16(-3.5), np.float16(1000)):
        logits = np.stack([np.full_like(halves, other), halves])
        labels = on_the_cpu(compiled, logits, halves.shape)
        np.testing.assert_array_equal(labels, halves > other)


def test_it_is_the_dense_way_on_the_networks_own_logits(compiled):
    pytest.importorskip("torch", reason="torch is not installed")
    from icnet_deploy.data.scenes import draw_scene
    from icnet_deploy.evaluation.reference import Reference, shipped_checkpoint

    scene = draw_scene(5, (192, 384))
    found = Reference(shipped_checkpoint(), None).logits(scene.image)
    for logits in map(np.ascontiguousarray, (found, found.astype(np.float16))):
        for size in ((192, 384), (375, 701)):
            dense = label_map_dense(logits, size)
            assert len(np.unique(dense)) > 4
            np.testing.assert_array_equal(on_the_cpu(compiled, logits, size), dense)


def test_nvcc_compiles_it_for_every_gpu_it_knows(tmp_path):
    """In one call, since starting nvcc is what costs: Ampere, Ada, Hopper and Blackwell."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not here")
    told = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, check=True)
    codes = {"sm_80", "sm_86", "sm_89", "sm_90", "sm_120"} & set(told.stdout.split())
    assert codes
    targets = [f"-gencode=arch=compute_{code[3:]},code={code}" for code in sorted(codes)]
    command = [nvcc, "-std=c++17", *targets, "-fatbin", "-Xptxas", "-v", "--Werror", "all-warnings"]
    command += [str(SOURCE), "-o", str(tmp_path / "labelmap.fatbin")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for code in codes:
        for kernel in ("label_map_float", "label_map_half", "check_labels"):
            assert f"'{kernel}' for '{code}'" in done.stderr
    assert done.stderr.count(" 0 bytes spill stores") == 3 * len(codes)


def test_the_source_takes_no_header():
    """NVRTC has none at hand."""
    assert "#include" not in kernels.source()


@pytest.mark.parametrize(("grid", "rule"), [(50000, "aligned-corners"), (25000, "half-pixel")])
def test_what_is_too_large_for_its_numbers_is_refused(grid, rule):
    kind = np.dtype(np.float32)
    with pytest.raises(BackendError, match="too large"):
        launch_label_map(HostCuda(), None, 0, (19, grid, 2), kind, 0, (50000, 10), 0, rule)
