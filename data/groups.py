"""Which images belong together: the frames of a drive, the slices of a patient.

Frames of a drive are no independent images, so intervals are made of groups. The group of an image
is read off its file's path below the data set's folder; nothing is decoded.
"""

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from icnet_deploy.errors import InputError

GroupOf = Callable[[PurePosixPath], str]
"""From a file's path below the data set's folder to the group of its image."""


def alone(path: PurePosixPath) -> str:
    """Each image is a group of its own."""
    return str(path)


def folder(path: PurePosixPath) -> str:
    """The images of a folder are one group: so few groups claim the least."""
    return str(path.parent)


def named(pattern: str) -> GroupOf:
    """What a pattern finds in a file's name; the folder of a file in whose name it finds nothing.

    Args:
        pattern: a regular expression; see `_found`.
    """
    regex = re.compile(pattern)
    return lambda path: _found(regex, path.name) or folder(path)


def asked(pattern: str, source: str = "--group-by") -> GroupOf:
    """What a user's pattern finds, in a file's name or, if it holds a `/`, in its path.

    Args:
        pattern: a regular expression; see `_found`.
        source: where it stands, for the messages.

    Raises:
        InputError: it is none; or, of what is returned, it finds nothing.
    """
    regex = _parse(pattern, source)

    def group(path: PurePosixPath) -> str:
        text = str(path) if "/" in pattern else path.name
        name = _found(regex, text)
        if not name:
            raise InputError(
                f"{source} {pattern} finds nothing in {text}; expected a regular expression that "
                "finds the group in the name of every image, e.g. '^[^_]+' for the text before the "
                "first _; one with a / is searched in the path below the data set's folder"
            )
        return name

    return group


def finds(pattern: str, source: str) -> Callable[[PurePosixPath], bool]:
    """Whether a user's pattern finds something in a file's name, or with a `/` in its path.

    Args:
        pattern: a regular expression.
        source: where it stands, for the messages.

    Raises:
        InputError: it is none.
    """
    regex = _parse(pattern, source)
    return lambda path: regex.search(str(path) if "/" in pattern else path.name) is not None


def _parse(pattern: str, source: str) -> re.Pattern[str]:
    """Compiles a user's regular expression; InputError if it is none."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"{source} {pattern} is not a regular expression: {error}; expected e.g. "
            "'^[^_]+', which finds the text before the first _"
        ) from error


def _found(regex: re.Pattern[str], text: str) -> str:
    """The first group of the first match, or the whole match if it has none; "" for no match."""
    match = regex.search(text)
    if match is None:
        return ""
    return (match[1] if regex.groups else None) or match[0]
