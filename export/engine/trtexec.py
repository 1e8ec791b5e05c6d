"""The commands with which NVIDIA's `trtexec` builds the same engine, and times it.

Its flags differ between releases: 10.x wants to be told that the network is strongly typed; in 11
it always is, and CUDA graphs, no transfers and spinning are what it does by default.
Source: samples/trtexec and samples/common/sampleOptions.cpp of TensorRT 10.16 and 11.1.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from icnet_deploy.engine_sidecar import Profile
from icnet_deploy.export.engine.options import BuildOptions

MAJORS = (10, 11)

_HARDWARE = {"ampere-plus": "ampere+", "same-compute-capability": "sameComputeCapability"}


def build_command(
    major: int, onnx: Path, engine: Path, options: BuildOptions, profile: Profile | None
) -> str:
    """The command that builds, as one line for a shell.

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
        words.append(f"--hardwareCompatibilityLevel={_HARDWARE[options.hardware]}")
    if options.version_compatible:
        words.append("--versionCompatible")
    words += ["--profilingVerbosity=detailed", "--skipInference"]
    return shlex.join(words)


def timing_command(major: int, engine: Path, profile: Profile | None) -> str:
    """The command that times an engine at its best shape, copies left out, as one line.

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
