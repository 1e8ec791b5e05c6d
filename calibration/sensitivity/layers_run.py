"""The run of `icnet sensitivity --layers`: which files are compared, and where the result goes."""

import argparse
from os.path import isfile
from pathlib import Path
from typing import Any, NamedTuple

import onnx

from icnet_deploy.calibration.artefact import Recipe, load_float
from icnet_deploy.calibration.calibrate import Calibration
from icnet_deploy.calibration.equalize import equalized
from icnet_deploy.calibration.ladder.smoothing import smoothing_factors
from icnet_deploy.calibration.placements.registry import cpu_runtime
from icnet_deploy.calibration.sensitivity.bench import Graphs
from icnet_deploy.calibration.sensitivity.kept import calibration_of
from icnet_deploy.calibration.sensitivity.layers import Subject, compare_layers
from icnet_deploy.calibration.sensitivity.layers_report import (
    layers_page,
    layers_plot,
    layers_text,
)
from icnet_deploy.data.options import open_data
from icnet_deploy.errors import InputError, ModelError
from icnet_deploy.evaluation.foreign_network import is_foreign
from icnet_deploy.evaluation.pairing import ROUNDED
from icnet_deploy.files import scratch_folder, write_json, write_text
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.metadata import ArtefactMetadata, read_onnx_metadata
from icnet_deploy.precisions import PRECISIONS, precision_of
from icnet_deploy.report.svg import alone as as_file
from icnet_deploy.runtime.auto.folder import kind_of, read_artefacts
from icnet_deploy.runtime.backends.registry import check_available
from icnet_deploy.runtime.machine import machine, versions

_SCHEMA = 1


class _Compared(NamedTuple):
    """What is compared.

    Attributes:
        model: the float32 graph; of what is equalized, with the same factors.
        reference: its file.
        subject: what is compared with it.
    """

    model: onnx.ModelProto
    reference: Path
    subject: Subject


def run_layers(args: argparse.Namespace) -> None:
    """Does what `icnet sensitivity --layers` was asked for.

    Raises:
        InputError: options and files do not fit.
        UnavailableError, ModelError, BackendError: as `compare_layers`.
    """
    dataset = open_data(args)
    with scratch_folder() as folder:
        compared = _compared(args, folder)
        subject = compared.subject
        layers = compare_layers(compared.model, subject, dataset, folder)
    result: dict[str, Any] = {
        "schema": _SCHEMA,
        "kind": "layers",
        "versions": versions(),
        "machine": machine(),
        "artefact": args.model.name,
        "sha256": artefact_sha256(args.model),
        "weights_sha256": subject.metadata.weights_sha256,
        "precision": subject.metadata.precision,
        "runtime": subject.runtime,
        "device": subject.device,
        "reference": compared.reference.name,
        "reference_sha256": artefact_sha256(compared.reference),
        "images": " ".join(dict.fromkeys(filter(None, (dataset.name, dataset.split)))),
        **layers.to_dict(),
    }
    if args.json:
        write_json(args.json, result)
    if args.report:
        write_text(args.report, layers_page(result))
    if args.plot:
        write_text(args.plot, as_file(layers_plot(result)))
    print(layers_text(result))  # last: its reader may close the pipe


def _compared(args: argparse.Namespace, folder: Path) -> _Compared:
    if kind_of(args.model) == "engine":
        raise InputError(
            f"{args.model} is an engine, whose blocks cannot be seen: name the ONNX file that it "
            "was built from"
        )
    metadata = read_onnx_metadata(args.model)
    if metadata.precision != "fp32":
        return _artefact(args, metadata)
    if args.reference is not None:
        raise InputError(
            f"--reference {args.reference} is for INT8 and FP16 files, and {args.model} is "
            "float32: leave it out, or name the artefact that was made from that file"
        )
    model, _, _ = load_float(args.model)
    if args.placement is None:
        if args.runtime is None:
            raise InputError(
                f"{args.model} is float32: give --placement to compare its 8-bit graph, or "
                "--runtime to compare it on another runtime"
            )
        return _Compared(model, args.model, _subject(args, args.model, metadata))
    calibration = calibration_of(args, args.calibration or _beside(args.model))
    recipe = Recipe(calibration, args.placement, calibration.method(args.placement))
    graphs = Graphs(args.model, recipe, folder)
    path = graphs.write(graphs.kept)
    subject = _subject(args, path, read_onnx_metadata(path))
    return _Compared(equalized(model, calibration.factors), args.model, subject)


def _artefact(args: argparse.Namespace, metadata: ArtefactMetadata) -> _Compared:
    """An INT8 or FP16 file against the float32 one that it was made from."""
    if args.placement is not None:
        raise InputError(
            f"--placement {args.placement} is for float32 files, and {args.model} is "
            f"{metadata.precision}: leave it out, or name the float32 file"
        )
    reference = args.reference or _origin(args.model, metadata)
    if is_foreign(reference):
        raise InputError(
            f"--reference {reference} is another program's file, whose tensors are not those of "
            f"{args.model}: name the float32 artefact that `icnet adopt` made of it"
        )
    model, origin, size = load_float(reference)
    for what, ours, theirs in (
        ("size", metadata.size, size),
        ("head", metadata.head, origin.head),
        ("weights", metadata.weights_sha256, origin.weights_sha256),
    ):
        if ours != theirs:
            raise InputError(
                f"{args.model} was not made from {reference}: the reference's {what} is {theirs}, "
                f"expected {ours}; name the right file with --reference"
            )
    row = precision_of(metadata.precision)
    if row is not None and row.calibrated:
        calibration = _made_with(args, args.calibration or _beside(reference), metadata)
        try:
            model = equalized(model, calibration.factors)
            if "smoothing" in metadata.tools:
                model = equalized(model, smoothing_factors(model, calibration.statistics))
        except ValueError as error:
            raise InputError(
                f"the calibration of {args.model} does not fit {reference} ({error}): another "
                "release made it; quantize again"
            ) from error
    elif args.calibration is not None:
        raise InputError(
            f"--calibration {args.calibration} is for 8-bit files, and {args.model} is "
            f"{metadata.precision}: leave it out"
        )
    return _Compared(model, reference, _subject(args, args.model, metadata))


def _beside(model: Path) -> Path:
    """Where `icnet quantize` keeps the ranges of a float32 file unless told otherwise."""
    return model.parent / f"{model.stem}.calibration.json"


def _made_with(args: argparse.Namespace, cache: Path, metadata: ArtefactMetadata) -> Calibration:
    """The calibration that an 8-bit file was made with: it tells how its channels are scaled."""
    places = dict.fromkeys((cache, args.model.parent / cache.name))
    path = next((place for place in places if isfile(place)), None)
    if path is None:
        raise InputError(
            f"there is no {cache}, where `icnet quantize` writes how it scales the channels of an "
            "8-bit file: name the file with --calibration, or quantize again"
        )
    calibration = Calibration.read(path)
    if (calibration.parent_sha256, calibration.images) != (
        metadata.parent_sha256,
        metadata.calibration_images,
    ):
        raise InputError(
            f"{path} is not the calibration that {args.model} was made with: name that one with "
            "--calibration, or quantize again"
        )
    return calibration


def _origin(path: Path, metadata: ArtefactMetadata) -> Path:
    """The float32 file beside an artefact that it was made from: its parent, or of its weights.

    An adopted file's parent is the other program's, which holds its weights.
    """
    of_weights = metadata.parent_sha256 in (None, metadata.weights_sha256)
    for one in read_artefacts(path.parent):
        other = one.metadata
        if other is None or other.precision != "fp32" or one.is_engine or one.problem:
            continue
        if not of_weights:
            if one.sha256 == metadata.parent_sha256:
                return one.path
        elif metadata.weights_sha256 is not None and (
            (other.weights_sha256, other.size, other.head)
            == (metadata.weights_sha256, metadata.size, metadata.head)
        ):
            return one.path
    raise ModelError(
        f"the float32 file that {path} was made from is not in its folder: name it with --reference"
    )


def _subject(args: argparse.Namespace, path: Path, metadata: ArtefactMetadata) -> Subject:
    """Where a file runs: where it was asked for, or where its precision is meant for."""
    row = PRECISIONS[metadata.precision]
    runtime, device = args.runtime, args.device or "cpu"
    if runtime is None:
        runtime = ROUNDED if row.rounded and device == "cpu" else cpu_runtime(row.name)
    if runtime != ROUNDED:
        check_available(runtime, device)
    elif not row.rounded:
        able = " or ".join(one.name for one in PRECISIONS.values() if one.rounded)
        raise InputError(
            f"--runtime {ROUNDED} is for {able}, and {args.model} is {row.name}: name another"
        )
    elif device != "cpu":
        raise InputError(f"--runtime {ROUNDED} runs on the CPU: leave --device {device} out")
    return Subject(path, metadata, runtime, device)
