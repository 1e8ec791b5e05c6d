"""The build: one code path for TensorRT 10.12 and later, 11.x and TensorRT-RTX.

The module comes as an argument. Precision comes from the graph alone: the network is strongly
typed, by a flag in 10.x, always in 11.x, and no builder flag touches a precision but TF32's.
"""

import threading
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from icnet_deploy.engine_sidecar import Profile
from icnet_deploy.errors import BackendError, DeviceError, ModelError, UnavailableError
from icnet_deploy.export.engine.graph import SourceGraph
from icnet_deploy.export.engine.options import BuildOptions, profile_of
from icnet_deploy.export.engine.report import Report, errors_of, inspect, make_log, make_monitor

_OLDEST = (10, 12)
"""The first TensorRT whose strong typing the kit's files are written for."""


@dataclass(frozen=True)
class Built:
    """What a build gives.

    Attributes:
        plan: the engine.
        profile: the shapes that it takes; None if one.
        report: what its inspector says; None where the engine cannot be loaded for want of a GPU.
        timing_cache: TensorRT's measurements, for the next build on this GPU.
        warnings: what TensorRT warned of.
    """

    plan: bytes
    profile: Profile | None
    report: Report | None
    timing_cache: bytes
    warnings: tuple[str, ...]


def flavour_of(trt: ModuleType) -> str:
    """`tensorrt-rtx` for that module, else `tensorrt`."""
    return "tensorrt-rtx" if hasattr(trt, "ComputeCapability") else "tensorrt"


def _check_version(trt: ModuleType) -> None:
    """Refuses a TensorRT that is too old.

    Raises:
        UnavailableError: it is older than 10.12.
    """
    version = tuple(int(part) for part in trt.__version__.split(".")[:2])
    if flavour_of(trt) == "tensorrt" and version < _OLDEST:
        raise UnavailableError(
            f"TensorRT {trt.__version__} is installed; expected 10.12 or later, which keeps the "
            "precisions of the graph: upgrade TensorRT (on a Jetson: JetPack)"
        )


def build(
    trt: ModuleType,
    graph: SourceGraph,
    options: BuildOptions,
    timing_cache: bytes = b"",
    quiet: bool | None = True,
) -> Built:
    """Builds an engine from an artefact. Ctrl-C stops TensorRT at its next step, then interrupts.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.
        graph: of a file that `icnet export` or `icnet quantize` wrote, as `read_graph` gives it.
        options: for what shapes, and how.
        timing_cache: of an earlier build on this GPU with this TensorRT; empty for none.
        quiet: False shows a progress bar, None does so on a terminal.

    Raises:
        ModelError: TensorRT cannot read the file: every node that it refuses, by name.
        InputError: the options do not fit the file or this TensorRT.
        UnavailableError: TensorRT is too old.
        DeviceError: there is no GPU to build on.
        BackendError: TensorRT failed to build, or to load what it built.
        CheckFailed: the engine runs a layer in another precision than the graph says.
    """
    _check_version(trt)
    options.check(flavour_of(trt))
    profile = profile_of(graph, options)
    monitor = make_monitor(trt, quiet)
    outcome: list[Built | BaseException] = []
    begin, done = threading.Event(), threading.Event()

    def work() -> None:
        begin.wait()
        try:
            outcome.append(_build(trt, graph, options, profile, timing_cache, monitor))
        except BaseException as error:
            outcome.append(error)
        finally:
            done.set()

    # TensorRT holds the thread that builds, where Python could not see a Ctrl-C. Events tell of its
    # begin and end, for Ctrl-C can come inside `start`, and in Python 3.11 a `join` that it
    # interrupts takes the thread for ended, too.
    threading.Thread(target=work, name="TensorRT build", daemon=True).start()
    try:
        begin.set()
        while not done.wait(0.2):
            pass
    except KeyboardInterrupt:
        monitor.stop.set()
        done.wait()
        raise
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _build(
    trt: ModuleType,
    graph: SourceGraph,
    options: BuildOptions,
    profile: Profile | None,
    timing_cache: bytes,
    monitor: Any,
) -> Built:
    log = make_log(trt)
    try:
        builder = trt.Builder(log)
    except TypeError as error:  # "factory function returned nullptr"
        raise DeviceError(
            f"TensorRT {trt.__version__} cannot start, for want of a GPU or its driver: "
            f"{errors_of(log)}"
        ) from error
    # Held in a name until the build is done: a parser does not keep its network alive.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, network, graph, log)
    config = builder.create_builder_config()
    _configure(trt, config, options)
    config.progress_monitor = monitor
    if profile is not None:
        _add_profile(builder, config, profile)
    if flavour_of(trt) == "tensorrt":  # a deprecated no-op in RTX, which compiles where it runs
        _use_timings(config, timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        if monitor.stop.is_set():
            raise BackendError("the build was stopped")
        _explain_failure(trt, options, errors_of(log))
    data = bytes(plan)
    warnings = tuple(text for severity, text in log.lines if severity == "WARNING")
    report = inspect(trt, data, graph, not options.targets, options.version_compatible, log)
    return Built(data, profile, report, _timings(trt, config), warnings)


def _parse(trt: ModuleType, network: Any, graph: SourceGraph, log: Any) -> None:
    parser = trt.OnnxParser(network, log)
    if parser.parse_from_file(str(graph.path)):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    refused = "; ".join(
        f"{e.node_operator() or 'the file'} {e.node_name()!r} ({e.code().name}): {e.desc()}"
        for e in errors
    )
    raise ModelError(
        f"TensorRT {trt.__version__} cannot read {graph.path}: {refused or errors_of(log)}"
    )


def _configure(trt: ModuleType, config: Any, options: BuildOptions) -> None:
    config.builder_optimization_level = options.level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the inspector's report
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace << 20)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware != "none":
        level = options.hardware.replace("-", "_").upper()
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    if flavour_of(trt) == "tensorrt-rtx":
        targets = options.targets or ("CURRENT",)
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            config.set_compute_capability(getattr(trt.ComputeCapability, target), index)


def _add_profile(builder: Any, config: Any, profile: Profile) -> None:
    made = builder.create_optimization_profile()
    for name, (least, best, most) in profile.items():
        made.set_shape(name, least, best, most)
    if not made or config.add_optimization_profile(made) < 0:
        raise BackendError(f"TensorRT refused the profile {dict(profile)}")


def _use_timings(config: Any, timing_cache: bytes) -> None:
    """Starts from earlier timings; from none where they are broken or of another GPU."""
    cache = config.create_timing_cache(timing_cache)
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _timings(trt: ModuleType, config: Any) -> bytes:
    if flavour_of(trt) != "tensorrt":
        return b""
    cache = config.get_timing_cache()
    return b"" if cache is None else bytes(cache.serialize())


def _explain_failure(trt: ModuleType, options: BuildOptions, reason: str) -> None:
    if flavour_of(trt) == "tensorrt-rtx" and not options.targets and "CUDA driver" in reason:
        raise DeviceError(
            "this machine has no GPU that TensorRT-RTX can build for: name the GPU's compute "
            f"capability, e.g. --target SM86 ({reason})"
        )
    raise BackendError(f"TensorRT {trt.__version__} could not build the engine: {reason}")
