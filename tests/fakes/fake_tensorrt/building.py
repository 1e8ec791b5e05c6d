"""How a fake parses and builds: what it refuses, and a plan that carries the ONNX file."""

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import onnx

from fake_tensorrt.operators import describe, ends, refusals
from fake_tensorrt.plan import write_plan
from fake_tensorrt.running import new_on_gpu

TIMINGS = b"fake timings "
NO_NODE = onnx.NodeProto()

# -- ILogger, Dims, IHostMemory


def _log(fake, this, severity, msg):
    if int(severity) <= int(this._state.min_severity):
        print(f"[TRT] [{severity.name[0]}] {msg}", file=sys.stderr)


def _new_dims(fake, this, shape=(), **sides):
    this._state = SimpleNamespace(sides=[*shape, *sides.values()])


def _set_side(fake, this, arg0, arg1):
    this._state.sides[arg0] = arg1


def _get_side(fake, this, arg0):
    found = this._state.sides[arg0]
    return tuple(found) if isinstance(arg0, slice) else found


DIMS = {
    "__init__": _new_dims,
    "__len__": lambda fake, this: len(this._state.sides),
    "__getitem__": _get_side,
    "__setitem__": _set_side,
    "__eq__": lambda fake, this, arg0: this._state.sides == list(arg0),
    "__repr__": lambda fake, this: str(tuple(this._state.sides)),
    "MAX_DIMS": lambda fake, this: 8,
}

# -- Builder, INetworkDefinition


def _create_network(fake, this, flags):
    typed = 1 << int(fake.enums["NetworkDefinitionCreationFlag"].STRONGLY_TYPED)
    always = fake.module.__version__.startswith("11.")  # accepted there, and ignored
    return fake.new(
        "INetworkDefinition",
        builder=this,
        flags=flags | typed * always,
        typed=bool(flags & typed) or always,
        model=None,
        inputs=[],
        outputs=[],
    )


def _tensor(fake, value, **about):
    kind, sides = describe(value)
    return fake.new(
        "ITensor",
        name=value.name,
        dtype=fake.enums["DataType"].__members__[kind],
        shape=fake.classes["Dims"](list(sides)),
        **about,
    )


def _config(fake, this):
    return fake.new(
        "IBuilderConfig",
        builder=this,
        logger=this._state.logger,
        flags=1 << int(fake.enums["BuilderFlag"].TF32),  # on by default in the real one, too
        builder_optimization_level=3,
        max_aux_streams=-1,
        pools={},
        profiles=[],
        cache=None,
    )


def _profile(fake, this):
    return fake.new("IOptimizationProfile", shapes={})


# -- IOptimizationProfile


def _set_shape(fake, this, input, min, opt, max):  # noqa: A002 - the surface's names
    shapes = [tuple(s) for s in (min, opt, max)]
    if len({len(s) for s in shapes}) != 1 or any(side < 0 for s in shapes for side in s):
        raise RuntimeError(f"Shape provided for {input} is inconsistent: {shapes}")
    this._state.shapes[input] = shapes


def _valid(fake, this):
    return all(
        low <= best <= high
        for shapes in this._state.shapes.values()
        for low, best, high in zip(*shapes, strict=True)
    )


def _get_shape(fake, this, input):  # noqa: A002
    return [fake.classes["Dims"](list(s)) for s in this._state.shapes.get(input, [])]


# -- IBuilderConfig


def _flag(fake, this, flag):
    return bool(this._state.flags >> int(flag) & 1)


def _set_flag(fake, this, flag):
    this._state.flags |= 1 << int(flag)


def _clear_flag(fake, this, flag):
    this._state.flags &= ~(1 << int(flag))


def _set_pool(fake, this, pool, pool_size):
    this._state.pools[pool.name] = pool_size


def _add_profile(fake, this, profile):
    if not _valid(fake, profile):
        return -1
    this._state.profiles.append(dict(profile._state.shapes))
    return len(this._state.profiles) - 1


def _create_cache(fake, this, serialized_timing_cache):
    blob = bytes(serialized_timing_cache)
    about = {"version": fake.module.__version__, "compute": fake.module.machine.compute, "keys": []}
    if blob:
        if not blob.startswith(TIMINGS):
            return fake.refuse(this, "the timing cache is corrupted")
        about = json.loads(blob.removeprefix(TIMINGS))
    return fake.new("ITimingCache", about=about)


def _set_cache(fake, this, cache, ignore_mismatch):
    about = cache._state.about
    here = (fake.module.__version__, list(fake.module.machine.compute))
    if (about["version"], list(about["compute"])) != here and not ignore_mismatch:
        return fake.refuse(this, "the timing cache is of another device or version", False)
    this._state.cache = cache
    return True


def _serialize_cache(fake, this):
    return fake.memory(TIMINGS + json.dumps(this._state.about).encode())


# -- OnnxParser


def _new_parser(fake, this, network, logger):
    this._state = SimpleNamespace(network=network, logger=logger, errors=[])


def _parse_file(fake, this, model):
    if not Path(model).is_file():
        return _fail(fake, this, "MODEL_DESERIALIZE_FAILED", f"could not open file {model}")
    return _parse(fake, this, Path(model).read_bytes())


def _parse(fake, this, model, path=None):
    network = this._state.network._state
    try:
        loaded = onnx.load_from_string(bytes(model))
    except Exception:
        loaded = onnx.ModelProto()
    if not loaded.graph.node:
        return _fail(fake, this, "MODEL_DESERIALIZE_FAILED", "Failed to parse the ONNX model")
    for index, node, why in refusals(loaded):
        _fail(fake, this, "UNSUPPORTED_NODE", why, index, node)
    if this._state.errors:
        return False
    network.model, network.name = loaded, loaded.graph.name
    inputs, outputs = ends(loaded.graph)
    network.inputs = [_tensor(fake, value, is_network_input=True) for value in inputs]
    network.outputs = [_tensor(fake, value, is_network_output=True) for value in outputs]
    return True


def _fail(fake, this, code, why, index=-1, node=NO_NODE):
    error = fake.new(
        "ParserError",
        code=fake.enums["ErrorCode"].__members__[code],
        desc=why,
        file="fake",
        func="parse",
        line=0,
        node=index,
        node_name=node.name,
        node_operator=node.op_type,
    )
    this._state.errors.append(error)
    return fake.refuse(this, _error_text(fake, error), False)


def _error_text(fake, this):
    e = this._state
    where = (
        f"In node {e.node} with name: {e.node_name} and operator: {e.node_operator} ({e.func}): "
    )
    return f"{where * (e.node >= 0)}{e.code.name}: {e.desc}"


def _clear_errors(fake, this):
    this._state.errors.clear()


def _supports(fake, this, model, path=None):
    return not list(refusals(onnx.load_from_string(bytes(model))))


ERROR_FIELDS = ("code", "desc", "file", "func", "line", "node", "node_name", "node_operator")

# -- the build


def _build(fake, this, network, config, **kernels):
    """A plan, or None with the reason in the log."""
    state, where = config._state, "IBuilder::buildSerializedNetwork: Error Code"
    if problem := _unbuildable(network._state, state):
        return fake.refuse(this, f"{where} 4: API Usage Error ({problem})")
    nodes = network._state.model.graph.node
    if not _show_progress(fake, state, len(nodes)):
        return fake.refuse(this, f"{where} 10: cancelled")
    model = network._state.model.SerializeToString()
    timed = _time(nodes, state.cache)
    about = _about(fake, network._state, state)
    fake.module.machine.builds.append(
        about
        | {
            "flags": [
                f.name
                for f in fake.enums["BuilderFlag"].__members__.values()
                if _flag(fake, config, f)
            ],
            "builder_optimization_level": state.builder_optimization_level,
            "pools": dict(state.pools),
            "timed": timed,
        }
    )
    return fake.memory(write_plan(fake.module.__version__, about, model))


def _unbuildable(network, config):
    """Why there is nothing to build; None where there is."""
    if network.model is None:
        return "the network has no output"
    for tensor in network.inputs:
        shape = tuple(tensor.shape)
        profiles = [given for p in config.profiles for given in p.get(tensor.name, [])]
        for given in profiles:
            fits = all(a in (-1, b) for a, b in zip(shape, given, strict=False))
            if len(given) != len(shape) or not fits:
                return f"profile {given} does not fit the input {tensor.name} {shape}"
        if -1 in shape and not profiles:
            return (
                "Network has dynamic or shape inputs, but no optimization profile has been defined"
            )
    return None


def _about(fake, network, config):
    """What a plan says of itself."""
    compatible = fake.enums["BuilderFlag"].VERSION_COMPATIBLE
    return {
        "compute": fake.module.machine.compute,
        "hardware_compatibility_level": _name(config, "hardware_compatibility_level", "NONE"),
        "profiling_verbosity": _name(config, "profiling_verbosity", "LAYER_NAMES_ONLY"),
        "version_compatible": bool(config.flags >> int(compatible) & 1),
        "strongly_typed": network.typed,
        "profiles": list(config.profiles),
        "float_layers": sorted(fake.module.machine.float_layers),
    }


def _name(config, prop, default):
    return getattr(config, prop).name if hasattr(config, prop) else default


def _show_progress(fake, config, steps):
    """Whether the monitor let the build go on; what it raises is printed and cancels."""
    monitor = getattr(config, "progress_monitor", None)
    fake.module.machine.monitor = monitor
    if monitor is None:
        return True

    def tell(method, *args):
        try:
            return getattr(monitor, method)(*args)
        except Exception as error:
            print(f"[ERROR] Exception caught in {method}(): {error}", file=sys.stderr)
            return False

    tell("phase_start", "Building", None, 1)
    tell("phase_start", "Timing", "Building", steps)
    going = True
    for step in range(steps):
        if fake.module.machine.on_step is not None:
            fake.module.machine.on_step(step)
        going = tell("step_complete", "Timing", step)
        if not going:
            break
    tell("phase_finish", "Timing")
    tell("phase_finish", "Building")
    return going


def _time(nodes, cache):
    """How many nodes had to be timed; the cache learns them."""
    keys = {hashlib.sha256(f"{n.op_type}{n.attribute}".encode()).hexdigest()[:16] for n in nodes}
    if cache is None:
        return len(keys)
    new = keys - set(cache._state.about["keys"])
    cache._state.about["keys"] += sorted(new)
    return len(new)


BUILDING = {
    "Dims": DIMS,
    "Logger": {"log": _log},
    "IHostMemory": {
        "nbytes": lambda fake, this: bytes.__len__(this),
        "dtype": lambda fake, this: fake.enums["DataType"].INT8,
    },
    "Builder": {
        "__init__": new_on_gpu,
        "create_network": _create_network,
        "create_builder_config": _config,
        "create_optimization_profile": _profile,
        "build_serialized_network": _build,
    },
    "INetworkDefinition": {
        "get_flag": _flag,
        "num_inputs": lambda fake, this: len(this._state.inputs),
        "num_outputs": lambda fake, this: len(this._state.outputs),
        "num_layers": lambda fake, this: len(this._state.model.graph.node),
        "__len__": lambda fake, this: len(this._state.model.graph.node),
        "get_input": lambda fake, this, index: this._state.inputs[index],
        "get_output": lambda fake, this, index: this._state.outputs[index],
    },
    "IOptimizationProfile": {
        "set_shape": _set_shape,
        "get_shape": _get_shape,
        "__bool__": _valid,
    },
    "IBuilderConfig": {
        "get_flag": _flag,
        "set_flag": _set_flag,
        "clear_flag": _clear_flag,
        "set_memory_pool_limit": _set_pool,
        "get_memory_pool_limit": lambda fake, this, pool: this._state.pools.get(pool.name, 1 << 33),
        "add_optimization_profile": _add_profile,
        "num_optimization_profiles": lambda fake, this: len(this._state.profiles),
        "create_timing_cache": _create_cache,
        "set_timing_cache": _set_cache,
        "get_timing_cache": lambda fake, this: this._state.cache,
    },
    "ITimingCache": {"serialize": _serialize_cache},
    "OnnxParser": {
        "__init__": _new_parser,
        "parse": _parse,
        "parse_from_file": _parse_file,
        "supports_model_v2": _supports,
        "num_errors": lambda fake, this: len(this._state.errors),
        "get_error": lambda fake, this, index: this._state.errors[index],
        "clear_errors": _clear_errors,
    },
    "ParserError": {
        field: (lambda fake, this, field=field: getattr(this._state, field))
        for field in ERROR_FIELDS
    }
    | {"__str__": _error_text, "local_function_stack": lambda fake, this: []},
}
