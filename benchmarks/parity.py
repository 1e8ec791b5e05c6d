"""`icnet parity`: proves that artefacts, on their runtimes, are the PyTorch model."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from icnet_deploy.benchmarks.comparison import Comparison, References
from icnet_deploy.benchmarks.options import (
    add_data_options,
    add_output_options,
    check_outputs,
    open_data,
)
from icnet_deploy.benchmarks.parity_report import offer_difference, parity_page
from icnet_deploy.benchmarks.parity_result import to_dict, verdict_table
from icnet_deploy.benchmarks.pictures import Gallery
from icnet_deploy.benchmarks.reference import Reference, shipped_checkpoint
from icnet_deploy.benchmarks.scoring import Score, refuse_calibration_images
from icnet_deploy.command import command
from icnet_deploy.command import parser as make_parser
from icnet_deploy.data import Dataset
from icnet_deploy.errors import CheckFailed, MissingPackage, ModelError
from icnet_deploy.files import sha256, write_json, write_text
from icnet_deploy.runtime.backends import check_available
from icnet_deploy.runtime.predictor import Predictor

__all__ = ["compare", "main"]

_RUNTIMES = ("onnxruntime", "openvino")
_PICTURES = 12  # sets of pictures in a report: about 0.4 MB each


@dataclass(frozen=True)
class _Case:
    """A row of the table, the model behind it, and the pictures for it."""

    row: Comparison
    predictor: Predictor
    gallery: Gallery


def default_runtimes() -> list[str]:
    """Every runtime that is compared unless others are named: those that are installed.

    Raises:
        MissingPackage: none is.
    """
    found = []
    for name in _RUNTIMES:
        with suppress(MissingPackage):
            check_available(name, "cpu")
            found.append(name)
    if not found:
        raise MissingPackage("onnxruntime", extra="cpu", purpose="icnet parity")
    return found


def compare(
    artefacts: Sequence[Path],
    dataset: Dataset,
    *,
    runtimes: Sequence[str],
    device: str = "auto",
    weights: Path | None = None,
    pictures: int = 0,
) -> tuple[list[Comparison], list[Gallery]]:
    """Compares every artefact on every runtime with the checkpoint that it was made from.

    Every model stays loaded and the images go through one by one, so that memory does not grow
    with the data set, and the reference runs once for each size and image.

    Args:
        artefacts: ONNX files (an engine is one row, on its own runtime).
        dataset: labelled images.
        runtimes: names that `Predictor.from_onnx` takes.
        device: `auto`, `cpu` or `cuda`.
        weights: the checkpoint, or None for the one that is shipped.
        pictures: how many images to draw for a report, the worst of each row first.

    Returns:
        A row for each artefact and runtime, and each row's pictures.

    Raises:
        ModelError: an artefact cannot be read, or comes from another checkpoint.
        InputError: an image was used for calibration, or a runtime or device is unknown.
        UnavailableError: a package or a device is missing.
    """
    with ExitStack() as stack:
        predictors = [
            (path, stack.enter_context(_open(path, runtime, device)))
            for path in dict.fromkeys(artefacts)
            for runtime in _runtimes_for(path, runtimes)
        ]
        reference = _reference(weights, predictors)
        refuse_calibration_images(
            dataset, {str(path): p.metadata.calibration_images for path, p in predictors}
        )
        keys = {(p.metadata.size, p.metadata.head) for _, p in predictors}
        references = References(reference, keys, dataset)
        each = min(2, -(-pictures // len(predictors)))
        names = _names(artefacts)
        cases = [
            _Case(_row(path, names[path], p, references, dataset), p, Gallery(each))
            for path, p in predictors
        ]
        for sample in tqdm(dataset, desc="parity", unit="image", disable=None):
            answers = references.answers(sample)
            for case in cases:
                answer = answers[case.row.key]
                labels = case.predictor.predict(sample.image).labels
                marks = case.row.add(sample, answer, labels)
                offer_difference(case.gallery, case.row, sample, answer, marks, labels)
    for score in references.scores.values():
        score.require_truth()
    return [case.row for case in cases], [case.gallery for case in cases]


def _is_engine(path: Path) -> bool:
    return path.suffix in (".engine", ".plan")


def _runtimes_for(path: Path, runtimes: Sequence[str]) -> list[str]:
    return ["tensorrt"] if _is_engine(path) else list(dict.fromkeys(runtimes))


def _open(path: Path, runtime: str, device: str) -> Predictor:
    if _is_engine(path):
        return Predictor.from_engine(path)
    return Predictor.from_onnx(path, runtime=runtime, device=device)


def _names(artefacts: Sequence[Path]) -> dict[Path, str]:
    """The file's name, or the path as it was given where two files have one name."""
    files = Counter(path.name for path in dict.fromkeys(artefacts))
    return {path: path.name if files[path.name] == 1 else str(path) for path in artefacts}


def _row(
    path: Path, name: str, predictor: Predictor, references: References, dataset: Dataset
) -> Comparison:
    metadata = predictor.metadata
    return Comparison(
        artefact=path,
        name=name,
        sha256=sha256(path),
        metadata=metadata,
        runtime=predictor.runtime,
        device=predictor.device,
        score=Score(dataset, metadata.label_set, metadata.size, metadata.head),
        reference=references.scores[metadata.size, metadata.head],
    )


def _reference(weights: Path | None, predictors: list[tuple[Path, Predictor]]) -> Reference:
    """The checkpoint's network, once it is known to be what every artefact was made from."""
    weights = weights or shipped_checkpoint()
    reference = Reference(weights, None)
    have = reference.checkpoint.sha256
    for path, predictor in predictors:
        want = predictor.metadata.weights_sha256
        if want is None:
            raise ModelError(
                f"{path} does not say which checkpoint it was made from, so there is nothing to "
                "compare it with: export it again with `icnet export`"
            )
        if want != have:
            raise ModelError(
                f"{path} was made from the checkpoint with SHA-256 {want}, but {weights} has "
                f"{have}: name the artefact's own checkpoint with --weights"
            )
    return reference


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "icnet parity",
        "Compares artefacts with the PyTorch model on labelled images: every artefact on every\n"
        "runtime is held to a budget by its precision. Exits with 1 if a row is past its budget.",
        "icnet parity icnet.onnx icnet.fp16.onnx --dataset scenes --data scenes "
        "--report parity.html",
    )
    parser.add_argument("artefacts", nargs="+", type=Path, metavar="ARTEFACT", help="ONNX files")
    add_data_options(parser)
    parser.add_argument(
        "--runtime",
        action="append",
        metavar="NAME",
        help="a runtime to compare on; may be repeated (default: onnxruntime and openvino, as far "
        "as they are installed)",
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda")
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="the checkpoint that the artefacts were made from (default: the shipped one)",
    )
    add_output_options(parser)
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet parity`; returns its exit code."""
    arguments = _parser().parse_args(argv)
    dataset = open_data(arguments)
    check_outputs(arguments)
    rows, galleries = compare(
        arguments.artefacts,
        dataset,
        runtimes=arguments.runtime or default_runtimes(),
        device=arguments.device,
        weights=arguments.weights,
        pictures=_PICTURES if arguments.report else 0,
    )
    print(verdict_table(rows))
    if arguments.json:
        write_json(arguments.json, to_dict(rows, rows[0].metadata.weights_sha256))
    if arguments.report:
        write_text(arguments.report, parity_page(rows, galleries, _PICTURES))
    failed = sum(bool(row.breaches()) for row in rows)
    if failed:
        raise CheckFailed(f"{failed} of {len(rows)} rows are past their budget")
    return 0
