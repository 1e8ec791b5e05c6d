"""What an engine is built for, the shapes that follow, and the same said to NVIDIA's `trtexec`.

The flags of `trtexec` differ between releases: 10.x wants to be told that the network is strongly
typed; in 11 it always is, and CUDA graphs, no transfers and spinning are what it does by default.
Source: samples/trtexec and samples/common/sampleOptions.cpp of TensorRT 10.16 and 11.1.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

from icnet_deploy.engine_sidecar import Profile
from icnet_deploy.errors import InputError
from icnet_deploy.export.engine.graph import INPUT, SourceGraph

LEVELS = range(6)
"""TensorRT's optimization levels; 3 is its default."""

HARDWARE = ("none", "ampere-plus", "same-compute-capability")
"""What GPUs an engine runs on besides the one that builds it; in capitals, TensorRT's names."""

TARGETS = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
"""The compute capabilities that TensorRT-RTX builds for: 7.5 is Turing, 8.6 the GeForce 30 series,
8.9 the 40 and 12.0 the 50 series."""

MAJORS = (10, 11)
"""The releases of `trtexec` whose commands are known."""

_TRTEXEC = {"ampere-plus": "ampere+", "same-compute-capability": "sameComputeCapability"}

Size = tuple[int, int]


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        batch: the least, the best and the largest number of images a run.
        sizes: the least, the best and the largest (height, width) in pixels; of a free-size
            artefact only.
        workspace: the most memory that a layer may take besides its tensors, in MiB; None: all.
        level: 0 builds fastest, 5 runs fastest.
        tf32: let float32 convolutions keep 10 bits of the mantissa, which float32 parity forbids.
        hardware: one of `HARDWARE`; TensorRT only.
        version_compatible: a plan that later versions run, too; it holds host code, so loading it
            means to trust it with the process. TensorRT only.
        targets: of `TARGETS`, for TensorRT-RTX: build for these, without a GPU.
    """

    batch: tuple[int, int, int] = (1, 1, 1)
    sizes: tuple[Size, Size, Size] | None = None
    workspace: int | None = None
    level: int = 3
    tf32: bool = False
    hardware: str = "none"
    version_compatible: bool = False
    targets: tuple[str, ...] = ()

    def check(self, flavour: str) -> None:
        """Refuses values out of range, and what a flavour of TensorRT does not do.

        Args:
            flavour: `tensorrt` or `tensorrt-rtx`.

        Raises:
            InputError: the value, what was expected, and what to do.
        """
        if self.level not in LEVELS or self.hardware not in HARDWARE:
            raise InputError(
                f"level is one of {LEVELS}, and hardware one of {HARDWARE}; got {self}"
            )
        if unknown := [target for target in self.targets if target not in TARGETS]:
            raise InputError(f"{unknown[0]!r} is not a target; known: {', '.join(TARGETS)}")
        if flavour == "tensorrt" and self.targets:
            raise InputError(
                "TensorRT builds only for the GPU of this machine: leave --target out, or build "
                "--with tensorrt-rtx"
            )
        if flavour == "tensorrt-rtx" and (self.hardware != "none" or self.version_compatible):
            raise InputError(
                "TensorRT-RTX has no hardware or version compatibility: name each GPU's compute "
                "capability with --target instead"
            )


def profile_of(graph: SourceGraph, options: BuildOptions) -> Profile | None:
    """The optimization profile for a graph; None if its input has one shape.

    Raises:
        InputError: the options do not fit the graph, or are no range.
    """
    batch, height, width, channels = graph.shape
    least, best, most = options.batch
    if not 1 <= least <= best <= most:
        raise InputError(f"the batch {options.batch} is not a range: give least <= best <= largest")
    if batch is not None and options.batch != (batch,) * 3:
        raise InputError(
            f"{graph.path} takes {batch} image(s) in each run, not a batch of {options.batch}: "
            "leave --batch out, or export with a free batch"
        )
    sizes = _sizes(graph, options, height, width)
    if None not in graph.shape:
        return None
    shapes = [(n, h, w, channels or 3) for n, (h, w) in zip(options.batch, sizes, strict=True)]
    return {INPUT: (shapes[0], shapes[1], shapes[2])}


def _sizes(
    graph: SourceGraph, options: BuildOptions, height: int | None, width: int | None
) -> tuple[Size, Size, Size]:
    if height is not None and width is not None:
        if options.sizes is not None:
            raise InputError(
                f"{graph.path} takes images of {height}x{width} only: leave --sizes out, or export "
                "with --dynamic-size"
            )
        return ((height, width),) * 3
    if options.sizes is None:
        raise InputError(
            f"{graph.path} takes images of any size, and TensorRT must know which sizes to expect: "
            "give --sizes, e.g. 512x1024:1024x2048:1024x2048"
        )
    pairs = zip(options.sizes, options.sizes[1:], strict=False)
    if any(low[0] > high[0] or low[1] > high[1] for low, high in pairs):
        raise InputError(f"the sizes {options.sizes} are not a range: give least, best, largest")
    return options.sizes


def build_command(
    major: int, onnx: Path, engine: Path, options: BuildOptions, profile: Profile | None
) -> str:
    """The command with which `trtexec` builds the same engine, as one line for a shell.

    Args:
        major: of TensorRT's version, 10 or 11.
        onnx: the artefact.
        engine: the file to write.
        options: as for `build`; no targets.
        profile: the shapes; None if the input has one.
    """
    words = ["trtexec", f"--onnx={onnx}", f"--saveEngine={engine}"]
    if major == 10:
        words.append("--stronglyTyped")
    for flag, index in (("min", 0), ("opt", 1), ("max", 2)):
        if profile is not None:
            words.append(f"--{flag}Shapes={_shapes(profile, index)}")
    words.append(f"--builderOptimizationLevel={options.level}")
    if not options.tf32:
        words.append("--noTF32")
    if options.workspace is not None:
        words.append(f"--memPoolSize=workspace:{options.workspace}")
    if options.hardware != "none":
        words.append(f"--hardwareCompatibilityLevel={_TRTEXEC[options.hardware]}")
    if options.version_compatible:
        words.append("--versionCompatible")
    words += ["--profilingVerbosity=detailed", "--skipInference"]
    return shlex.join(words)


def timing_command(major: int, engine: Path, profile: Profile | None) -> str:
    """The command with which `trtexec` times an engine at its best shape, copies left out.

    Args:
        major: of TensorRT's version, 10 or 11.
        engine: the file.
        profile: the shapes; None if the input has one.
    """
    words = ["trtexec", f"--loadEngine={engine}"]
    if profile is not None:
        words.append(f"--shapes={_shapes(profile, 1)}")
    if major == 10:
        words += ["--useCudaGraph", "--noDataTransfers", "--useSpinWait"]
    words += ["--warmUp=1000", "--duration=10", "--percentile=50,95,99"]
    return shlex.join(words)


def _shapes(profile: Profile, index: int) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, s[index]))}" for name, s in profile.items())
