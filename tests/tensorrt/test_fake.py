"""The fake is as strict as what it stands for: a test that passes on it says something."""

from __future__ import annotations

import json
import struct
import threading

import numpy as np
import pytest
from fake_tensorrt import Fault, Machine, load_surface, make_fake

SHAPES = ((1, 8, 16, 3), (2, 8, 16, 3), (4, 8, 16, 3))


class Log:
    """Collects what a fake logs."""

    def __new__(cls, trt):
        class Collect(trt.ILogger):
            def __init__(self):
                super().__init__()
                self.lines = []

            def log(self, severity, msg):
                self.lines.append((severity.name, msg))

        return Collect()


def build(trt, model, logger=None, shapes=SHAPES, setting=lambda config: None, flags=None):
    """Builds as the product does, in few lines; returns the plan or None."""
    logger = logger or trt.Logger(trt.Logger.INTERNAL_ERROR)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    builder = trt.Builder(logger)
    network = builder.create_network(typed if flags is None else flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        return None
    config = builder.create_builder_config()
    setting(config)
    if shapes:
        profile = builder.create_optimization_profile()
        profile.set_shape("image", *shapes)
        assert config.add_optimization_profile(profile) == 0
    return builder.build_serialized_network(network, config)


@pytest.fixture
def log(trt):
    return Log(trt)


@pytest.fixture
def context(trt, model, log):
    engine = trt.Runtime(log).deserialize_cuda_engine(build(trt, model(), log))
    return engine.create_execution_context()


@pytest.fixture
def memory():
    """Hands out arrays at addresses that are multiples of 256, kept alive by the test."""
    held = []

    def take(count, dtype=np.uint8):
        room = np.zeros(count * np.dtype(dtype).itemsize + 256, np.uint8)
        start = -room.ctypes.data % 256
        held.append(room)
        return room[start : start + count * np.dtype(dtype).itemsize].view(dtype)

    return take


@pytest.mark.parametrize("release", ["10.16", "11.4"])
def test_the_module_is_its_surface(release):
    trt, surface = make_fake(release), load_surface(release)
    for name, members in surface["enums"].items():
        enum = trt
        for part in name.split("."):
            enum = getattr(enum, part)
        assert {k: int(v) for k, v in enum.__members__.items()} == members
    for name, about in surface["classes"].items():
        cls = getattr(trt, name)
        tables = (about.get("methods", {}), about.get("properties", {}))
        assert [m for table in tables for m in table if not hasattr(cls, m)] == []
    public = {n for n in vars(trt) if not n.startswith("_")} - {"machine"}
    top = {n for n in surface["enums"] if "." not in n}
    assert public == {*surface["functions"], *surface["constants"], *surface["classes"], *top}


def test_releases_differ_as_the_real_ones():
    ten, eleven = make_fake("10.16"), make_fake("11.4")
    flags = [int(t.NetworkDefinitionCreationFlag.STRONGLY_TYPED) for t in (ten, eleven)]
    assert flags == [1, 0]
    assert hasattr(ten.BuilderFlag, "FP16")
    assert not hasattr(eleven.BuilderFlag, "FP16")
    assert ten.float16 == ten.DataType.HALF
    assert ten.float16 is not ten.DataType.HALF

    assert ten.DataType.HALF != 1


WRONG = [
    (lambda trt, c: c.execute_async_v2(1), AttributeError),
    (lambda trt, c: c.execute_async_v3(), TypeError),
    (lambda trt, c: c.execute_async_v3(1, 2), TypeError),
    (lambda trt, c: c.execute_async_v3(stream=1), TypeError),
    (lambda trt, c: c.set_tensor_address("image", 1.0), TypeError),
    (lambda trt, c: c.set_tensor_address(b"image", 256), TypeError),
    (lambda trt, c: c.set_input_shape("image", "1x8"), TypeError),
    (lambda trt, c: setattr(c, "stream", 1), AttributeError),
    (lambda trt, c: setattr(c.engine, "num_layers", 1), AttributeError),
    (lambda trt, c: c.engine.create_execution_context(1), TypeError),
    (lambda trt, c: trt.ICudaEngine(), TypeError),
    (lambda trt, c: trt.Runtime("log"), TypeError),
    (lambda trt, c: trt.Runtime(c.engine), TypeError),
    (lambda trt, c: trt.BuilderFlag.INT9, AttributeError),
    (lambda trt, c: trt.OnnxParserr, AttributeError),
    (lambda trt, c: trt.nptype(trt.DataType.FP8), TypeError),
    (lambda trt, c: trt.Dims([1]) == trt.Dims([1]), TypeError),
    (lambda trt, c: len(c.engine.serialize()), NotImplementedError),
    (lambda trt, c: 1 << trt.BuilderFlag.TF32, TypeError),
]


@pytest.mark.parametrize("index", range(len(WRONG)))
def test_a_wrong_use_is_refused(trt, context, index):
    use, error = WRONG[index]
    with pytest.raises(error):
        use(trt, context)


def test_a_subclass_calls_the_base(trt):
    class Forgets(trt.IProgressMonitor):
        def __init__(self):
            pass

    with pytest.raises(TypeError, match=r"__init__\(\) must be called"):
        Forgets()


def test_it_computes_with_onnx_runtime(trt, context, memory):
    engine, image, logits = context.engine, memory(2 * 8 * 16 * 3), memory(2 * 4 * 8 * 16, "f4")
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    assert names == ["image", "logits"]
    assert [engine.get_tensor_mode(n).name for n in names] == ["INPUT", "OUTPUT"]
    assert engine.get_tensor_dtype("image") == trt.uint8
    assert tuple(engine.get_tensor_shape("image")) == (-1, 8, 16, 3)
    assert [tuple(s) for s in engine.get_tensor_profile_shape("image", 0)] == list(SHAPES)
    assert context.infer_shapes() == ["image"]
    assert context.set_input_shape("image", (2, 8, 16, 3))
    assert tuple(context.get_tensor_shape("logits")) == (2, 4, 8, 16)
    image[:] = np.arange(image.size) % 251
    assert context.set_tensor_address("image", image.ctypes.data)
    assert context.set_tensor_address("logits", logits.ctypes.data)
    assert context.execute_async_v3(1)
    pixels = image.reshape(2, 8, 16, 3).transpose(0, 3, 1, 2).astype(np.float32)
    weights = np.arange(12, dtype=np.float32).reshape(4, 3) / 12
    expected = np.einsum("oc,nchw->nohw", weights, pixels)
    np.testing.assert_allclose(logits.reshape(expected.shape), expected, rtol=1e-5)


def test_refusals_of_a_context_are_values_and_a_line(context, log, memory):
    room = memory(4096)
    assert not context.execute_async_v3(1)
    assert not context.set_input_shape("image", (5, 8, 16, 3))
    assert not context.set_input_shape("image", (1, 8, 16))
    assert not context.set_input_shape("logits", (1, 8, 16, 3))
    assert context.set_input_shape("image", (1, 8, 16, 3))
    assert not context.set_tensor_address("image", room.ctypes.data + 128)
    assert not context.set_tensor_address("images", room.ctypes.data)
    assert context.set_tensor_address("image", room.ctypes.data)
    assert not context.execute_async_v3(1)
    assert not context.set_optimization_profile_async(1, 1)
    assert len([line for severity, line in log.lines if severity == "ERROR"]) == 8
    assert "['logits'] was not set" in log.lines[-2][1]


def test_work_goes_where_the_test_sends_it(trt, context, memory):
    done, image, logits = [], memory(8 * 16 * 3), memory(4 * 8 * 16, "f4")
    trt.machine.enqueue = lambda stream, work: done.append((stream, work))
    image[:] = 1
    context.set_input_shape("image", (1, 8, 16, 3))
    context.set_tensor_address("image", image.ctypes.data)
    context.set_tensor_address("logits", logits.ctypes.data)
    assert context.execute_async_v3(5)
    assert not logits.any()
    [(stream, work)] = done
    work()
    assert stream == 5
    assert logits.any()

    def check(address, size, written):
        raise Fault(f"{size} bytes")

    trt.machine.check = check
    with pytest.raises(Fault, match="384 bytes"):
        work()


def test_two_threads_on_one_context_are_a_fault(trt, context, memory):
    inside, go = threading.Event(), threading.Event()
    trt.machine.enqueue = lambda stream, work: (inside.set(), go.wait(10))
    context.set_input_shape("image", (1, 8, 16, 3))
    for name in ("image", "logits"):
        context.set_tensor_address(name, memory(2048).ctypes.data)
    thread = threading.Thread(target=context.execute_async_v3, args=(1,))
    thread.start()
    assert inside.wait(10)
    with pytest.raises(Fault, match="two threads"):
        context.execute_async_v3(1)
    go.set()
    thread.join()


def test_a_plan_has_the_real_header(trt, model):
    plan = bytes(build(trt, model()))
    version = [int(part) & 255 for part in trt.__version__.split(".")]
    assert struct.unpack_from("<I", plan)[0] == 0x74727466
    assert list(plan[24:28]) == version


def test_another_version_refuses_a_plan(model):
    ten, eleven = make_fake("10.16"), make_fake("11.4")
    log = Log(eleven)
    assert eleven.Runtime(log).deserialize_cuda_engine(bytes(build(ten, model()))) is None
    assert "expecting library version 11.4.0.106 got 10.16.1.11, please rebuild" in log.lines[0][1]


def test_a_version_compatible_plan_wants_host_code(model):
    ten, eleven = make_fake("10.16"), make_fake("11.4")
    plan = bytes(
        build(ten, model(), setting=lambda c: c.set_flag(ten.BuilderFlag.VERSION_COMPATIBLE))
    )
    runtime = eleven.Runtime(Log(eleven))
    assert runtime.deserialize_cuda_engine(plan) is None
    runtime.engine_host_code_allowed = True
    assert runtime.deserialize_cuda_engine(plan) is not None


@pytest.mark.parametrize(("level", "loads"), [("NONE", False), ("AMPERE_PLUS", True)])
def test_another_gpu_refuses_a_plan_unless_it_is_compatible(model, level, loads):
    here, there = make_fake("11.4"), make_fake("11.4", Machine(compute=(8, 9)))

    def setting(config):
        config.hardware_compatibility_level = getattr(here.HardwareCompatibilityLevel, level)

    log, plan = Log(there), bytes(build(here, model(), setting=setting))
    assert (there.Runtime(log).deserialize_cuda_engine(plan) is not None) == loads
    assert loads or "expecting compute 8.9 got compute 8.6, please rebuild" in log.lines[0][1]


@pytest.mark.parametrize("plan", [b"", b"vtrt" + bytes(60), b"ftrt"])
def test_rubbish_is_no_plan(trt, plan):
    assert trt.Runtime(Log(trt)).deserialize_cuda_engine(plan) is None


def test_a_cut_plan_is_refused(trt, model):
    plan = bytes(build(trt, model()))
    assert trt.Runtime(Log(trt)).deserialize_cuda_engine(plan[:40]) is None


def test_builds_that_fail_are_none(trt, model, log):
    assert build(trt, model(), log, shapes=None) is None
    assert "no optimization profile" in log.lines[-1][1]
    assert build(trt, model(), log, shapes=[(1, 9, 16, 3)] * 3) is None
    assert build(trt, model(batch=1), log, shapes=None) is not None


def test_a_profile_that_is_no_range_is_false(trt):
    profile = trt.Builder(Log(trt)).create_optimization_profile()
    profile.set_shape("image", (4, 8), (2, 8), (4, 8))
    assert not profile
    with pytest.raises(RuntimeError, match="inconsistent"):
        profile.set_shape("image", (4,), (2, 8), (4, 8))


def test_a_network_of_10_is_strongly_typed_only_when_asked(model):
    for release, typed in (("10.16", False), ("11.4", True)):
        trt = make_fake(release)
        build(trt, model(), flags=0)
        assert trt.machine.builds[-1]["strongly_typed"] == typed


def test_a_monitor_stops_a_build_and_its_errors_stop_it_too(trt, model, log, capsys):
    class Monitor(trt.IProgressMonitor):
        def __init__(self, answer):
            super().__init__()
            self.answer, self.finished = answer, []

        def phase_start(self, phase_name, parent_phase, num_steps):
            pass

        def step_complete(self, phase_name, step):
            return self.answer()

        def phase_finish(self, phase_name):
            self.finished.append(phase_name)

    def with_monitor(answer):
        monitor = Monitor(answer)
        return build(trt, model(), log, setting=lambda c: setattr(c, "progress_monitor", monitor))

    assert with_monitor(lambda: True) is not None
    assert with_monitor(lambda: False) is None
    assert with_monitor(lambda: 1 / 0) is None
    assert "division by zero" in capsys.readouterr().err


def test_a_timing_cache_saves_the_timing_and_is_kept_to_its_device(trt, model, log):
    caches = [b""]

    def setting(config):
        cache = config.create_timing_cache(caches[-1])
        assert config.set_timing_cache(cache, False)
        caches.append(lambda: bytes(config.get_timing_cache().serialize()))

    build(trt, model(), log, setting=setting)
    caches.append(caches[-1]())
    build(trt, model(), log, setting=setting)
    assert [b["timed"] for b in trt.machine.builds] == [3, 0]
    config = trt.Builder(log).create_builder_config()
    assert config.create_timing_cache(b"rubbish") is None
    trt.machine.compute = (9, 0)
    assert not config.set_timing_cache(config.create_timing_cache(caches[2]), False)


def test_the_inspector_tells_what_runs_in_what(trt, model, log):
    def detailed(config):
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED

    engine = trt.Runtime(log).deserialize_cuda_engine(build(trt, model(), log, setting=detailed))
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    report = json.loads(text)
    layers = {layer["Name"]: layer["Inputs"][0]["Format/Datatype"] for layer in report["Layers"]}
    assert layers == {"cast": "UInt8", "transpose": "Float", "conv": "Float"}
    assert ("I/O Tensors" in report) == trt.__version__.startswith("11.")


def test_what_is_freed_is_counted(trt, context):
    assert trt.machine.live == {"engines": 1, "contexts": 1}
    other = context.engine.create_execution_context()
    assert trt.machine.live["contexts"] == 2
    del other
    assert trt.machine.live["contexts"] == 1
