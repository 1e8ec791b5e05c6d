"""Every use of TensorRT in our code is in both recorded releases, with those arguments."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from fake_tensorrt import RELEASES, load_surface
from usage import problem, uses

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"][
    "package-dir"
]

# What only TensorRT-RTX has, used where it was told apart: (owner, member) -> why it is needed.
ONLY_RTX = {
    ("", "ComputeCapability"): "names the GPUs to build for, in place of the one that is here",
    ("IBuilderConfig", "num_compute_capabilities"): "the same",
    ("IBuilderConfig", "set_compute_capability"): "the same",
}


def ours():
    """(file, text) of the product's code that speaks of TensorRT."""
    for folder in FOLDERS.values():
        for file in sorted((ROOT / folder).rglob("*.py")):
            text = file.read_text(encoding="utf-8")
            if "trt" in text or "import tensorrt" in text:
                yield file.relative_to(ROOT).as_posix(), text


def found(release):
    surface = load_surface(release)
    return {use for name, text in ours() for use in uses(text, name, surface)}


@pytest.mark.parametrize("release", RELEASES)
def test_every_use_is_there(release):
    surface = load_surface(release)
    wrong = [
        f"{use.where}: {why}"
        for use in found(release)
        if (why := problem(use, surface)) and (use.owner, use.member) not in ONLY_RTX
    ]
    assert wrong == []


def test_what_only_rtx_has_is_used_and_there():
    assert {(use.owner, use.member) for use in found("11.4")} >= set(ONLY_RTX)
    rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    for owner, member in ONLY_RTX:
        assert hasattr(getattr(rtx, owner) if owner else rtx, member)


@pytest.mark.parametrize("release", RELEASES)
def test_the_check_sees_what_matters(release):
    """It would pass if it followed nothing."""
    seen = {str(use) for use in found(release) if use.call or use.write or "." not in str(use)}
    assert seen >= {
        "Builder",
        "Builder.build_serialized_network",
        "Builder.create_network",
        "EngineInspector.get_engine_information",
        "IBuilderConfig.add_optimization_profile",
        "IBuilderConfig.hardware_compatibility_level",
        "IBuilderConfig.progress_monitor",
        "IBuilderConfig.set_memory_pool_limit",
        "IBuilderConfig.set_timing_cache",
        "ICudaEngine.create_engine_inspector",
        "IOptimizationProfile.set_shape",
        "ITimingCache.serialize",
        "OnnxParser.parse_from_file",
        "ParserError.node_name",
        "Runtime.deserialize_cuda_engine",
    }


WRONG = {
    "a name": "trt.Bilder(log)",
    "an enum's member": "trt.BuilderFlag.INT9",
    "an enum's member by getattr": "getattr(trt.BuilderFlag, 'INT9')",
    "a constant": "trt.float17",
    "a method": "trt.Builder(log).create_net(0)",
    "a method of an argument": "def f(config: Any): config.set_flags(1)",
    "a method of a function's argument": "def f(x): x.run(1)\nf(trt.Runtime(log))",
    "a method of a result": "def f(): return trt.Runtime(log)\nf().load(1)",
    "a method of an attribute": "class A:\n def f(self):\n  self.b = trt.Builder(log)\n"
    " def g(self): self.b.reset(1)",
    "a method of a constructor's argument": "class A:\n def __init__(self, raw): self.raw = raw\n"
    " def f(self): self.raw.nothing()\nA(trt.Runtime(log).deserialize_cuda_engine(b''))",
    "a method of one of a list": "def f(engine: Any):\n"
    " for dims in engine.get_tensor_profile_shape('x', 0): dims.volume()",
    "too many arguments": "trt.Runtime(log).deserialize_cuda_engine(b'', 1)",
    "too few arguments": "trt.Builder()",
    "an argument's name": "trt.Builder(log=log)",
    "a property called": "def f(engine: Any): engine.num_io_tensors()",
    "a property that is read only": "def f(engine: Any): engine.num_layers = 1",
    "a property that is write only": "b = trt.Builder(log)\nprint(b.gpu_allocator)",
    "a property that is not there": "def f(config: Any): config.max_workspace_size = 1",
    "a constructor that is not there": "trt.ICudaEngine()",
    "a base": "class A(trt.ILoger): pass",
    "a base's method": "class A(trt.ILogger):\n def __init__(self): trt.ILogger.__init__(self, 1)",
    "a module's attribute": "class A:\n def f(self): return self._trt.Loger()",
    "an import": "import tensorrt\ntensorrt.Loger()",
    "a nested enum": "trt.ILogger.Severity.FATAL",
    "in a comprehension": "p = trt.OnnxParser(n, log)\n[p.get_error(i).text() for i in range(2)]",
    "in a branch": "e = trt.Runtime(log) if x else None\ne.nothing",
    "after a walrus": "if (c := trt.Builder(log).create_builder_config()): c.nothing()",
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("release", RELEASES)
def test_it_catches(release, what):
    surface = load_surface(release)
    assert [u for u in uses(WRONG[what], "bad.py", surface) if problem(u, surface)] != []


@pytest.mark.parametrize(
    ("source", "gone"),
    [
        ("trt.BuilderFlag.FP16", "11.4"),
        ("def f(engine: Any): engine.device_memory_size", "11.4"),
        ("p = trt.OnnxParser(n, log)\np.supports_model(b'')", "11.4"),
        ("def f(config: Any): config.build_route = ''", "10.16"),
    ],
)
def test_it_catches_what_one_release_lacks(source, gone):
    for release in RELEASES:
        surface = load_surface(release)
        bad = [u for u in uses(source, "bad.py", surface) if problem(u, surface)]
        assert bool(bad) == (release == gone)


GOOD = """
import tensorrt as trt

def f(engine: Any, stream):
    context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.STATIC)
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
            context.set_input_shape(name, tuple(engine.get_tensor_shape(name)))
        context.set_tensor_address(name, memory=256)
    dtype = trt.nptype(engine.get_tensor_dtype("image").name and trt.float16)
    context.profiler = None
    return context.execute_async_v3(stream_handle=stream), trt.Logger.WARNING, trt.__version__
"""


@pytest.mark.parametrize("release", RELEASES)
def test_it_passes_good_code(release):
    surface = load_surface(release)
    seen = uses(GOOD, "good.py", surface)
    assert [problem(use, surface) for use in seen if problem(use, surface)] == []
    assert len(seen) > 12
