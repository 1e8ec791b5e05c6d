"""The real TensorRT and TensorRT-RTX: what can be had of them without a GPU, and all with one."""

from __future__ import annotations

import importlib
import threading
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from fake_tensorrt import load_surface
from host_cuda import HostCuda
from usage import uses

from icnet_deploy.errors import BackendError, ModelError
from icnet_deploy.runtime import Predictor, machine
from icnet_deploy.runtime.backends.tensorrt import backend as tensor_rt
from icnet_deploy.runtime.backends.tensorrt import engine as tensor_rt_engine
from icnet_deploy.runtime.backends.tensorrt import execution as tensor_rt_run
from icnet_deploy.runtime.backends.tensorrt.engine import read_plan
from icnet_deploy.runtime.cuda import open_cuda

SIZE = (64, 96)
SHAPES = ((1, *SIZE, 3), (2, *SIZE, 3), (4, *SIZE, 3))


def build(trt, onnx, target=None):
    """Builds an engine for a target, or for the GPU that is here."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(onnx.read_bytes())
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if target is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, target), 0)
    profile = builder.create_optimization_profile()
    profile.set_shape("image", *SHAPES)
    assert config.add_optimization_profile(profile) >= 0
    path = onnx.with_suffix(".engine")
    path.write_bytes(bytes(builder.build_serialized_network(network, config)))
    return path


def test_what_runs_an_engine_is_in_rtx_too():
    """The recorded surfaces are TensorRT's; its sibling is asked itself."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    surface, seen = load_surface("11.4"), set()
    for module in (tensor_rt, tensor_rt_engine, tensor_rt_run):
        text = Path(module.__file__).read_text(encoding="utf-8")
        seen |= {(use.owner, use.member) for use in uses(text, module.__name__, surface)}
    assert ("IExecutionContext", "execute_async_v3") in seen
    assert ("ICudaEngine", "get_tensor_profile_shape") in seen
    missing = [(o, m) for o, m in seen if not hasattr(getattr(rtx, o) if o else rtx, m)]
    assert missing == []


def test_a_real_plan_of_rtx_is_told_by_its_header_and_refused_without_a_gpu(tiny_model):
    rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    if machine.gpus():
        pytest.skip("there is a GPU")
    engine = build(rtx, tiny_model(), "SM86")
    plan = read_plan(engine, require_manifest=False)
    assert plan.flavour == "tensorrt-rtx"
    assert plan.version == tuple(int(part) & 255 for part in rtx.__version__.split("."))
    with pytest.raises(
        (ModelError, BackendError),
        match=rf"TensorRT-RTX {rtx.__version__} "
        r"(cannot load .*the GPU or its driver fail|does not start)",
    ):
        Predictor.from_engine(engine, cuda=HostCuda())


@pytest.fixture(
    params=[
        pytest.param("tensorrt", marks=[pytest.mark.tensorrt, pytest.mark.gpu]),
        pytest.param("tensorrt_rtx", marks=pytest.mark.gpu),
    ]
)
def trt(request):
    """The real module, where there is a GPU for it."""
    if not machine.gpus():
        pytest.skip("there is no NVIDIA GPU")
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return importlib.import_module(request.param)


@pytest.mark.parametrize("options", [{}, {"head": "labels"}, {"half": "out"}])
def test_on_a_gpu_all_ways_give_the_same(trt, tiny_model, blocks, options):
    """From the host and on the GPU, first and as a graph, alone and in a batch."""
    onnx = tiny_model(**options)
    images = [blocks(SIZE, seed) for seed in range(4)]
    with Predictor.from_onnx(onnx, "onnxruntime", "cpu") as predictor:
        wanted = [predictor.predict(image).labels for image in images]
    cuda = open_cuda()
    with (
        warnings.catch_warnings(),
        Predictor.from_engine(build(trt, onnx), cuda=cuda) as predictor,
    ):
        warnings.simplefilter("error")  # a capture that fails
        for _ in range(3):
            found = [predictor.predict(image).labels for image in images]
            for one, labels in zip(found, wanted, strict=True):
                assert (one == labels).mean() > 0.99
        together = [prediction.labels for prediction in predictor.predict_batch(images)]
        np.testing.assert_array_equal(together, found)
        with cuda.current():
            stream, memory = cuda.stream(), cuda.allocate(images[0].nbytes)
            pinned = cuda.pinned(images[0].nbytes)
            pinned.array[:] = images[0].ravel()
            cuda.copy_in(memory.address, pinned.array, stream)

        class Frame:
            shape = images[0].shape
            __cuda_array_interface__ = {  # noqa: RUF012 - read only
                "shape": images[0].shape,
                "typestr": "|u1",
                "data": (memory.address, True),
                "version": 3,
                "stream": stream.handle,
            }

        left = predictor.predict(Frame(), on_device=True).labels
        np.testing.assert_array_equal(left.to_host(), found[0])


def test_on_a_gpu_predictors_run_in_threads(trt, tiny_model, blocks):
    engine = build(trt, tiny_model())
    images = [blocks(SIZE, seed) for seed in range(3)]
    predictors = [Predictor.from_engine(engine) for _ in range(3)]
    wanted = [predictors[0].predict(image).labels for image in images]
    wrong = []

    def work(index):
        found = [predictors[index].predict(images[index]).labels for _ in range(50)]
        wrong.extend(index for labels in found if (labels != wanted[index]).any())

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for predictor in predictors:
        predictor.close()
    assert not wrong
