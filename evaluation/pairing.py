"""Which artefact is compared on which runtime, and what is left out, in words."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from icnet_deploy.errors import InputError, MissingPackage, ModelError, pip_install, require
from icnet_deploy.files import scratch_folder
from icnet_deploy.metadata import read_onnx_metadata, write_artefact
from icnet_deploy.precisions import PRECISIONS, Precision, precision_of
from icnet_deploy.runtime.auto.folder import ArtefactFile, read_artefact
from icnet_deploy.runtime.backends.registry import RUNTIMES, check_available
from icnet_deploy.runtime.predictor import Predictor

ROUNDED = "rounded"
"""Not a runtime: a float16 file in ONNX Runtime with every float16 value rounded. CPUs compute such
files in float32 and hardly round, so this is what tells how the file answers on a GPU."""


class Run(NamedTuple):
    """An artefact on a runtime (or `ROUNDED`) and a device, with TF32 or without."""

    path: Path
    runtime: str
    device: str
    tf32: bool = False


@dataclass
class Pairing:
    """What is compared, and what is not.

    Attributes:
        files: file -> what was read of it.
        runs: in the order of the files.
        left_out: a sentence for each file and runtime that is not compared.
        without: file -> why it is compared on nothing.
    """

    files: dict[Path, ArtefactFile] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    without: dict[Path, InputError] = field(default_factory=dict)


def default_runtimes() -> list[str]:
    """Every runtime that is compared unless others are named: those that are installed.

    Raises:
        MissingPackage: none is.
    """
    installed = []
    for name in onnx_runtimes():
        with suppress(MissingPackage):
            check_available(name, "cpu")
            installed.append(name)
    if not installed:
        raise MissingPackage("onnxruntime", extra="cpu", purpose="icnet parity")
    return installed


def onnx_runtimes() -> list[str]:
    """The runtimes that take ONNX files, on the CPU at least."""
    return [name for name, row in RUNTIMES.items() if not row.engines and "cpu" in row.extras]


def _read_file(path: Path) -> ArtefactFile:
    """What an artefact says of itself; one that cannot be read has a `problem`."""
    try:
        return read_artefact(path)
    except ModelError as error:
        return ArtefactFile(path, problem=str(error))


def pair(
    artefacts: Iterable[Path],
    runtimes: Sequence[str] | None = None,
    device: str = "auto",
    *,
    read: Callable[[Path], ArtefactFile] = _read_file,
) -> Pairing:
    """Pairs files with runtimes.

    By default a file goes to every installed runtime that its precision is meant for, and a float16
    file to `ROUNDED`, too. Named runtimes get every file, whether it is meant for them or not,
    unless it cannot work there: an engine goes to runtimes of engines only, by default to the one
    that built it, and an ONNX file to none of these.

    Args:
        artefacts: ONNX files and engines; naming one twice is naming it once.
        runtimes: names that `Predictor.open` takes, and `rounded`; None for the default.
        device: `auto`, `cpu` or `cuda`.
        read: tells what a file says of itself; opening one with a problem says more of it.

    Raises:
        MissingPackage: no runtime is installed for the ONNX files.
    """
    pairing = Pairing()
    for path in dict.fromkeys(artefacts):
        artefact = read(path)
        named = ["auto"] if runtimes is None and artefact.is_engine else runtimes
        if named is None:
            refusals = {name: _unmeant(artefact, name) for name in _default(artefact)}
        else:
            refusals = {name: _refusal(artefact, name, device) for name in named}
        runs = [Run(path, name, device) for name, why in refusals.items() if why is None]
        left_out = [
            f"{path.name}{', ' if name == ROUNDED else ' on '}{name}: {why}"
            for name, why in refusals.items()
            if why is not None
        ]
        pairing.files[path] = artefact
        pairing.runs += runs
        pairing.left_out += left_out
        if not runs:
            pairing.without[path] = (
                _missing(artefact)
                if named is None
                else InputError(f"{path} cannot be compared on any runtime: {left_out[-1]}")
            )
    return pairing


def _default(artefact: ArtefactFile) -> list[str]:
    """Where an ONNX file is compared unless it is said."""
    row = precision_of(artefact.precision)
    return [*default_runtimes(), *([ROUNDED] if row and row.rounded else [])]


def _unmeant(artefact: ArtefactFile, runtime: str) -> str | None:
    """Why an ONNX file is not compared on a runtime unless that is named, or None."""
    row = precision_of(artefact.precision)
    if runtime == ROUNDED:
        missing = [p for p in ("onnx", "onnxruntime") if find_spec(p) is None]
        return (
            f"it needs {missing[0]} ({pip_install('export')}); without it nothing shows how the "
            "file answers on a GPU"
            if missing
            else None
        )
    if row is None or row.meant_for(runtime):
        return None
    return (
        f"{row.name} is meant for {', '.join(row.runtimes)}; to compare it here as well, give "
        f"`icnet parity` --runtime {runtime}"
    )


def _missing(artefact: ArtefactFile) -> MissingPackage:
    """What would run an ONNX file, of which nothing is installed that its precision is for."""
    row = precision_of(artefact.precision)
    name = next(name for name in onnx_runtimes() if row is None or row.meant_for(name))
    purpose = f"{artefact.path.name} ({artefact.precision})"
    return MissingPackage(
        RUNTIMES[name].package, extra=RUNTIMES[name].extras["cpu"], purpose=purpose
    )


def _refusal(artefact: ArtefactFile, runtime: str, device: str) -> str | None:
    """Why an artefact cannot work on a runtime that was named, or None."""
    row, asked = precision_of(artefact.precision), RUNTIMES.get(runtime)
    engines = asked.engines if asked else runtime == "auto"
    if artefact.is_engine:
        able = " or ".join(name for name, one in RUNTIMES.items() if one.engines)
        return None if engines else f"an engine runs on {able}"
    if runtime == ROUNDED and not (row and row.rounded):
        rounded = " or ".join(name for name, one in PRECISIONS.items() if one.rounded)
        return f"it is {artefact.precision}, but {ROUNDED} takes only {rounded}"
    if asked is None:
        return None  # opening it says which runtimes there are
    refused = row and row.refusal(runtime, device, engines)
    if row and refused:
        return f"{refused}; {_instead(row, runtime, device)}"
    if engines:
        return (
            "it runs engines, but this is an ONNX file: build an engine with "
            f"`icnet build-engine {artefact.path} --with {runtime}`"
        )
    return None


def _instead(row: Precision, runtime: str, device: str) -> str:
    """What is for a runtime that refuses a precision, and what the precision is for."""
    engines = RUNTIMES[runtime].engines
    fitting = [
        one
        for one in PRECISIONS.values()
        if one.meant_for(runtime) and not one.refusal(runtime, device, engines)
    ]
    fastest = min(fitting, key=lambda one: one.rank)
    return f"use {fastest.name} there, or {row.name} on {' or '.join(row.runtimes)}"


@contextmanager
def open_run(run: Run) -> Iterator[Predictor]:
    """Opens what a row is made with.

    Raises:
        ModelError, InputError, UnavailableError: as `Predictor.open`.
    """
    if run.runtime == ROUNDED:
        with scratch_folder() as folder:
            copy = _rounded_copy(run.path, folder)
            with Predictor.open(copy, "onnxruntime", "cpu") as predictor:
                yield predictor
    else:
        # What judges a file takes nothing that was compiled of one before.
        with Predictor.open(
            run.path, run.runtime, run.device, tf32=run.tf32, cached=False
        ) as predictor:
            yield predictor


def _rounded_copy(path: Path, folder: Path) -> Path:
    metadata = read_onnx_metadata(path)  # says in one line of a file that is cut off
    require(f"runtime {ROUNDED!r}", "export", "onnx")
    import onnx

    from icnet_deploy.export.passes import rounded

    model = onnx.load(path)
    rounded(model)
    copy = folder / path.name
    write_artefact(copy, model.SerializeToString(), metadata)
    return copy
