"""Every error that this product raises on purpose.

    IcnetError
    |-- InputError              the request was wrong: commands exit with 2
    |   |-- ImageError          not an image, a wrong dtype or shape
    |   |-- ModelError          a checkpoint, ONNX file or engine that cannot be used
    |   |-- DatasetError        a folder that is not the data set it should be, or is empty
    |   |-- LabelSetError       a label set that contradicts itself or does not fit
    |   |-- OutputError         a place that cannot be written
    |   `-- UnavailableError    this machine lacks something
    |       |-- MissingPackage  a Python package; names the extra that brings it
    |       `-- DeviceError     a device or provider that was asked for and is not there
    |-- CheckFailed             the request was fine, the answer is no: commands exit with 1
    `-- BackendError            a runtime failed while it ran: commands exit with 1
        `-- NotFinite           a network's logits are infinite or not numbers

Messages say what was given, what was expected, and what to do.
"""

import os
import re
from importlib.util import find_spec
from os.path import exists
from urllib.parse import unquote

_LONGEST = 4000
"""Characters of a message: more than that nobody reads."""


class IcnetError(Exception):
    """The root of the tree; catching it catches everything raised on purpose.

    Messages repeat what files and callers gave. So that a terminal and a log can show them, control
    characters and halves of characters are escaped, and of a long one the middle is left out.
    """

    exit_code = 1

    def __init__(self, *parts: object) -> None:
        super().__init__(*(_shown(part) if isinstance(part, str) else part for part in parts))


def _shown(text: str) -> str:
    text = _without_middle(text)  # so that a text of megabytes takes no time
    if not text.isprintable():
        text = "".join(
            sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode()
            for sign in text
        )
    return _without_middle(text)


def _without_middle(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    kept = _LONGEST // 2 - 10
    return f"{text[:kept]} [...] {text[-kept:]}"


class InputError(IcnetError):
    """The request itself was wrong."""

    exit_code = 2


class ImageError(InputError):
    """Something that is not an image, or an array of a wrong dtype or shape."""


class ModelError(InputError):
    """A checkpoint, ONNX file or engine that is broken, of another kind, or of another model."""


class DatasetError(InputError):
    """A folder that is not the data set that was named, or holds no images."""


class LabelSetError(InputError):
    """A label set that contradicts itself, or does not fit the data or the model."""


class OutputError(InputError):
    """A file or folder that cannot be written."""


class UnavailableError(InputError):
    """This machine lacks something that was asked for by name."""


def pip_install(extra: str, *options: str) -> str:
    """The command that brings an extra: from where icnet-deploy came from, if pip wrote it down.

    Of a folder, a file or a repository it does (PEP 610, `direct_url.json`); of an index, where
    the name alone is enough, it does not.
    """
    from importlib.metadata import PackageNotFoundError, distribution

    named = f"icnet-deploy[{extra}]"
    try:
        origin = distribution("icnet-deploy").read_text("direct_url.json") or ""
    except (PackageNotFoundError, OSError, ValueError):
        origin = ""
    said = dict(re.findall(r'"(url|vcs|commit_id)": *"([^"\\]+)"', origin))  # URLs need no escapes
    url = said.get("url", "")
    path = unquote(url.removeprefix("file://")) if url.startswith("file://") else ""
    if path and not exists(path):
        url = ""
    if re.search(r'"editable": *true', origin) and path and url:
        options, named = (*options, "--editable"), f"{path}[{extra}]"
    elif "vcs" in said and "commit_id" in said:
        named += f" @ {said['vcs']}+{url}@{said['commit_id']}"
    elif url:
        named += f" @ {url}"
    return " ".join(("pip install", *options, f'"{named}"'))


class MissingPackage(UnavailableError):
    """A Python package is not installed.

    Args:
        package: the name to import.
        extra: the extra of `icnet-deploy` that brings it.
        purpose: what wanted it, for the message.
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed: {pip_install(extra)}"
        )
        self.package = package
        self.extra = extra


def require(purpose: str, extra: str, *packages: str) -> None:
    """Refuses to begin what lacks a package, before anything of it is imported.

    Args:
        purpose: what needs them, for the message.
        extra: the extra of `icnet-deploy` that brings them.
        packages: the names to import.

    Raises:
        MissingPackage: the first that is not installed.
        InputError: PyTorch is among them, and the working directory is gone: it would end the
            process ("Intel oneMKL FATAL ERROR").
    """
    if "torch" in packages:
        try:
            os.getcwd()
        except FileNotFoundError as error:
            raise InputError(
                "the working directory is gone, and PyTorch works in none: go to another (cd)"
            ) from error
    for package in packages:
        if find_spec(package) is None:
            raise MissingPackage(package, extra=extra, purpose=purpose)


class DeviceError(UnavailableError):
    """A device, or the provider that drives it, is not available; never answered by a fallback."""


class CheckFailed(IcnetError):
    """A budget or a verification did not hold."""


class BackendError(IcnetError):
    """A runtime failed while it ran a model that it had loaded."""


class NotFinite(BackendError, ValueError):
    """A network's logits are infinite or not numbers, so that they say nothing of any pixel."""

    def __init__(self) -> None:
        super().__init__(
            "the logits are infinite or not numbers: the network overflowed: use the float32 "
            "artefact; where it is that one, its weights are at fault: export it from others"
        )
