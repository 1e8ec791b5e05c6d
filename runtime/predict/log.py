"""`predictions.jsonl`: what became of each file, so that the same command goes on where it was.

A line stands for a file, and for what was made of it below the folder of the results. It counts
as done where nothing has changed that its results depend on: the file's bytes, the artefact's, how
it was run, what was written and by which version; and where all results are still there.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from os.path import exists, isfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from icnet_deploy._version import __version__
from icnet_deploy.documents import (
    FROM_ZERO,
    OBJECT,
    SHA256,
    TEXT,
    Schema,
    as_read,
    list_of,
    object_of,
    one_of,
    or_null,
)
from icnet_deploy.drawing import pixel_counts
from icnet_deploy.errors import InputError
from icnet_deploy.files import (
    PREDICTION_LOG,
    PREDICTION_LOG_START,
    alone_in,
    append_line,
    read_file,
    sha256,
    write_text,
)
from icnet_deploy.labels import LabelSet
from icnet_deploy.runtime.answer import Prediction
from icnet_deploy.runtime.cores import usable_cores
from icnet_deploy.runtime.predict.inputs import Item

_DONE, _FAILED = "done", "failed"

_SCHEMA = 1
_LINE = Schema(
    "a line of `icnet predict`",
    {
        "name": TEXT,
        "sha256": or_null(SHA256),
        "artefact_sha256": SHA256,
        "state": one_of(_DONE, _FAILED),
        "error": or_null(TEXT),
        "milliseconds": FROM_ZERO,
        "shares": object_of(FROM_ZERO),
        "base": TEXT,
        "results": list_of(TEXT),
        "settings": OBJECT,
    },
    closed=True,
    newest=_SCHEMA,
)


@dataclass
class Made:
    """What was made of one file.

    Attributes:
        timings: `Prediction.timings_ms` of each picture or frame.
        counts: int64, 256: pixels of each value of its label maps, all together.
        results: the files that were written.
        sha256: of the file, before it was read; None if it cannot be.
        failure: why it is not done, if it is not.
    """

    timings: list[dict[str, float]] = field(default_factory=list)
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    results: list[Path] = field(default_factory=list)
    sha256: str | None = None
    failure: InputError | None = None

    def add(self, prediction: Prediction) -> None:
        """Counts a picture or frame."""
        self.timings.append(prediction.timings_ms)
        self.counts += pixel_counts(prediction.labels)


class PredictionLog:
    """The file of one folder of results; a context, at whose end it has a line a file.

    Args:
        folder: of the results; it is there.
        artefact_sha256: what labels: see `integrity.artefact_sha256`.
        settings: what else the results depend on, as JSON values.
        label_set: the names of the shares.

    Raises:
        InputError: there is a file of that name that is something else, or cannot be read.
        OutputError: it cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        artefact_sha256: str,
        settings: Mapping[str, Any],
        label_set: LabelSet,
    ) -> None:
        self.path = folder / PREDICTION_LOG
        self._folder, self._artefact, self._names = folder, artefact_sha256, label_set.names
        self._settings = as_read({**settings, "version": __version__})
        self._known = self._tidy()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if kind is None:
            self._tidy()

    def left(
        self, items: Sequence[Item], watch: Callable[[Iterable[bool]], Iterable[bool]]
    ) -> list[Item]:
        """The items that are to be done.

        Args:
            items: of `find_items`.
            watch: shows how far it is: files are read whole for it.
        """
        with ThreadPoolExecutor(usable_cores()) as pool:
            done = list(watch(pool.map(self._is_done, items)))
        return [item for item, is_done in zip(items, done, strict=True) if not is_done]

    def _is_done(self, item: Item) -> bool:
        line = self._known.get(self._below(item.base))
        if (
            line is None
            or line["state"] != _DONE
            or line["artefact_sha256"] != self._artefact
            or line["settings"] != self._settings
            or line["name"] != item.name
        ):
            return False
        files = [self._folder / name for name in line["results"]]
        return bool(files) and all(map(isfile, files)) and line["sha256"] == digest(item)

    def add(self, item: Item, made: Made) -> None:
        """Writes what became of an item: its results are on the disk.

        Raises:
            OutputError: it cannot be written, or the disk is full.
        """
        pixels = int(made.counts.sum())
        line = {
            "schema": _SCHEMA,
            "name": item.name,
            "sha256": made.sha256,
            "artefact_sha256": self._artefact,
            "state": _FAILED if made.failure else _DONE,
            "error": str(made.failure) if made.failure else None,
            "milliseconds": round(sum(each["total"] for each in made.timings), 3),
            "shares": {
                name: round(int(count) / pixels, 6)
                for name, count in zip(self._names, made.counts, strict=False)
                if pixels
            },
            "base": self._below(item.base),
            "results": [self._below(path) for path in made.results],
            "settings": self._settings,
        }
        append_line(self.path, json.dumps(line, allow_nan=False))

    def _below(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _tidy(self) -> dict[str, dict[str, Any]]:
        """Base -> its newest line; writes the file anew where it holds more than these."""
        known: dict[str, tuple[dict[str, Any], bytes]] = {}
        with alone_in(self._folder):
            lines = _read(self.path)
            for text in lines:
                with suppress(InputError):  # what was cut off, or is damaged, is done again
                    value = _LINE.parse(text, str(self.path))
                    known.pop(value["base"], None)
                    known[value["base"]] = (value, text)
            if lines and not known and not lines[0].startswith(PREDICTION_LOG_START):
                raise InputError(
                    f"{self.path} is not a record of `icnet predict`, which would replace it: "
                    "move it away, or name another folder with -o"
                )
            kept = [text for _, text in known.values()]
            if kept != lines:
                write_text(self.path, "".join(f"{text.decode()}\n" for text in kept))
        return {base: value for base, (value, _) in known.items()}


def _read(path: Path) -> list[bytes]:
    """The lines of the file, the last of which may be cut off; none if there is no file.

    Raises:
        InputError: it cannot be read.
    """
    if not exists(path):
        return []
    try:
        return read_file(path).splitlines()
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}; expected the record of an earlier "
            "run: name another folder with -o"
        ) from error


def digest(item: Item) -> str | None:
    """The SHA-256 of a file; None if it cannot be read."""
    try:
        return sha256(item.path)
    except OSError:
        return None
