"""What every adapter to CUDA must do, on a GPU, on the fake driver or on host memory."""

from itertools import product

import numpy as np
import pytest

from icnet_deploy.errors import BackendError
from icnet_deploy.runtime.cuda.base import (
    ALIGNMENT,
    CaptureError,
    DeviceFrame,
    DeviceLabels,
    OutOfMemory,
    copy_frame,
)
from icnet_deploy.runtime.cuda.labels import launch_check, launch_label_map
from icnet_deploy.runtime.labelmap import label_map_dense


def filled(cuda, values, stream):
    """Memory of the GPU with some bytes in it."""
    values = np.ascontiguousarray(values).view(np.uint8).ravel()
    block, pinned = cuda.allocate(values.size), cuda.pinned(values.size)
    pinned.array[:] = values
    cuda.copy_in(block.address, pinned.array, stream)
    stream.synchronize()
    pinned.free()
    return block


def read(cuda, address, count, stream):
    """What is there."""
    pinned = cuda.pinned(count)
    cuda.copy_out(pinned.array, address, stream)
    stream.synchronize()
    values = pinned.array.copy()
    pinned.free()
    return values


def memory_copies_and_streams(cuda):
    stream, other = cuda.stream(), cuda.stream()
    assert stream.handle not in (0, 1, 2, other.handle)
    values = np.arange(1000).astype(np.uint8)
    first = filled(cuda, values, stream)
    second = cuda.allocate(1000)
    assert first.address % ALIGNMENT == second.address % ALIGNMENT == 0
    assert first.size >= 1000
    cuda.copy(second.address, first.address, 1000, other)
    stream.wait_for(other.handle)
    np.testing.assert_array_equal(read(cuda, second.address, 1000, stream), values)
    cuda.copy(second.address + 100, first.address, 100, stream)  # a part of a block
    np.testing.assert_array_equal(read(cuda, second.address + 90, 20, stream)[10:], values[:10])
    for handle in (1, 2):
        stream.wait_for(handle)
    stream.synchronize()
    for one in (first, second):
        one.free()
        one.free()
    for one in (stream, other):
        one.close()
        one.close()


def events_tell_the_time(cuda):
    stream = cuda.stream()
    first, second = cuda.event(), cuda.event()
    block = cuda.allocate(1 << 20)
    first.record(stream)
    cuda.copy(block.address, block.address + (1 << 19), 1 << 19, stream)
    second.record(stream)
    stream.synchronize()
    assert 0 < second.milliseconds_since(first) < 1000
    for one in (first, second, stream):
        one.close()
    block.free()


def graphs_replay(cuda):
    stream = cuda.stream()
    source, target = filled(cuda, np.full(512, 7, np.uint8), stream), cuda.allocate(512)

    def work():
        cuda.copy(target.address, source.address, 512, stream)

    if "pycuda" in cuda.adapter:
        with pytest.raises(CaptureError, match="PyCUDA has no CUDA graphs: pip install cuda-p"):
            cuda.capture(stream, work)
    else:
        graph = cuda.capture(stream, work)
        later = filled(cuda, np.full(512, 9, np.uint8), stream)
        cuda.copy(source.address, later.address, 512, stream)
        graph.launch(stream)
        assert (read(cuda, target.address, 512, stream) == 9).all()  # done when launched
        later.free()
        with pytest.raises(CaptureError, match="on purpose"):
            cuda.capture(stream, _fail)
        with pytest.raises(CaptureError):
            cuda.capture(stream, stream.synchronize)
        graph.launch(stream)  # neither has spoiled the stream
        stream.synchronize()
        graph.close()
    source.free()
    target.free()
    stream.close()


def _fail():
    raise BackendError("on purpose")


def kernels_give_the_dense_label_map(cuda):
    stream = cuda.stream()
    rng = np.random.default_rng(3)
    flag = filled(cuda, np.zeros(1, np.int32), stream)
    for dtype in (np.float32, np.float16):
        logits = rng.standard_normal((7, 9, 14)).astype(dtype)
        block = filled(cuda, logits, stream)
        rules = ("aligned-corners", "half-pixel")
        for size, rule in product(((33, 50), (9, 14), (1, 3)), rules):
            labels = DeviceLabels(cuda, size)
            where = labels.address, size, flag.address
            launch_label_map(cuda, stream, block.address, logits.shape, logits.dtype, *where, rule)
            stream.synchronize()
            dense = label_map_dense(logits, size, upsampling=rule)
            np.testing.assert_array_equal(labels.to_host(), dense)
            labels.free()
        block.free()
    assert not read(cuda, flag.address, 4, stream).any()
    flag.free()
    stream.close()


def kernels_flag_what_is_not_finite_and_what_is_no_class(cuda):
    stream = cuda.stream()
    labels, size = DeviceLabels(cuda, (33, 50)), (33, 50)

    def flagged(launch):
        flag = filled(cuda, np.zeros(1, np.int32), stream)
        launch(flag.address)
        found = read(cuda, flag.address, 4, stream).view(np.int32)[0]
        flag.free()
        return found

    for dtype in (np.float32, np.float16):
        for value in (np.nan, np.inf, -np.inf):
            logits = np.zeros((7, 9, 14), dtype)
            logits[2, 8, 13] = value
            block = filled(cuda, logits, stream)
            arguments = (block.address, logits.shape, logits.dtype, labels.address, size)
            assert flagged(lambda flag, a=arguments: launch_label_map(cuda, stream, *a, flag)) == 1
            block.free()
    for largest, classes, expected in ((18, 19, 0), (19, 19, 1), (255, 254, 1), (4, 5, 0)):
        made = np.zeros(size, np.uint8)
        made[32, 49] = largest
        block = filled(cuda, made, stream)
        arguments = (block.address, size, classes)
        assert flagged(lambda flag, a=arguments: launch_check(cuda, stream, *a, flag)) == expected
        block.free()
    labels.free()
    stream.close()


def a_picture_is_copied(cuda):
    stream, picture = cuda.stream(), np.arange(5 * 7 * 3).astype(np.uint8).reshape(5, 7, 3)
    block = filled(cuda, picture, stream)
    for handle in (None, stream.handle):
        copy = copy_frame(cuda, DeviceFrame(block.address, (5, 7, 3), handle, None))
        other = filled(cuda, 255 - picture, stream)
        cuda.copy(block.address, other.address, picture.nbytes, stream)
        stream.synchronize()
        np.testing.assert_array_equal(copy.to_host(), picture)
        assert copy.__cuda_array_interface__["shape"] == (5, 7, 3)
        picture = 255 - picture
        other.free()
        copy.free()
    block.free()
    stream.close()


def too_much_is_out_of_memory(cuda):
    with pytest.raises(OutOfMemory, match=r"the GPU has no .* MiB of memory left"):
        cuda.allocate(1 << 46)
    before = cuda.free_memory()
    assert before > 1 << 20
    block = cuda.allocate(1 << 10)
    block.free()


CHECKS = (
    memory_copies_and_streams,
    events_tell_the_time,
    graphs_replay,
    kernels_give_the_dense_label_map,
    kernels_flag_what_is_not_finite_and_what_is_no_class,
    a_picture_is_copied,
    too_much_is_out_of_memory,
)
