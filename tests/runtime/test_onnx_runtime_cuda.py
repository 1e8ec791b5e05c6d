"""ONNX Runtime on NVIDIA: what it is asked for, and what it answers, with a stand-in for its CUDA.

The stand-in is ONNX Runtime itself, whose CPU takes the name of CUDA: bindings, memory kept from
run to run and results are real.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import numpy as np
import onnxruntime as real
import pytest
from backend_contract import BackendContract

from icnet_deploy.errors import BackendError, DeviceError, InputError
from icnet_deploy.runtime import Predictor, choose, open_backend
from icnet_deploy.runtime.backends.onnxruntime import session as onnx_runtime

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
SIZE = (64, 96)


class Values:
    """`OrtValue` with the memory of "CUDA" on the CPU."""

    made: list[tuple[int, ...]] = []  # noqa: RUF012 - cleared by the fixture

    @classmethod
    def ortvalue_from_numpy(cls, array, device, index):
        assert (device, index) == ("cuda", 0)
        cls.made.append(array.shape)
        return real.OrtValue.ortvalue_from_numpy(array.copy(), "cpu", 0)  # as CUDA has its own

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape, kind, device, index):
        assert (device, index) == ("cuda", 0)
        return real.OrtValue.ortvalue_from_shape_and_type(shape, kind, "cpu", 0)


class Binding:
    """A session's binding, with outputs of "CUDA" on the CPU."""

    def __init__(self, binding):
        self._binding = binding

    def __getattr__(self, name):
        return getattr(self._binding, name)

    def bind_output(self, name, device, index):
        assert (device, index) == ("cuda", 0)
        self._binding.bind_output(name, "cpu", 0)

    def copy_outputs_to_cpu(self):
        """Of CUDA's memory it makes copies, of the CPU's it hands out the memory itself."""
        return [value.copy() for value in self._binding.copy_outputs_to_cpu()]


@pytest.fixture
def standin(monkeypatch, without, tmp_path):
    """Puts the stand-in in ONNX Runtime's place; says what it offers and what it was asked.

    The files of its CUDA provider are there, so that `auto` tries it.
    """
    machine = SimpleNamespace(
        offered=[CUDA, CPU], given=None, asked=[], refuse_graphs=False, fail_runs=()
    )

    class Session(real.InferenceSession):
        def __init__(self, model, options, providers, **others):
            self.place = len(machine.asked)
            machine.asked.append((options, providers, others))
            told = [p if isinstance(p, str) else p[0] for p in providers]
            self.told = machine.given or [*told, CPU]
            graph = not isinstance(providers[0], str) and "enable_cuda_graph" in providers[0][1]
            if graph and machine.refuse_graphs:
                raise RuntimeError("not all nodes are on CUDA")
            plain = real.SessionOptions()
            plain.log_severity_level = 4
            for name, side in options.fixed.items():
                plain.add_free_dimension_override_by_name(name, side)
            super().__init__(model, plain, [CPU])

        def get_providers(self):
            return self.told

        def io_binding(self):
            return Binding(super().io_binding())

        def run_with_iobinding(self, binding):
            if self.place in machine.fail_runs:
                raise RuntimeError("CUDA failure 901")
            super().run_with_iobinding(binding._binding)

    class Options(real.SessionOptions):
        def __init__(self):
            super().__init__()
            self.entries, self.fixed = {}, {}

        def add_free_dimension_override_by_name(self, name, side):
            self.fixed[name] = side

        def add_session_config_entry(self, key, value):
            self.entries[key] = value

    module = SimpleNamespace(
        **{name: getattr(real, name) for name in ("ExecutionMode", "GraphOptimizationLevel")},
        SessionOptions=Options,
        InferenceSession=Session,
        OrtValue=Values,
        __spec__=ModuleSpec("onnxruntime", None, is_package=True),
        set_default_logger_severity=lambda severity: None,
        get_available_providers=lambda: machine.offered,
        preload_dlls=lambda: None,
    )
    Values.made.clear()
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    without("openvino")
    library = tmp_path / "package" / "capi" / "libonnxruntime_providers_cuda.so"
    library.parent.mkdir(parents=True)
    library.touch()
    module.__spec__.submodule_search_locations.append(str(tmp_path / "package"))
    onnx_runtime.cuda_works.cache_clear()
    yield machine
    onnx_runtime.cuda_works.cache_clear()


def on_the_cpu(path, images):
    backend = onnx_runtime.OnnxRuntimeBackend(real.InferenceSession(path, providers=[CPU]))
    return [backend.run({"image": image[None]})["logits"] for image in images]


def test_a_provider_that_is_not_compiled_in_is_an_error(standin, tiny_model):
    standin.offered = [CPU]
    with pytest.raises(DeviceError, match="no CUDA provider"):
        open_backend("onnxruntime", tiny_model(), "cuda")
    assert not standin.asked


def test_cuda_answered_by_the_cpu_is_an_error(standin, tiny_model):
    standin.given = [CPU]
    with pytest.raises(DeviceError, match=r"asked for CUDA .*but ONNX Runtime uses \['CPUExec"):
        open_backend("onnxruntime", tiny_model(), "cuda")


def test_cuda_is_asked_for_without_a_way_back(standin, tiny_model):
    open_backend("onnxruntime", tiny_model(), "cuda", threads=3)
    (options, providers, others), graph = standin.asked
    for each, *_ in (options,), graph:
        assert each.entries == {"session.disable_cpu_ep_fallback": "1"}
        assert each.intra_op_num_threads == 3
    assert providers == [(CUDA, onnx_runtime.CUDA_OPTIONS)]
    assert (providers[0][1]["use_tf32"], providers[0][1]["prefer_nhwc"]) == ("0", "1")
    assert others == {"enable_fallback": 0}


def test_tf32_is_a_choice(standin, tiny_model):
    with Predictor.from_onnx(tiny_model(), "onnxruntime", "cuda", tf32=True):
        assert standin.asked[0][1][0][1]["use_tf32"] == "1"
    with pytest.raises(InputError, match="TF32 is for runtime 'onnxruntime' on 'cuda'"):
        Predictor.from_onnx(tiny_model(), "onnxruntime", "cpu", tf32=True)


class TestBinding(BackendContract):
    @pytest.fixture
    def opened(self, standin, tiny_model):
        return open_backend("onnxruntime", tiny_model(), "cuda")

    @pytest.mark.parametrize("batch", [None, 1])
    def test_results_are_the_cpus_and_the_callers(self, standin, tiny_model, blocks, batch):
        """The memory of the first run is used again; what it gave is not written over."""
        path = tiny_model(batch=batch)
        images = [blocks(SIZE, seed) for seed in range(3)]
        backend = open_backend("onnxruntime", path, "cuda")
        found = [backend.run({"image": image[None]})["logits"] for image in images]
        np.testing.assert_array_equal(found, on_the_cpu(path, images))
        assert Values.made == [(1, *SIZE, 3)]

    def test_another_shape_is_bound_anew(self, standin, tiny_model, blocks):
        path = tiny_model(size=None)
        images = [blocks(size, 1) for size in (SIZE, (100, 72), SIZE)]
        backend = open_backend("onnxruntime", path, "cuda")
        for image, wanted in zip(images, on_the_cpu(path, images), strict=True):
            np.testing.assert_array_equal(backend.run({"image": image[None]})["logits"], wanted)
        assert len(Values.made) == 3


def ran(backend, images):
    return backend.run({"image": np.stack(images)})["logits"]


class TestGraphs:
    @pytest.mark.parametrize("options", [{"batch": 1}, {}, {"half": "out"}])
    def test_one_image_is_a_graph(self, standin, tiny_model, options):
        """Its sides are all fixed, as ONNX Runtime's CPU works them out, too."""
        backend = open_backend("onnxruntime", tiny_model(**options), "cuda")
        options, providers, _ = standin.asked[-1]
        assert providers[0][1]["enable_cuda_graph"] == "1"
        assert len(options.fixed) == (backend.inputs[0].shape[0] is None)
        assert all(None not in spec.shape for spec in backend._graph.outputs)

    def test_free_sides_are_none(self, standin, tiny_model):
        open_backend("onnxruntime", tiny_model(size=None), "cuda")
        assert ["enable_cuda_graph" in asked[1][0][1] for asked in standin.asked] == [False]

    def test_more_images_open_a_session_without_one(self, standin, tiny_model, blocks):
        path, images = tiny_model(), [blocks(SIZE, seed) for seed in range(3)]
        wanted = np.concatenate(on_the_cpu(path, images))
        backend = open_backend("onnxruntime", path, "cuda")
        assert backend.inputs[0].shape == (None, *SIZE, 3)
        for first, last in ((0, 1), (0, 3), (2, 3), (1, 3)):
            found = ran(backend, images[first:last])
            np.testing.assert_allclose(found, wanted[first:last], atol=1e-5)
        assert ["enable_cuda_graph" in asked[1][0][1] for asked in standin.asked] == [0, 1, 0]
        backend.close()
        with pytest.raises(BackendError, match="closed"):
            ran(backend, images)

    @pytest.mark.parametrize("batch", [None, 1])
    def test_where_there_can_be_none_it_says_so_and_runs(self, standin, tiny_model, blocks, batch):
        standin.refuse_graphs = True
        path, image = tiny_model(batch=batch), blocks(SIZE)
        with pytest.warns(RuntimeWarning, match="without a CUDA graph.*not all nodes"):
            backend = open_backend("onnxruntime", path, "cuda")
        np.testing.assert_array_equal(ran(backend, [image]), on_the_cpu(path, [image])[0])

    @pytest.mark.parametrize("batch", [None, 1])
    def test_a_capture_that_fails_is_given_up(self, standin, tiny_model, blocks, batch):
        standin.fail_runs = (1,)
        path, image = tiny_model(batch=batch), blocks(SIZE)
        backend = open_backend("onnxruntime", path, "cuda")
        with pytest.warns(RuntimeWarning, match="without a CUDA graph.*failure 901"):
            found = ran(backend, [image])
        np.testing.assert_array_equal(found, on_the_cpu(path, [image])[0])
        np.testing.assert_array_equal(ran(backend, [image]), found)  # and no warning, an error here
        assert len(standin.asked) == 3

    def test_a_graph_that_ran_and_fails_is_an_error(self, standin, tiny_model, blocks):
        backend = open_backend("onnxruntime", tiny_model(), "cuda")
        ran(backend, [blocks(SIZE)])
        standin.fail_runs = (1,)
        with pytest.raises(BackendError, match="failure 901"):
            ran(backend, [blocks(SIZE)])
        assert len(standin.asked) == 2

    def test_no_session_behind_it_is_an_error_of_the_run(self, standin, tiny_model, blocks):
        backend = open_backend("onnxruntime", tiny_model(), "cuda")
        standin.given = [CPU]
        with pytest.raises(BackendError, match="but ONNX Runtime uses"):
            ran(backend, [blocks(SIZE)] * 2)


class TestInt8:
    """ONNX Runtime has no integer convolution on CUDA."""

    def test_asked_for_it_is_refused(self, standin, tiny_model):
        path = tiny_model(describe={"precision": "int8-ort"})
        with pytest.raises(InputError, match=r"is int8-ort, and .*use an fp16 artefact"):
            Predictor.from_onnx(path, "onnxruntime", "cuda")

    def test_auto_takes_the_cpu(self, standin, tiny_model):
        with Predictor.from_onnx(tiny_model(), "onnxruntime") as predictor:
            assert predictor.device == "cuda"
        path = tiny_model(describe={"precision": "int8"})
        with Predictor.from_onnx(path, "onnxruntime") as predictor:
            assert predictor.device == "cpu"


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"batch": 1}, {"half": "out"}])
def test_on_a_gpu_it_agrees_with_the_cpu(tiny_model, blocks, options):
    if not onnx_runtime.cuda_works():
        pytest.skip("ONNX Runtime runs nothing on CUDA here")
    path = tiny_model(**options)
    images = [blocks(SIZE, seed) for seed in range(3)]
    backend = open_backend("onnxruntime", path, "cuda")
    for image, wanted in zip(images, on_the_cpu(path, images), strict=True):
        for _ in range(3):  # the second and third run of a graph are replays
            found = backend.run({"image": image[None]})["logits"]
            np.testing.assert_allclose(found, wanted, atol=1e-3 if "half" not in options else 0.5)


def test_cuda_on_this_machine_works_or_is_an_error(tiny_model):
    if onnx_runtime.cuda_works():
        pytest.skip("this machine has a CUDA that works")
    with pytest.raises(DeviceError, match="CUDA"):
        open_backend("onnxruntime", tiny_model(), "cuda")
    assert choose("onnxruntime", "auto") == ("onnxruntime", "cpu")


def test_the_probe_is_a_convolution_that_runs():
    session = onnx_runtime.open_session(onnx_runtime._PROBE, [CPU], 1)
    backend = onnx_runtime.OnnxRuntimeBackend(session)
    seven = np.full((1, 1, 1, 1), 7, np.float32)
    assert backend.run({"x": seven})["y"] == seven
