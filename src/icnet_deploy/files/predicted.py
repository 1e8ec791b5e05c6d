"""What `icnet predict` writes: known by name, so that no command takes results for photos."""

from collections.abc import Iterable
from contextlib import suppress
from os.path import isfile
from pathlib import Path

from icnet_deploy.files.reading import read_file

PREDICTION_LOG = "predictions.jsonl"
"""The record of what was done, in the folder of the results."""

PREDICTION_LOG_START = b'{"schema": '
"""Its first bytes."""

RESULT_ENDINGS = ("_labels.png", "_colour.png", "_overlay.jpg")
"""Of the names of what an image gets."""


def results_among(files: Iterable[Path], folder: Path) -> set[Path]:
    """Those of the files below a folder that `icnet predict` wrote: beside or below its record.

    Args:
        files: of any kind.
        folder: that they are in, or in a folder of.
    """
    logs: dict[Path, bool] = {}

    def has_log(where: Path) -> bool:
        if where not in logs:
            log = where / PREDICTION_LOG
            with suppress(OSError):
                logs[where] = isfile(log) and read_file(log).startswith(PREDICTION_LOG_START)
        return logs.setdefault(where, False)

    return {
        file
        for file in files
        if file.name.endswith(RESULT_ENDINGS)
        and any(has_log(each) for each in file.parents if folder == each or folder in each.parents)
    }
