"""Runs artefacts beside the reference, image by image: what `icnet parity` and `verify` share."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from icnet_deploy.data import Dataset, Sample
from icnet_deploy.errors import IcnetError, InputError, ModelError
from icnet_deploy.evaluation.budgets import BUDGETS, Budget, budget_for
from icnet_deploy.evaluation.confidence.differences import LEVEL
from icnet_deploy.evaluation.kept import Journal, Kept, image_key
from icnet_deploy.evaluation.pairing import ROUNDED, Pairing, Run, open_run
from icnet_deploy.evaluation.parity.comparison import Compared, Comparison
from icnet_deploy.evaluation.parity.page import difference_exhibit
from icnet_deploy.evaluation.parity.references import Answers, References
from icnet_deploy.evaluation.pictures import Exhibit, Gallery
from icnet_deploy.evaluation.reference import Reference
from icnet_deploy.evaluation.score import Score, refuse_calibration_images
from icnet_deploy.precisions import PRECISIONS
from icnet_deploy.runtime.auto.folder import ArtefactFile
from icnet_deploy.runtime.predictor import Predictor

Failures = dict[Run, IcnetError]
"""Run -> why it cannot be compared."""

Opener = Callable[[Run], AbstractContextManager[Predictor]]
Look = Callable[[int, list[Comparison]], bool]
"""From how many images were compared, and the rows so far: whether that is enough."""


def compare(
    pairing: Pairing,
    dataset: Dataset,
    reference: Reference,
    *,
    budgets: Mapping[str, Budget] = BUDGETS,
    held: bool = False,
    pictures: int = 0,
    strict: bool = False,
    opener: Opener = open_run,
    level: float = LEVEL,
    look: Look | None = None,
    kept: Kept | None = None,
) -> tuple[list[Comparison], Failures]:
    """Compares artefacts on runtimes with the network that they were made from.

    Every model stays loaded and the images go through one by one, so that memory does not grow
    with the data set, and the reference runs once for each size and image.

    Args:
        pairing: what is run on what, and what was read of it, which is not read again.
        dataset: images; the reference's answers stand for the labels of those that have none.
        reference: the network, at any size.
        budgets: precision -> what is allowed.
        held: of images without labels, hold mIoU and classes to their limits, too: by the
            reference's own map, a tie being no error.
        pictures: how many images to draw for a report, the worst of each row first.
        strict: raise the error of a run that cannot be compared; else it is left out.
        opener: opens a run.
        level: of the intervals on which the rows' verdicts rest.
        look: is shown the rows after each image, and ends the run by returning True.
        kept: takes and gives what is counted of each image; None: nothing is kept.

    Returns:
        A row for each run, with its pictures; and what was left out.

    Raises:
        ModelError: an artefact cannot be read, changes, or comes from another network.
        InputError: an image was used for calibration, or a runtime or device is unknown.
        UnavailableError: a package or a device is missing.
        BackendError: a runtime failed.
    """
    attempt = _Attempt(strict)
    files = pairing.files
    with ExitStack() as stack:
        opened: dict[Run, Predictor] = {}
        for run in pairing.runs:
            with attempt(run):
                _read(files[run.path], run, opener)
                opened[run] = stack.enter_context(opener(run))
        for run, predictor in opened.items():
            with attempt(run):
                _require_origin(files[run.path], predictor, reference)
                budget_for(predictor.metadata.precision, budgets)
        if look is None:  # else each image when its turn comes: most may never be looked at
            _refuse_calibrated(opened, dataset, attempt)
        left = {run: predictor for run, predictor in opened.items() if run not in attempt.failures}
        if not left:
            return [], attempt.failures
        if not dataset.labelled:  # the truth is the reference's answer, of its classes
            dataset = replace(dataset, label_set=reference.label_set)
        keys = {(p.metadata.size, p.metadata.head) for p in left.values()}
        kept = kept or Kept()
        references = References(reference, keys, dataset, kept)
        start = partial(_rows, left, files, references, budgets, held, pictures, level, kept)
        rows = _compare_images(dataset, references, left, start, attempt, look)
        for run in rows:
            with attempt(run):
                _require_unchanged(files[run.path])
    for score in references.scores.values():
        score.require_truth()
    whole = [row for run, row in rows.items() if run not in attempt.failures]
    return whole, attempt.failures


class _Attempt:
    """Contexts in which the error of a run is raised, or kept.

    Args:
        strict: raise it.

    Attributes:
        failures: the first error of each run.
    """

    def __init__(self, strict: bool) -> None:
        self.failures: Failures = {}
        self._strict = strict

    @contextmanager
    def __call__(self, *runs: Run) -> Iterator[None]:
        try:
            yield
        except IcnetError as error:
            if self._strict:
                raise
            self.failures |= {run: error for run in runs if run not in self.failures}


def _compare_images(
    dataset: Dataset,
    references: References,
    opened: Mapping[Run, Predictor],
    start: Callable[[], dict[Run, Comparison]],
    attempt: _Attempt,
    look: Look | None,
) -> dict[Run, Comparison]:
    """Adds image after image to the rows that `start` gives once the reference has answered one."""
    rows: dict[Run, Comparison] = {}
    at_most = "parity" if look is None else "parity, at most"  # what the bar's time to go is
    with tqdm(dataset, desc=at_most, unit="image", disable=None) as bar:
        for images, sample in enumerate(bar, 1):
            if look is not None:
                _refuse_calibrated(opened, [sample], attempt)
            image = image_key(sample)
            answers = references.add(sample, image)
            rows = rows or start()
            for run in [run for run in rows if run not in attempt.failures]:
                again = partial(_draw, rows[run], opened[run], references, dataset, images - 1)
                with attempt(run):
                    _add(rows[run], opened[run], sample, image, answers, again)
            whole = [row for run, row in rows.items() if run not in attempt.failures]
            if not whole or (look is not None and look(images, whole)):
                break
    for run, row in rows.items():
        with attempt(run):
            row.gallery.exhibits()  # are drawn while the models are open
    return rows


def _add(
    row: Comparison,
    predictor: Predictor,
    sample: Sample,
    image: str,
    answers: Answers,
    again: Callable[[], Exhibit],
) -> None:
    """Adds one image, which one artefact is run on unless what it would answer is kept.

    Args:
        row: what is added to.
        predictor: runs the artefact.
        sample: the image and its truth.
        image: its `image_key`.
        answers: the reference's.
        again: draws it, running both again.
    """
    one = row.journal.get(image)
    draw = again
    if one is None:
        answer = answers[row.key]
        labels = predictor.predict(sample.image).labels
        one, marks = row.count(sample, answer, labels)
        row.journal.add(image, one)
        draw = partial(difference_exhibit, row, sample, answer, marks, labels)
    row.take(sample, one)
    row.gallery.offer(one.pixels.differing, draw, later=draw is again)


def _draw(
    row: Comparison, predictor: Predictor, references: References, dataset: Dataset, index: int
) -> Exhibit:
    """Draws where a row differs on an image that was taken from what is kept."""
    sample = dataset[index]
    answer = references.answers(sample)[row.key]
    labels = predictor.predict(sample.image).labels
    _, marks = row.count(sample, answer, labels)
    return difference_exhibit(row, sample, answer, marks, labels)


def _refuse_calibrated(
    opened: Mapping[Run, Predictor], samples: Iterable[Sample], attempt: _Attempt
) -> None:
    """One look through the images for all artefacts that were calibrated on the same images."""
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run, predictor in opened.items():
        groups[predictor.metadata.calibration_images].append(run)
    for images, runs in groups.items():
        with attempt(*runs):
            names = ", ".join(dict.fromkeys(str(run.path) for run in runs))
            refuse_calibration_images(samples, {names: images})


def _rows(
    opened: Mapping[Run, Predictor],
    files: Mapping[Path, ArtefactFile],
    references: References,
    budgets: Mapping[str, Budget],
    held: bool,
    pictures: int,
    level: float,
    kept: Kept,
) -> dict[Run, Comparison]:
    """The rows, still empty, once the reference has answered the first image.

    Each is called by its file's name, or by its path where two files have one.
    """
    names = Counter(path.name for path in {run.path for run in opened})
    rows = {}
    for run, predictor in opened.items():
        path, metadata = run.path, predictor.metadata
        reference = references.scores[metadata.size, metadata.head]
        budget = budget_for(metadata.precision, budgets)
        labelled = reference.dataset.labelled
        if not labelled and not held:  # what may be lost is lost of people's labels
            budget = replace(budget, miou_points=None, class_points=None)
        margin = references.tie_margins.get(PRECISIONS[metadata.precision].bits)
        budget = budget if margin is None else replace(budget, tie_margin=margin)
        rows[run] = Comparison(
            artefact=path,
            name=path.name if names[path.name] == 1 else str(path),
            sha256=files[path].sha256,
            metadata=metadata,
            runtime=ROUNDED if run.runtime == ROUNDED else predictor.runtime,
            device=predictor.device,
            score=Score.of(reference.dataset, metadata),
            reference=reference,
            budget=budget,
            origin=references.origin,
            ties_are_right=held and not labelled,
            gallery=Gallery(min(2, -(-pictures // len(opened)))),
            level=level,
        )
        rows[run].journal = _journal(kept, rows[run], run, references)
    kept.say_before()
    return rows


def _journal(kept: Kept, row: Comparison, run: Run, references: References) -> Journal[Compared]:
    """What is kept of a row's images: by all that its numbers depend on."""
    return kept.journal(
        partial(Compared.from_dict, classes=len(row.score.dataset.label_set)),
        kind="artefact",
        artefact=row.sha256,
        metadata=row.metadata.to_json(),
        runtime=row.runtime,
        device=row.device,
        tf32=run.tf32,
        tie_margin=row.budget.tie_margin,
        ties_are_right=row.ties_are_right,
        **references.scored_on(),
    )


def _read(artefact: ArtefactFile, run: Run, opener: Opener) -> None:
    """Takes an artefact's digest before it is opened."""
    try:
        _ = artefact.digest
    except ModelError:
        with opener(run):  # says more of what is wrong with the file
            raise


def _require_unchanged(artefact: ArtefactFile) -> None:
    """Refuses an artefact that was not the same file all the time (ModelError)."""
    path = artefact.path
    if not artefact.digest.stands(path.parent):
        raise ModelError(
            f"{path}, or its external data, changed during the comparison, so there is no verdict: "
            "try again when no other program writes to it"
        )


def _require_origin(artefact: ArtefactFile, predictor: Predictor, reference: Reference) -> None:
    """Refuses what was not made from the reference's network (ModelError, InputError)."""
    path, metadata, network = artefact.path, predictor.metadata, reference.network
    network.require_origin(path, metadata, artefact.sha256)
    name, label_set = network.origin.name, reference.label_set
    if metadata.label_set != label_set:
        raise InputError(
            f"the classes of {path} (label set {metadata.label_set.name}, "
            f"{len(metadata.label_set)} classes) differ from those of its reference {name} (label "
            f"set {label_set.name}, {len(label_set)} classes) in number, names or colours: export "
            "it again"
        )
    for rule in ("upsampling", "fit"):
        own, other = (getattr(one, rule) for one in (metadata, network.metadata))
        if own != other:
            raise InputError(
                f"{path} has the {rule} {own!r}, but its reference {name} has {other!r}: export it "
                f"again, or give the reference the {rule} of the artefact"
            )
    network.require_size(metadata.size)
