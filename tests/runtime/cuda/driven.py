"""Run by test_adapters.py in a process of its own, whose libcuda.so.1 is the fake driver.

It holds the real cuda-python, and PyCUDA or its stand-in where it is not installed, to the
contract, and then has a predictor run an engine of the fake TensorRT through it: everything but the
GPU and the libraries of NVIDIA is what a user has.
"""

from __future__ import annotations

import ctypes
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "fakes"))

import cuda_contract
from fake_pycuda import make_fake as make_pycuda
from fake_tensorrt import Machine, make_fake
from tiny_model import build_model, draw_blocks

from icnet_deploy.runtime import Predictor
from icnet_deploy.runtime.cuda import open_cuda

KINDS = ("device blocks", "pinned blocks", "streams", "events", "graphs")


def without_nvrtc():
    """NVRTC asks the driver for what the fake has not: the fake knows the kernels by name."""
    import cuda.core as core

    class Program:
        def __init__(self, code, code_type, options):
            assert (code_type, options.arch, "label_map_float" in code) == ("c++", "sm_86", True)

        def compile(self, target_type):
            assert target_type == "cubin"
            return core.ObjectCode.from_cubin(b"a cubin")

    core.Program = Program


def without_nvcc():
    """As above: the compiler's command line is held in test_adapters.py."""
    import pycuda.compiler as compiler
    from pycuda.driver import module_from_buffer

    def source_module(source, *, options, no_extern_c):
        assert (options, no_extern_c, "label_map_half" in source) == (["-std=c++17"], True, True)
        return module_from_buffer(b"a cubin")

    compiler.SourceModule = source_module


def predict(driver, cuda, folder):
    """An engine, on the adapter: alone, again as a graph, in a batch, and left on the GPU."""
    trt = make_fake("11.4")
    kept = []

    def enqueue(handle, work):
        kept.append(ctypes.CFUNCTYPE(None)(work))
        assert driver.fake_enqueue(ctypes.c_void_p(handle), kept[-1]) == 0

    trt.machine = Machine(enqueue=enqueue)
    sys.modules["tensorrt"] = trt
    onnx = build_model(folder / "tiny.onnx")
    builder = trt.Builder(logger := trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    assert trt.OnnxParser(network, logger).parse(onnx.read_bytes())
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("image", (1, 64, 96, 3), (2, 64, 96, 3), (2, 64, 96, 3))
    assert config.add_optimization_profile(profile) == 0
    engine = folder / "tiny.engine"
    engine.write_bytes(bytes(builder.build_serialized_network(network, config)))
    images = [draw_blocks(size, seed) for seed, size in enumerate([(64, 96), (100, 77)] * 2)]
    with Predictor.from_onnx(onnx, "onnxruntime", "cpu", threads=1) as predictor:
        wanted = [predictor.predict(image).labels for image in images]
    with Predictor.from_engine(engine, cuda=cuda) as predictor:
        for _ in range(2):
            for image, labels in zip(images, wanted, strict=True):
                assert (predictor.predict(image).labels == labels).mean() > 0.999
        for labels, found in zip(wanted, predictor.predict_batch(images), strict=True):
            assert (found.labels == labels).mean() > 0.999
        left = predictor.predict(images[1], on_device=True).labels
        again = predictor.predict(images[1]).labels
    np.testing.assert_array_equal(left.to_host(), again)
    left.free()


def main():
    adapter, library, folder = sys.argv[1:]
    driver = ctypes.CDLL(library)
    if adapter == "pycuda" and find_spec("pycuda") is None:
        sys.modules |= make_pycuda(library)
    (without_nvrtc if adapter == "cuda-python" else without_nvcc)()
    cuda = open_cuda(adapter)
    assert cuda.gpu.capability == (8, 6), cuda.gpu
    assert cuda.gpu.name == "a fake GPU"
    with cuda.current():
        before = [driver.fake_live(kind) for kind in range(len(KINDS))]
        for check in cuda_contract.CHECKS:
            check(cuda)
    predict(driver, cuda, Path(folder))
    with cuda.current():
        assert driver.cuCtxSynchronize() == 0  # memory goes back in the order of a stream
    after = [driver.fake_live(kind) for kind in range(len(KINDS))]
    assert after == before, dict(zip(KINDS, zip(before, after, strict=True), strict=True))
    print("driven", cuda.adapter)


if __name__ == "__main__":
    main()
