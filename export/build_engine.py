"""`icnet build-engine`, also run as `python export/build_engine.py`: an ONNX file -> an engine."""

import argparse
import hashlib
import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from os.path import isfile
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TypeVar

from icnet_deploy.command import Goal, check_outputs, command, count, options, parser, size
from icnet_deploy.engine_sidecar import EngineSidecar, Gpu, sidecar_path
from icnet_deploy.errors import MissingPackage
from icnet_deploy.export.engine.builder import build, flavour_of
from icnet_deploy.export.engine.cache import EngineCache, find_gpu, write_engine
from icnet_deploy.export.engine.graph import read_graph
from icnet_deploy.export.engine.options import (
    HARDWARE,
    LEVELS,
    MAJORS,
    TARGETS,
    BuildOptions,
    build_command,
    profile_of,
    timing_command,
)
from icnet_deploy.export.engine.report import Report
from icnet_deploy.files import cache_folder, require_place, write_json
from icnet_deploy.integrity import artefact_sha256

T = TypeVar("T")

PACKAGES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


class BuiltEngine(NamedTuple):
    """What is known of an engine that was written.

    Attributes:
        sidecar: what was written beside it.
        report: of the engine's inspector; None if it was not inspected now.
        cached: whether it was found in the cache.
        warnings: what TensorRT warned of while it built.
    """

    sidecar: EngineSidecar
    report: Report | None
    cached: bool
    warnings: tuple[str, ...]


def build_engine(
    onnx: Path,
    out: Path,
    trt: ModuleType,
    options: BuildOptions | None = None,
    cache: Path | None = None,
    quiet: bool | None = True,
    gpu_here: Callable[[], Gpu | None] = find_gpu,
) -> BuiltEngine:
    """Writes an engine and its sidecar, from the cache if the same one was built before.

    Args:
        onnx: a file that `icnet export` or `icnet quantize` wrote.
        out: the file to write, NAME.engine or NAME.plan; `out` with ".json" added is the sidecar.
        trt: the module `tensorrt` or `tensorrt_rtx`.
        options: for what shapes, and how; None is the default, one image a run.
        cache: the folder of earlier builds; None for no cache.
        quiet: False shows a progress bar, None does so on a terminal.
        gpu_here: says what GPU there is.

    Raises:
        InputError: `out` has another ending.
        OutputError: a file cannot be written.
        IcnetError: what `build` raises.
    """
    require_place(out, ".engine", ".plan")
    options = options or BuildOptions()
    flavour, gpu = flavour_of(trt), None if options.targets else gpu_here()
    digest = artefact_sha256(onnx) if isfile(onnx) else ""
    graph = read_graph(onnx)
    store, key = None, ""
    if cache is not None and (gpu is not None or options.targets):
        store = EngineCache(cache, flavour, trt.__version__, gpu)
        key = store.key(digest, asdict(options), profile_of(graph, options))
        if kept := store.find(key):
            write_engine(out, *kept)
            return BuiltEngine(kept[1], None, True, ())
    built = build(trt, graph, options, store.timings() if store else b"", quiet)
    sidecar = EngineSidecar(
        engine_sha256=hashlib.sha256(built.plan).hexdigest(),
        onnx_sha256=digest,
        metadata=graph.metadata,
        flavour=flavour,
        version=trt.__version__,
        gpu=gpu,
        targets=options.targets,
        profiles=() if built.profile is None else (built.profile,),
        options={k: v for k, v in asdict(options).items() if k not in _ELSEWHERE},
        precisions=None if built.report is None else built.report.counts(),
    )
    write_engine(out, built.plan, sidecar)
    if store:
        store.keep(key, built.plan, sidecar, built.timing_cache)
    return BuiltEngine(sidecar, built.report, False, built.warnings)


_ELSEWHERE = ("batch", "sizes", "targets")  # the sidecar has them as profiles and targets


def _load_tensorrt(flavour: str) -> ModuleType:
    """Imports `tensorrt` or `tensorrt_rtx`.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        return importlib.import_module(PACKAGES[flavour])
    except ImportError as error:
        raise MissingPackage(PACKAGES[flavour], extra=flavour, purpose="build-engine") from error


def _range_of(one: Callable[[str], T], words: str) -> Callable[[str], tuple[T, T, T]]:
    """Reads one value, or the least, the best and the largest with colons between."""

    def read(text: str) -> tuple[T, T, T]:
        parts = [one(part) for part in text.split(":")]
        if len(parts) not in (1, 3):
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}")
        return (parts[0], parts[len(parts) // 2], parts[-1])

    return read


def _targets(text: str) -> tuple[str, ...]:
    """Reads `SM86,SM89`."""
    targets = tuple(re.split(r"[,\s]+", text.strip().upper()))
    if unknown := [target for target in targets if target not in TARGETS]:
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!r} is not a target; known: {', '.join(TARGETS)}"
        )
    return targets


def _arguments() -> argparse.ArgumentParser:
    p = parser(
        "icnet build-engine",
        "Build a TensorRT engine from an ONNX file that `icnet export` or `icnet quantize` wrote.",
        "icnet build-engine icnet.onnx --batch 1:1:4 -o icnet.engine",
    )
    p.add_argument(
        "onnx", type=Path, metavar="ONNX", help="the ONNX file, whose precision the engine has"
    )
    group = options(p, Goal.RESULTS)
    group.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="the engine to write, a TensorRT plan; FILE.json beside it describes it (default: "
        "ONNX with the suffix .engine)",
    )
    group.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write the precision of every layer of the engine as JSON; the engine is built again "
        "for it",
    )
    group.add_argument(
        "--print-trtexec",
        action="store_true",
        help="print the trtexec commands that build and time the engine, and build nothing",
    )
    _add_shapes(p)
    _add_places(p)
    _add_building(p)
    return p


def _add_shapes(p: argparse.ArgumentParser) -> None:
    """Adds what images the engine takes."""
    group = options(p, "to choose what the engine takes")
    group.add_argument(
        "--batch",
        type=_range_of(count, "N or LEAST:BEST:LARGEST, e.g. 1:4:8"),
        default=(1, 1, 1),
        metavar="N|LEAST:BEST:LARGEST",
        help="images in each run; the engine is fastest at BEST (default: 1)",
    )
    group.add_argument(
        "--sizes",
        type=_range_of(size, "HEIGHTxWIDTH or three of them, e.g. 512x1024:1024x2048:1024x2048"),
        metavar="HxW|LEAST:BEST:LARGEST",
        help="the sizes of the images, for an ONNX file that takes any size",
    )


def _add_places(p: argparse.ArgumentParser) -> None:
    """Adds where the engine runs."""
    group = options(p, "to choose where the engine runs")
    group.add_argument(
        "--with",
        dest="flavour",
        default="tensorrt",
        choices=tuple(PACKAGES),
        help="the runtime that builds and runs it (default: %(default)s)",
    )
    group.add_argument(
        "--target",
        type=_targets,
        default=(),
        metavar="SM86,...",
        help="GPUs by their compute capability, with tensorrt-rtx, which then needs no GPU to "
        f"build: {', '.join(TARGETS)} (default: the GPU of this machine)",
    )
    group.add_argument(
        "--hardware",
        default="none",
        choices=HARDWARE,
        help="other GPUs that it runs on besides this one (default: %(default)s)",
    )
    group.add_argument(
        "--version-compatible",
        action="store_true",
        help="let it run on later versions of TensorRT; it then contains host code, which the "
        "program that loads it must allow",
    )


def _add_building(p: argparse.ArgumentParser) -> None:
    """Adds how it is built."""
    group = options(p, "to choose how it is built")
    group.add_argument(
        "--level",
        type=int,
        default=3,
        choices=tuple(LEVELS),
        help="from 0, the fastest build, to 5, the fastest engine (default: %(default)s)",
    )
    group.add_argument(
        "--workspace",
        type=count,
        metavar="MIB",
        help="the scratch memory that a layer may use, in MiB (default: no limit)",
    )
    group.add_argument(
        "--tf32",
        action="store_true",
        help="let float32 layers use TF32, which drops 13 bits of the mantissa",
    )
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="the folder of earlier builds (default: $ICNET_CACHE/engines, else below ~/.cache)",
    )
    where.add_argument(
        "--no-cache", action="store_true", help="build it again, and keep nothing of the build"
    )


def _print_trtexec(onnx: Path, out: Path, options: BuildOptions) -> None:
    options.check("tensorrt")
    profile = profile_of(read_graph(onnx), options)
    for major in MAJORS:
        print(f"# TensorRT {major}: build, then time")
        print(build_command(major, onnx, out, options, profile))
        print(timing_command(major, out, profile))


def _print_result(out: Path, built: BuiltEngine) -> None:
    sidecar, names = built.sidecar, {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
    place = ", ".join(sidecar.targets) or sidecar.gpu or "this GPU"
    print(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, {sidecar.metadata.precision}, "
        f"{names[sidecar.flavour]} {sidecar.version} for {place}, "
        f"SHA-256 {sidecar.engine_sha256[:16]}...{' (from the cache)' * built.cached}"
    )
    for profile in sidecar.profiles:
        for name, shapes in profile.items():
            print(f"{name}: {' to '.join('x'.join(map(str, shapes[i])) for i in (0, 2))}")
    if sidecar.precisions is None:
        print("layers: not inspected, as no GPU here can load the engine")
    else:
        print("layers: " + ", ".join(f"{n} in {k}" for k, n in sorted(sidecar.precisions.items())))
    for warning in built.warnings:
        print(f"TensorRT warns: {warning}")
    print(f"sidecar: {sidecar_path(out)}")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Builds one engine; exit code 0 done, 1 the build or its check failed, 2 a wrong request."""
    return run(argv)


def run(
    argv: Sequence[str] | None,
    load: Callable[[str], ModuleType] = _load_tensorrt,
    gpu_here: Callable[[], Gpu | None] = find_gpu,
) -> int:
    """The command with what it asks of the machine: a TensorRT by its flavour, and the GPU."""
    args = _arguments().parse_args(argv)
    out = args.out or args.onnx.with_suffix(".engine")
    options = BuildOptions(
        batch=args.batch,
        sizes=args.sizes,
        workspace=args.workspace,
        level=args.level,
        tf32=args.tf32,
        hardware=args.hardware,
        version_compatible=args.version_compatible,
        targets=args.target,
    )
    if args.print_trtexec:
        _print_trtexec(args.onnx, out, options)
        return 0
    args.out, args.sidecar = out, sidecar_path(out)
    check_outputs(args)
    cache = None if args.no_cache or args.report else args.cache or cache_folder("engines")
    built = build_engine(args.onnx, out, load(args.flavour), options, cache, None, gpu_here)
    if args.report is not None:
        layers = None if built.report is None else built.report.to_list()
        write_json(args.report, {"engine": built.sidecar.engine_sha256, "layers": layers})
    _print_result(out, built)
    return 0


if __name__ == "__main__":
    # By path this file is `__main__`; the packaged module is the one that everything else imports.
    from icnet_deploy.export.build_engine import main as packaged_main

    raise SystemExit(packaged_main())
