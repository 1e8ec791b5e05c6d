"""How a fake's engines load and run: with ONNX Runtime, on memory of this process."""

import ctypes
import json
import threading
import weakref
from functools import partial
from types import SimpleNamespace

import numpy as np
import onnx

from fake_tensorrt.machine import Fault
from fake_tensorrt.operators import describe, ends
from fake_tensorrt.plan import information, numbers, read_plan

ALIGNMENT = 256
"""What `setTensorAddress` in NvInferRuntime.h asks for."""

DTYPES = {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32}
DTYPES |= {"INT64": np.int64, "BOOL": np.bool_, "UINT8": np.uint8}


def _nptype(fake, trt_type):
    if trt_type.name not in DTYPES:
        raise TypeError(f"Could not resolve TensorRT datatype to an equivalent numpy: {trt_type}")
    return DTYPES[trt_type.name]


def _volume(fake, iterable):
    return int(np.prod(tuple(iterable), dtype=np.int64))


# -- Runtime


def new_on_gpu(fake, this, logger):
    """A builder or a runtime, which there is on a machine with a GPU only."""
    fake.module.machine.require_gpu()
    this._state = SimpleNamespace(logger=logger)


def _deserialize(fake, this, serialized_engine=None, **readers):
    if serialized_engine is None:
        raise NotImplementedError("the fake reads plans from memory only")
    where = "IRuntime::deserializeCudaEngine: Error Code"
    try:
        version, about, model = read_plan(serialized_engine)
    except ValueError as error:
        return fake.refuse(this, f"{where} 1: Serialization ({error})")
    if problem := _incompatible(fake, this._state, version, about):
        return fake.refuse(this, f"{where} 6: API Usage Error ({problem})")
    return _new_engine(fake, this, about, model)


def _incompatible(fake, runtime, version, about):
    """Why the real one would not load the plan; None where it would."""
    here = numbers(fake.module.__version__)
    if about["version_compatible"]:
        if not getattr(runtime, "engine_host_code_allowed", False):
            return "the engine contains host code, which engineHostCodeAllowed forbids"
        if version > here:
            return f"a version compatible plan of {version}, newer than {here}"
    elif version != here:
        shown = [".".join(map(str, v)) for v in (here, version)]
        return (
            "The engine plan file is not compatible with this version of TensorRT, expecting "
            f"library version {shown[0]} got {shown[1]}, please rebuild."
        )
    built, compute = tuple(about["compute"]), fake.module.machine.compute
    fits = {
        "NONE": built == compute,
        "AMPERE_PLUS": compute >= (8, 0),
        "SAME_COMPUTE_CAPABILITY": built == compute,
    }
    if not fits[about["hardware_compatibility_level"]]:
        return (
            "The engine plan file is generated on an incompatible device, expecting compute "
            f"{compute[0]}.{compute[1]} got compute {built[0]}.{built[1]}, please rebuild."
        )
    return None


# -- ICudaEngine


def _new_engine(fake, runtime, about, model):
    """An engine over an ONNX file; it keeps its runtime alive, as the real one does."""
    graph = onnx.load_from_string(model).graph
    inputs, outputs = ends(graph)
    made = fake.new(
        "ICudaEngine",
        runtime=runtime,
        logger=runtime._state.logger,
        about=about,
        graph=graph,
        model=model,
        inputs={v.name: describe(v) for v in inputs},
        outputs={v.name: describe(v) for v in outputs},
        session=None,
        lock=threading.Lock(),
        shapes={},
    )
    return _counted(fake, made, "engines")


def _counted(fake, made, kind):
    live = fake.module.machine.live
    live.update([kind])
    weakref.finalize(made, live.subtract, [kind])
    return made


def _session(engine):
    with engine.lock:
        if engine.session is None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 4
            engine.session = onnxruntime.InferenceSession(
                engine.model, options, providers=["CPUExecutionProvider"]
            )
        return engine.session


def _tensor(fake, this, name):
    """(mode, dtype, shape) of a tensor; of an unknown name an error in the log and defaults."""
    for mode, tensors in (("INPUT", this._state.inputs), ("OUTPUT", this._state.outputs)):
        if name in tensors:
            return mode, *tensors[name]
    return fake.refuse(this, f"Error Code 3: no tensor is called {name}", ("NONE", "FLOAT", ()))


def _name_at(fake, this, index):
    names = [*this._state.inputs, *this._state.outputs]
    if not 0 <= index < len(names):
        return fake.refuse(this, f"Error Code 3: no tensor at {index}")
    return names[index]


def _mode(fake, this, name):
    return fake.enums["TensorIOMode"].__members__[_tensor(fake, this, name)[0]]


def _dtype(fake, this, name):
    return fake.enums["DataType"].__members__[_tensor(fake, this, name)[1]]


def _shape(fake, this, name):
    return fake.classes["Dims"](list(_tensor(fake, this, name)[2]))


def _bytes(fake, this, name, profile_index=0):
    mode, kind, _ = _tensor(fake, this, name)
    return _size((), DTYPES[kind]) if mode != "NONE" else 0


def _profile_shape(fake, this, name, profile_index):
    engine = this._state
    if name not in engine.inputs or not 0 <= profile_index < _profiles(fake, this):
        return fake.refuse(this, f"Error Code 3: no input {name}, profile {profile_index}", [])
    return [fake.classes["Dims"](list(shape)) for shape in _range(engine, name, profile_index)]


def _range(engine, name, profile):
    """The least, best and largest shape of an input."""
    given = (engine.about["profiles"] or [{}])[profile]
    return [tuple(shape) for shape in given.get(name, [engine.inputs[name][1]] * 3)]


def _size(shape, dtype):
    """Bytes of an array."""
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


def _largest(engine, profile):
    """Output -> its bytes at the profile's largest shapes."""
    shapes = _output_shapes(engine, {n: _range(engine, n, profile)[2] for n in engine.inputs})
    return {name: _size(shape, DTYPES[engine.outputs[name][0]]) for name, shape in shapes.items()}


def _memory_size(fake, this, profile_index=0):
    """Room for the outputs at the profile's largest shapes, in whole 256 bytes."""
    sizes = _largest(this._state, profile_index).values()
    return sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)


def _output_shapes(engine, inputs):
    """Output -> its shape for these input shapes, by running the graph once on zeros."""
    key = tuple(sorted(inputs.items()))
    if key not in engine.shapes:
        feed = {n: np.zeros(s, DTYPES[engine.inputs[n][0]]) for n, s in inputs.items()}
        values = _session(engine).run(list(engine.outputs), feed)
        engine.shapes[key] = {n: v.shape for n, v in zip(engine.outputs, values, strict=True)}
    return engine.shapes[key]


def _new_context(fake, this, strategy=None, runtime_config=None):
    strategies = fake.enums["ExecutionContextAllocationStrategy"]
    if runtime_config is not None:
        strategy = runtime_config._state.strategy
    made = fake.new(
        "IExecutionContext",
        engine=this,
        logger=this._state.logger,
        strategy=strategy or strategies.STATIC,
        profile=0,
        shapes={},
        addresses={},
        memory=None,
        busy=threading.Lock(),
    )
    return _counted(fake, made, "contexts")


def _runtime_config(fake, this):
    strategies = fake.enums["ExecutionContextAllocationStrategy"]
    return fake.new("IRuntimeConfig", strategy=strategies.STATIC)


def _set_strategy(fake, this, strategy):
    this._state.strategy = strategy


# -- IExecutionContext


def _set_input_shape(fake, this, name, shape):
    state, engine = this._state, this._state.engine._state
    wanted, where = tuple(shape), "IExecutionContext::setInputShape: Error Code 3"
    if name not in engine.inputs:
        return fake.refuse(this, f"{where}: {name} is no input", False)
    low, _, high = _range(engine, name, state.profile)
    fits = len(wanted) == len(low) and all(
        a <= b <= c for a, b, c in zip(low, wanted, high, strict=True)
    )
    if not fits:
        problem = (
            f"{list(wanted)} of {name} are not within profile {state.profile}: {low} to {high}"
        )
        return fake.refuse(this, f"{where}: API Usage Error (supplied dimensions {problem})", False)
    state.shapes[name] = wanted
    return True


def _input_shapes(state):
    """Input -> its shape, of those that are known."""
    fixed = {n: s for n, (_, s) in state.engine._state.inputs.items() if -1 not in s}
    return fixed | state.shapes


def _infer_shapes(fake, this):
    known = _input_shapes(this._state)
    return [name for name in this._state.engine._state.inputs if name not in known]


def _context_shape(fake, this, name):
    state, engine, dims = this._state, this._state.engine._state, fake.classes["Dims"]
    known = _input_shapes(state)
    if name in known:
        return dims(list(known[name]))
    if name in engine.outputs and len(known) == len(engine.inputs):
        return dims(list(_output_shapes(engine, known)[name]))
    return _shape(fake, state.engine, name)


def _max_output_size(fake, this, name):
    return _largest(this._state.engine._state, this._state.profile).get(name, -1)


def _set_address(fake, this, name, memory):
    engine, where = this._state.engine._state, "IExecutionContext::setTensorAddress"
    if name not in (*engine.inputs, *engine.outputs):
        return fake.refuse(this, f"{where}: Error Code 3: no tensor is called {name}", False)
    if memory % ALIGNMENT:
        return fake.refuse(this, f"{where}: {memory:#x} is not aligned to {ALIGNMENT}", False)
    this._state.addresses[name] = memory
    return True


def _get_address(fake, this, name):
    return this._state.addresses.get(name, 0)


def _set_profile(fake, this, profile_index, stream_handle):
    state = this._state
    if not 0 <= profile_index < _profiles(fake, state.engine):
        return fake.refuse(this, f"Error Code 3: there is no profile {profile_index}", False)
    state.profile = profile_index
    state.shapes.clear()
    return True


def _profiles(fake, engine):
    return max(1, len(engine._state.about["profiles"]))


def _set_memory(fake, this, memory, size):
    needed = _memory_size(fake, this._state.engine, this._state.profile)
    if memory % ALIGNMENT or size < needed:
        fake.refuse(this, f"setDeviceMemory: {needed} aligned bytes are needed")
    else:
        this._state.memory = memory


def _update_memory_size(fake, this):
    return _memory_size(fake, this._state.engine, this._state.profile)


def _execute(fake, this, stream_handle):
    state, engine = this._state, this._state.engine._state
    if problem := _not_ready(fake, state, engine):
        where = "IExecutionContext::enqueueV3: Error Code 3"
        return fake.refuse(this, f"{where}: API Usage Error ({problem})", False)
    if not stream_handle:
        text = "Using default stream in enqueueV3() may lead to performance issues"
        fake.emit(state.logger, "WARNING", text)
    if not state.busy.acquire(blocking=False):
        raise Fault("two threads enqueue on one execution context")
    try:
        shapes = _input_shapes(state)
        work = partial(_compute, fake.module.machine, engine, shapes, dict(state.addresses))
        fake.module.machine.run(stream_handle, work)
    finally:
        state.busy.release()
    return True


def _not_ready(fake, state, engine):
    missing = [n for n in engine.inputs if n not in _input_shapes(state)]
    if missing:
        return f"the shape of {missing} was not set"
    missing = [n for n in (*engine.inputs, *engine.outputs) if not state.addresses.get(n)]
    if missing:
        return f"the address of {missing} was not set"
    managed = fake.enums["ExecutionContextAllocationStrategy"].USER_MANAGED
    if state.strategy == managed and state.memory is None:
        return "the device memory was not set"
    return None


def _compute(machine, engine, shapes, addresses):
    """What a stream runs: reads the inputs, computes, writes the outputs."""
    feed = {
        name: _view(machine, addresses[name], shape, DTYPES[engine.inputs[name][0]], False).copy()
        for name, shape in shapes.items()
    }
    values = _session(engine).run(list(engine.outputs), feed)
    for name, value in zip(engine.outputs, values, strict=True):
        _view(machine, addresses[name], value.shape, value.dtype, True)[...] = value


def _view(machine, address, shape, dtype, written):
    size = _size(shape, dtype)
    if machine.check is not None:
        machine.check(address, size, written)
    memory = (ctypes.c_ubyte * size).from_address(address)
    return np.frombuffer(memory, dtype).reshape(shape)


# -- EngineInspector


def _inspector(fake, this):
    return fake.new("EngineInspector", engine=this)


def _information(fake, this, format):  # noqa: A002
    if format.name != "JSON":
        raise NotImplementedError("the fake inspector writes JSON only")
    return json.dumps(information(fake, this._state.engine._state))


RUNNING = {
    "": {"nptype": _nptype, "volume": _volume},
    "Runtime": {"__init__": new_on_gpu, "deserialize_cuda_engine": _deserialize},
    "ICudaEngine": {
        "num_io_tensors": lambda fake, this: len(this._state.inputs) + len(this._state.outputs),
        "num_layers": lambda fake, this: len(this._state.graph.node),
        "num_optimization_profiles": _profiles,
        "name": lambda fake, this: this._state.graph.name,
        "hardware_compatibility_level": lambda fake, this: fake.enums[
            "HardwareCompatibilityLevel"
        ].__members__[this._state.about["hardware_compatibility_level"]],
        "profiling_verbosity": lambda fake, this: fake.enums["ProfilingVerbosity"].__members__[
            this._state.about["profiling_verbosity"]
        ],
        "device_memory_size_v2": _memory_size,
        "get_device_memory_size_for_profile_v2": _memory_size,
        "__getitem__": lambda fake, this, arg0: _name_at(fake, this, arg0),
        "get_tensor_name": _name_at,
        "get_tensor_mode": _mode,
        "get_tensor_dtype": _dtype,
        "get_tensor_shape": _shape,
        "get_tensor_location": lambda fake, this, name: fake.enums["TensorLocation"].DEVICE,
        "get_tensor_format": lambda fake, this, name, profile_index=0: (
            fake.enums["TensorFormat"].LINEAR
        ),
        "get_tensor_bytes_per_component": _bytes,
        "get_tensor_profile_shape": _profile_shape,
        "is_shape_inference_io": lambda fake, this, name: False,
        "create_execution_context": _new_context,
        "create_runtime_config": _runtime_config,
        "create_engine_inspector": _inspector,
    },
    "IRuntimeConfig": {
        "set_execution_context_allocation_strategy": _set_strategy,
        "get_execution_context_allocation_strategy": lambda fake, this: this._state.strategy,
    },
    "IExecutionContext": {
        "set_input_shape": _set_input_shape,
        "infer_shapes": _infer_shapes,
        "get_tensor_shape": _context_shape,
        "get_max_output_size": _max_output_size,
        "set_tensor_address": _set_address,
        "get_tensor_address": _get_address,
        "set_optimization_profile_async": _set_profile,
        "active_optimization_profile": lambda fake, this: this._state.profile,
        "all_binding_shapes_specified": lambda fake, this: not _infer_shapes(fake, this),
        "set_device_memory": _set_memory,
        "update_device_memory_size_for_shapes": _update_memory_size,
        "execute_async_v3": _execute,
    },
    "EngineInspector": {"get_engine_information": _information},
}
