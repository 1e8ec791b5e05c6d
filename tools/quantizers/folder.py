"""A folder of one network's files: what is made of it once, scored once, and timed whenever asked.

network.json     the float32 file, its data set, and the images
images.npy       what ranges are taken from
validation.npy   what NNCF's accuracy control looks at
files/           a file for each recipe, of ours each placement; beside it NAME.json: how it came
scores/          a score for each file and runtime, by the file's SHA-256
work/            what peers leave behind
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from os.path import isfile
from pathlib import Path
from typing import Any

from icnet_deploy.documents import parse
from icnet_deploy.errors import InputError
from icnet_deploy.files import sha256, write_json

_SCORED = ("--split", "--limit", "--group-by")


@dataclass(frozen=True)
class Network:
    """What all files of a folder are made of.

    Attributes:
        folder: where they lie; its name is the network's.
        model: the float32 file.
        model_sha256: of that file.
        data: the options that open the data set, as `icnet quantize` takes them.
        calibrated: how many images ranges are taken from.
        validated: how many other images NNCF's accuracy control looks at.
    """

    folder: Path
    model: Path
    model_sha256: str
    data: tuple[str, ...]
    calibrated: int
    validated: int

    @property
    def name(self) -> str:
        """The network's."""
        return self.folder.resolve().name

    @property
    def quantize_options(self) -> list[str]:
        """Those of `data` that say which data set it is, and not what of it is scored."""
        pairs = zip(self.data[::2], self.data[1::2], strict=True)
        return [text for pair in pairs if pair[0] not in _SCORED for text in pair]

    @property
    def images(self) -> Path:
        """What ranges are taken from: uint8 N x H x W x 3, RGB."""
        return self.folder / "images.npy"

    @property
    def validation(self) -> Path:
        """Other images of the training split, of the same form."""
        return self.folder / "validation.npy"

    def subfolder(self, name: str) -> Path:
        """One of `files`, `scores`, `work`; made if it is not there."""
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path

    def write(self) -> None:
        """Keeps it in its folder."""
        content = {**asdict(self), "model": str(self.model.resolve()), "data": list(self.data)}
        del content["folder"]
        write_json(self.folder / "network.json", content)

    @classmethod
    def read(cls, folder: Path) -> Network:
        """Reads it; InputError if there is none, or the float32 file has changed."""
        path = folder / "network.json"
        if not isfile(path):
            raise InputError(f"{folder} holds no network.json: make its files first, with `make`")
        content: dict[str, Any] = parse(path.read_text("utf-8"))
        model = Path(content.pop("model"))
        network = cls(folder, model, data=tuple(content.pop("data")), **content)
        if not isfile(model) or sha256(model) != network.model_sha256:
            raise InputError(
                f"{model} is not the float32 file from which the files of {folder} were made: make "
                "them again, with `make --again`"
            )
        return network


@dataclass(frozen=True)
class Made:
    """What came of a recipe.

    Attributes:
        quantizer, settings: of the recipe, in words.
        runtimes: where the file is to be run.
        seconds: how long making it took, on a machine that may have been busy.
        file: its name in `files`; "" if it could not be made.
        sha256: of the file, or for OpenVINO's format of its weights.
        error: why it could not be made.
    """

    quantizer: str
    settings: str
    runtimes: tuple[str, ...]
    seconds: float
    file: str = ""
    sha256: str = ""
    error: str = ""

    def write(self, path: Path) -> None:
        """Keeps it."""
        write_json(path, asdict(self))

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Made:
        """Reads its JSON form."""
        return cls(**{**content, "runtimes": tuple(content["runtimes"])})


def made(network: Network) -> Iterator[Made]:
    """All that was made in a folder, by name."""
    for path in sorted(network.subfolder("files").glob("*.json")):
        yield Made.of(parse(path.read_text("utf-8")))


def file_digest(path: Path) -> str:
    """The SHA-256 of a file; of OpenVINO's format of both of its files, one after the other."""
    if path.suffix != ".xml":
        return sha256(path)
    return "".join(sha256(each)[:32] for each in (path, path.with_suffix(".bin")))
