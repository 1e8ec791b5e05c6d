"""Which artefact is compared on which runtime, and what is left out, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from icnet_deploy.errors import InputError, MissingPackage, ModelError
from icnet_deploy.metadata import read_onnx_metadata, stamped
from icnet_deploy.runtime.auto.candidates import MEANT_FOR
from icnet_deploy.runtime.auto.folder import ENGINE_SUFFIXES
from icnet_deploy.runtime.backends.registry import ENGINE_RUNTIMES, check_available
from icnet_deploy.runtime.predictor import Predictor

ROUNDED = "rounded"
"""Not a runtime: a float16 file in ONNX Runtime with every float16 value rounded. CPUs compute such
files in float32 and hardly round, so this is what tells how the file answers on a GPU."""

_COMPARED = ("onnxruntime", "openvino")
_EXTRAS = {"onnxruntime": "cpu", "openvino": "openvino"}


class Pair(NamedTuple):
    """A row to be: a file, the runtime it is run on (or `ROUNDED`), the device, and TF32 or not."""

    path: Path
    runtime: str
    device: str
    tf32: bool = False


@dataclass
class Pairing:
    """What is compared, and what is not.

    Attributes:
        pairs: in the order of the files.
        left_out: a sentence for each file and runtime that is not compared.
        without: file -> why it is compared on nothing.
    """

    pairs: list[Pair] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    without: dict[Path, InputError] = field(default_factory=dict)


def default_runtimes() -> list[str]:
    """Every runtime that is compared unless others are named: those that are installed.

    Raises:
        MissingPackage: none is.
    """
    found = []
    for name in _COMPARED:
        with suppress(MissingPackage):
            check_available(name, "cpu")
            found.append(name)
    if not found:
        raise MissingPackage("onnxruntime", extra="cpu", purpose="icnet parity")
    return found


def pair(
    artefacts: Sequence[Path], runtimes: Sequence[str] | None = None, device: str = "auto"
) -> Pairing:
    """Pairs files with runtimes.

    By default a file goes to every installed runtime that its precision is meant for, and a float16
    file to `ROUNDED`, too. Named runtimes get every file, whether it is meant for them or not,
    unless it cannot work there: an engine goes to runtimes of engines only, by default to the one
    that built it, and an ONNX file to none of these.

    Args:
        artefacts: ONNX files and engines; naming one twice is naming it once.
        runtimes: names that `Predictor.from_onnx` takes, and `rounded`; None for the default.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        MissingPackage: no runtime is installed for the ONNX files.
        InputError: an engine is asked for on the CPU.
    """
    found = Pairing()
    named = None if runtimes is None else list(dict.fromkeys(runtimes))
    default: list[str] | None = None
    for path in dict.fromkeys(artefacts):
        before = len(found.pairs)
        if path.suffix in ENGINE_SUFFIXES:
            refuse_cpu(path, device)
            _pair_engine(found, path, ["auto"] if named is None else named)
        elif named is None:
            default = default or default_runtimes()
            _pair_default(found, path, _precision(path), default, device)
        else:
            _pair_named(found, path, _precision(path), named, device)
        if len(found.pairs) == before and path not in found.without:
            found.without[path] = InputError(f"{path} is compared on nothing: {found.left_out[-1]}")
    return found


def refuse_cpu(path: Path, device: str) -> None:
    """Refuses to run an engine where there is none to be run (InputError)."""
    if device == "cpu":
        raise InputError(
            f"{path} is an engine, which runs on the GPU: leave --device cpu away, or give the "
            "ONNX file that it was built from"
        )


def _pair_engine(found: Pairing, path: Path, runtimes: Sequence[str]) -> None:
    for runtime in runtimes:
        if runtime in ("auto", *ENGINE_RUNTIMES):
            found.pairs.append(Pair(path, runtime, "cuda"))
        else:
            found.left_out.append(
                f"{path.name} on {runtime}: an engine runs on {' or '.join(ENGINE_RUNTIMES)}"
            )


def _pair_default(
    found: Pairing, path: Path, precision: str | None, runtimes: Sequence[str], device: str
) -> None:
    meant = MEANT_FOR.get(precision or "", _COMPARED)
    for runtime in runtimes:
        if runtime in meant:
            found.pairs.append(Pair(path, runtime, _device(precision, runtime, device)))
        else:
            found.left_out.append(
                f"{path.name} on {runtime}: {precision} is placed for {', '.join(meant)}; "
                f"--runtime {runtime} compares it there all the same"
            )
    if not set(meant).intersection(runtimes):
        runtime = next(name for name in _COMPARED if name in meant)
        found.without[path] = MissingPackage(
            runtime, extra=_EXTRAS[runtime], purpose=f"{path.name} ({precision})"
        )
    if precision == "fp16":
        missing = [p for p in ("onnx", "onnxruntime") if find_spec(p) is None]
        if missing:
            found.left_out.append(
                f"{path.name}, {ROUNDED}: it needs {missing[0]} (pip install "
                '"icnet-deploy[export]"), so how the file answers on a GPU is not known'
            )
        else:
            found.pairs.append(Pair(path, ROUNDED, "cpu"))


def _pair_named(
    found: Pairing, path: Path, precision: str | None, runtimes: Sequence[str], device: str
) -> None:
    for runtime in runtimes:
        if runtime == ROUNDED and precision != "fp16":
            found.left_out.append(f"{path.name}, {ROUNDED}: it is {precision}, not fp16")
        elif precision == "int8-ort" and runtime.startswith("tensorrt"):
            found.left_out.append(
                f"{path.name} on {runtime}: TensorRT's parser refuses int8-ort, whose activations "
                "are uint8; int8 is for it"
            )
        elif runtime in ENGINE_RUNTIMES:
            found.left_out.append(
                f"{path.name} on {runtime}: it runs engines, and this is an ONNX file; build one "
                f"with `icnet build-engine {path} --with {runtime}`"
            )
        elif precision in MEANT_FOR and runtime == "onnxruntime" and device == "cuda":
            found.left_out.append(
                f"{path.name} on CUDA: ONNX Runtime has no integer convolution there; fp16 is for "
                "it, and int8 for TensorRT"
            )
        else:
            found.pairs.append(Pair(path, runtime, _device(precision, runtime, device)))


def _device(precision: str | None, runtime: str, device: str) -> str:
    """INT8 goes to ONNX Runtime's CPU kernels, CUDA or not."""
    if device == "auto" and (runtime == ROUNDED or precision in MEANT_FOR):
        return "cpu"
    return device


def _precision(path: Path) -> str | None:
    """None for what is no artefact: opening it says what it is."""
    try:
        return read_onnx_metadata(path).precision
    except ModelError:
        return None


@contextmanager
def open_pair(pair: Pair) -> Iterator[Predictor]:
    """Opens what a row is made with.

    Raises:
        ModelError, InputError, UnavailableError: as `Predictor.from_onnx` and `from_engine`.
    """
    if pair.path.suffix in ENGINE_SUFFIXES:
        with Predictor.from_engine(pair.path, pair.runtime) as predictor:
            yield predictor
    elif pair.runtime == ROUNDED:
        with TemporaryDirectory() as folder:
            copy = _rounded_copy(pair.path, Path(folder))
            with Predictor.from_onnx(copy, "onnxruntime", "cpu") as predictor:
                yield predictor
    else:
        # What judges a file takes nothing that was compiled of one before.
        with Predictor.from_onnx(
            pair.path, pair.runtime, pair.device, tf32=pair.tf32, cached=False
        ) as predictor:
            yield predictor


def _rounded_copy(path: Path, folder: Path) -> Path:
    metadata = read_onnx_metadata(path)  # a file that is cut off is told in one line
    try:
        import onnx
    except ImportError as error:
        raise MissingPackage("onnx", extra="export", purpose=f"runtime {ROUNDED!r}") from error
    from icnet_deploy.export.passes import rounded

    model = onnx.load(path)
    rounded(model)
    copy = folder / path.name
    copy.write_bytes(stamped(model.SerializeToString(), metadata))
    return copy
