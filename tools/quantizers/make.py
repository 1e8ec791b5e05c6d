"""Makes the file of every recipe in a process of its own: a peer that fails is a row, too."""

import json
import sys
import time
from collections.abc import Collection
from dataclasses import replace
from os.path import exists
from pathlib import Path

import numpy as np
import onnx
from tqdm import tqdm

from icnet_deploy.calibration import choose, stratified
from icnet_deploy.calibration.placements.registry import PLACEMENTS, cpu_runtime
from icnet_deploy.data import Dataset
from icnet_deploy.errors import InputError
from icnet_deploy.images import Fitting
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.processes import run_tool
from tools.quantizers.folder import Made, Network, file_digest
from tools.quantizers.settings import OURS, RUNTIMES, Recipe, recipes

_WORKERS = Path(__file__).parent / "workers"
_PLACE = Path(__file__).parents[2]


def write_images(
    network: Network,
    train: Dataset,
    metadata: ArtefactMetadata,
    size: tuple[int, int],
) -> None:
    """Writes the images that every quantizer gets, and those of the accuracy control.

    The first are those that `icnet quantize` draws of the split; the others are drawn of the rest.

    Args:
        network: whose folder they are written to.
        train: the training split.
        metadata: of the float32 file.
        size: (height, width) of its input.

    Raises:
        InputError: no image of the split is left for the accuracy control.
    """
    fitting = Fitting.of(metadata)
    files = stratified(train, network.calibrated)
    chosen = choose(files, size, exif=train.exif, fitting=fitting)
    np.save(network.images, np.stack(list(chosen)))
    rest = [image for image, _ in train.files if image not in set(files)]
    if not rest:
        raise InputError(
            f"calibration uses all {len(files)} images of {train.name} {train.split}, and accuracy "
            "control needs other images: give a smaller --calibration, or more images"
        )
    others = [rest[i] for i in np.linspace(0, len(rest) - 1, network.validated).astype(int)]
    np.save(network.validation, np.stack([chosen.read(file) for file in others]))


def make_all(
    network: Network,
    nncf: Path | None,
    quantizers: Collection[str] = (),
    names: Collection[str] = (),
    again: bool = False,
    timeout: float = 1800,
) -> None:
    """Makes what is not there yet; ours always, since it is what changes.

    Args:
        network: its folder holds the images.
        nncf: an interpreter that has NNCF; None: its files are not made.
        quantizers: whose files are made; all if empty.
        names: of the settings that are tried; all if empty.
        again: make those that are there, too.
        timeout: seconds for one file.
    """
    rows = [
        each
        for each in recipes(onnx.load(network.model))
        if (not quantizers or each.quantizer in quantizers) and (not names or each.name in names)
    ]
    for recipe in tqdm(rows, desc=network.name, unit="file", disable=None):
        if recipe.quantizer == OURS:
            _make_ours(network, recipe)
        elif recipe.worker != "with_nncf" or nncf is not None:
            record = network.subfolder("files") / f"{recipe.stem}.json"
            if again or not exists(record):
                _make(network, recipe, nncf, timeout).write(record)


def _make(network: Network, recipe: Recipe, nncf: Path | None, timeout: float) -> Made:
    """One file of a peer."""
    python = str(nncf) if recipe.worker == "with_nncf" else sys.executable
    out = network.subfolder("files") / (recipe.stem + recipe.ending)
    work = network.subfolder("work").resolve()
    job = {
        "model": str(network.model.resolve()),
        "images": str(network.images.resolve()),
        "validation": str(network.validation.resolve()),
        "out": str(out.resolve()),
        "work": str(work),
        "settings": dict(recipe.settings),
    }
    start = time.monotonic()
    script = str(_WORKERS / f"{recipe.worker}.py")
    done = run_tool([python, "-P", script, json.dumps(job)], timeout, str(work))
    seconds = round(time.monotonic() - start, 1)
    words = recipe.quantizer, recipe.name, recipe.runtimes, seconds
    if done.returncode == 124:
        return Made(*words, error=f"no file after {timeout:.0f} s")
    if done.returncode or not exists(out):
        return Made(*words, error=_reason(done.stderr, done.returncode, network))
    return Made(*words, out.name, file_digest(out))


def _make_ours(network: Network, recipe: Recipe) -> None:
    """Both placements, by the command that a user calls; each is run on either runtime."""
    kept = network.subfolder("work") / "ours.calibration.json"
    kept.unlink(missing_ok=True)  # one pass for both, by this release
    options = [text for pair in recipe.settings.items() for text in map(str, pair)]
    for placement in PLACEMENTS:
        stem = f"{recipe.stem}-{placement}"
        out = network.subfolder("files") / f"{stem}.onnx"
        out.unlink(missing_ok=True)
        start = time.monotonic()
        done = run_tool([
            sys.executable, "-m", "icnet_deploy", "quantize", str(network.model),
            *network.quantize_options, "--count", str(network.calibrated), "--placement", placement,
            "--calibration", str(kept), "-o", str(out), *options,
        ])  # fmt: skip
        seconds = round(time.monotonic() - start, 1)
        name = f"{recipe.name}, {placement}"
        words = recipe.quantizer, name, (cpu_runtime(placement),), seconds
        row = Made(*words, out.name, file_digest(out)) if exists(out) else None
        row = row or Made(*words, error=_reason(done.stderr, done.returncode, network))
        row.write(out.with_suffix(".json"))
        others = tuple(each for each in RUNTIMES if each not in row.runtimes)
        replace(row, runtimes=others).write(out.with_name(f"{stem}-elsewhere.json"))


def _reason(report: str, code: int, network: Network) -> str:
    """What a process that made no file said last, without the paths of this machine."""
    text = (report.strip().splitlines() or [f"it ended with {code}"])[-1]
    for path in (network.folder.resolve(), network.model.resolve().parent, _PLACE, Path.home()):
        text = text.replace(f"{path}/", "").replace(str(path), ".")
    return text[:300]
