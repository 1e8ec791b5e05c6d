"""Runs artefacts beside the reference, image by image: what `icnet parity` and `verify` share."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from icnet_deploy.data import Dataset, Sample
from icnet_deploy.errors import IcnetError, InputError, ModelError
from icnet_deploy.evaluation.budgets import BUDGETS, Budget, budget_for
from icnet_deploy.evaluation.pairing import ROUNDED, Pair, open_pair
from icnet_deploy.evaluation.parity.comparison import Comparison, References
from icnet_deploy.evaluation.parity.report import offer_difference
from icnet_deploy.evaluation.pictures import Gallery
from icnet_deploy.evaluation.reference import Reference, shipped_checkpoint
from icnet_deploy.evaluation.score import Score, refuse_calibration_images
from icnet_deploy.runtime.auto.folder import Digest, digest_of
from icnet_deploy.runtime.predictor import Predictor

Failed = Callable[[Pair, IcnetError], None]
"""Is told of a pair that cannot be compared, and why."""


@dataclass(frozen=True)
class _Case:
    """A row of the table, the model behind it, and the pictures for it."""

    pair: Pair
    row: Comparison
    predictor: Predictor
    gallery: Gallery


def compare(
    pairs: Sequence[Pair],
    dataset: Dataset,
    *,
    weights: Path | None = None,
    budgets: Mapping[str, Budget] = BUDGETS,
    pictures: int = 0,
    failed: Failed | None = None,
) -> tuple[list[Comparison], list[Gallery]]:
    """Compares artefacts on runtimes with the checkpoint that they were made from.

    Every model stays loaded and the images go through one by one, so that memory does not grow
    with the data set, and the reference runs once for each size and image.

    Args:
        pairs: what is run on what; see `icnet_deploy.evaluation.pairing`.
        dataset: labelled images.
        weights: the checkpoint, or None for the one that is shipped.
        budgets: precision -> what is allowed.
        pictures: how many images to draw for a report, the worst of each row first.
        failed: is told of a pair that cannot be compared, which is then left out; None: its error
            is raised.

    Returns:
        A row for each pair, and each row's pictures.

    Raises:
        ModelError: an artefact cannot be read, changes, or comes from another checkpoint.
        InputError: an image was used for calibration, or a runtime or device is unknown.
        UnavailableError: a package or a device is missing.
        BackendError: a runtime failed.
    """
    attempt = _Attempt(failed)
    with ExitStack() as stack:
        opened: dict[Pair, Predictor] = {}
        digests: dict[Path, Digest] = {}
        for pair in pairs:
            with attempt(pair):
                if pair.path not in digests:
                    digests[pair.path] = _digest(pair)
                opened[pair] = stack.enter_context(open_pair(pair))
        reference = Reference(weights or shipped_checkpoint(), None)
        for pair, predictor in opened.items():
            with attempt(pair):
                _require_origin(pair.path, predictor, reference)
                budget_for(predictor.metadata.precision, budgets)
        _refuse_calibrated(opened, dataset, attempt)
        left = {pair: predictor for pair, predictor in opened.items() if pair not in attempt.failed}
        if not left:
            return [], []
        keys = {(p.metadata.size, p.metadata.head) for p in left.values()}
        references = References(reference, keys, dataset)
        names = _names([pair.path for pair in left])
        cases = [
            _Case(
                pair,
                _row(
                    pair,
                    names[pair.path],
                    digests[pair.path].sha256,
                    predictor,
                    references,
                    budgets,
                ),
                predictor,
                Gallery(min(2, -(-pictures // len(left)))),
            )
            for pair, predictor in left.items()
        ]
        for sample in tqdm(dataset, desc="parity", unit="image", disable=None):
            _compare_one(cases, references, sample, attempt)
        for case in cases:
            with attempt(case.pair):
                _require_unchanged(case.pair.path, digests[case.pair.path])
    for score in references.scores.values():
        score.require_truth()
    whole = [case for case in cases if case.pair not in attempt.failed]
    return [case.row for case in whole], [case.gallery for case in whole]


class _Attempt:
    """Contexts in which the error of a pair is raised, or told and remembered."""

    def __init__(self, tell: Failed | None) -> None:
        self.failed: set[Pair] = set()
        self._tell = tell

    @contextmanager
    def __call__(self, *pairs: Pair) -> Iterator[None]:
        try:
            yield
        except IcnetError as error:
            if self._tell is None:
                raise
            for pair in pairs:
                if pair not in self.failed:
                    self.failed.add(pair)
                    self._tell(pair, error)


def _compare_one(
    cases: Sequence[_Case], references: References, sample: Sample, attempt: _Attempt
) -> None:
    answers = references.answers(sample)
    for case in cases:
        if case.pair in attempt.failed:
            continue
        with attempt(case.pair):
            answer = answers[case.row.key]
            labels = case.predictor.predict(sample.image).labels
            marks = case.row.add(sample, answer, labels)
            offer_difference(case.gallery, case.row, sample, answer, marks, labels)


def _refuse_calibrated(
    opened: Mapping[Pair, Predictor], dataset: Dataset, attempt: _Attempt
) -> None:
    """One look through the data set for all artefacts that were calibrated on the same images."""
    groups: dict[tuple[str, ...], list[Pair]] = defaultdict(list)
    for pair, predictor in opened.items():
        groups[predictor.metadata.calibration_images].append(pair)
    for images, pairs in groups.items():
        with attempt(*pairs):
            names = ", ".join(dict.fromkeys(str(pair.path) for pair in pairs))
            refuse_calibration_images(dataset, {names: images})


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """The file's name, or the path as it was given where two files have one name."""
    files = Counter(path.name for path in dict.fromkeys(paths))
    return {path: path.name if files[path.name] == 1 else str(path) for path in paths}


def _row(
    pair: Pair,
    name: str,
    sha256: str,
    predictor: Predictor,
    references: References,
    budgets: Mapping[str, Budget],
) -> Comparison:
    metadata = predictor.metadata
    reference = references.scores[metadata.size, metadata.head]
    return Comparison(
        artefact=pair.path,
        name=name,
        sha256=sha256,
        metadata=metadata,
        runtime=ROUNDED if pair.runtime == ROUNDED else predictor.runtime,
        device=predictor.device,
        score=Score(reference.dataset, metadata.label_set, metadata.size, metadata.head),
        reference=reference,
        budget=budget_for(metadata.precision, budgets),
    )


def _digest(pair: Pair) -> Digest:
    try:
        return digest_of(pair.path)
    except ModelError:
        with open_pair(pair):  # says more of what is wrong with the file
            raise


def _require_unchanged(path: Path, digest: Digest) -> None:
    """Refuses an artefact that was not the same file all the time (ModelError)."""
    if not digest.stands(path.parent):
        raise ModelError(
            f"{path}, or its external data, changed while it was compared: nothing can be said of "
            "it; try again when nobody writes to it"
        )


def _require_origin(path: Path, predictor: Predictor, reference: Reference) -> None:
    """Refuses what was not made from the reference's checkpoint (ModelError, InputError)."""
    metadata, checkpoint = predictor.metadata, reference.checkpoint
    if metadata.weights_sha256 is None:
        raise ModelError(
            f"{path} does not say which checkpoint it was made from, so there is nothing to "
            "compare it with: export it again with `icnet export`"
        )
    if metadata.weights_sha256 != checkpoint.sha256:
        raise ModelError(
            f"{path} was made from the checkpoint with SHA-256 {metadata.weights_sha256}, but "
            f"{checkpoint.path} has {checkpoint.sha256}: name the artefact's own checkpoint with "
            "--weights"
        )
    if metadata.label_set != checkpoint.label_set:
        raise InputError(
            f"{path} speaks of {len(metadata.label_set)} classes of {metadata.label_set.name}, its "
            f"checkpoint {checkpoint.path} of {len(checkpoint.label_set)} of "
            f"{checkpoint.label_set.name}, or by other names or colours: export it again"
        )
