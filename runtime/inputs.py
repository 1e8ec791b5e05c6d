"""What `icnet predict` was asked to label, and the names that the results get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from icnet_deploy.errors import ImageError, InputError
from icnet_deploy.images import IMAGE_SUFFIXES
from icnet_deploy.runtime.video import VIDEO_SUFFIXES

__all__ = ["Item", "find_items"]


@dataclass(frozen=True)
class Item:
    """One image or video.

    Attributes:
        path: the file.
        base: the results' path without their endings: `base` + `_labels.png` and so on.
        video: whether it is a video.
    """

    path: Path
    base: Path
    video: bool

    def result(self, ending: str) -> Path:
        """The path of a result, e.g. of the ending `_labels.png`."""
        return self.base.with_name(self.base.name + ending)

    def results(self) -> list[Path]:
        """All the files that are written for it."""
        endings = (
            ("_overlay.mp4",) if self.video else ("_labels.png", "_colour.png", "_overlay.jpg")
        )
        return [self.result(ending) for ending in endings]


def find_items(inputs: Sequence[str], output: Path) -> list[Item]:
    """Finds the images and videos among files and folders, each file once.

    Folders are searched for images, with their sub-folders, which the results keep. Two inputs
    never share a result, and no result takes the name of an input: a number is added.

    Args:
        inputs: files and folders, as given.
        output: the folder of the results.

    Raises:
        ImageError: an input does not exist.
        InputError: a folder holds no image, or is the output folder.
    """
    paths: dict[Path, tuple[Path, Path]] = {}
    for text in inputs:
        for path, name in _expand(Path(text), output):
            paths.setdefault(path.resolve(), (path, name))
    taken = set(paths)
    items = []
    for path, name in paths.values():
        video = path.suffix.lower() in VIDEO_SUFFIXES
        for candidate in _names(name, path.suffix):
            item = Item(path, output / candidate, video)
            results = {result.resolve() for result in item.results()}
            if not results & taken:
                break
        taken |= results
        items.append(item)
    return items


def _expand(path: Path, output: Path) -> Iterator[tuple[Path, Path]]:
    """Yields (file, its name below the output folder, without suffix)."""
    if path.is_file():
        yield path, Path(path.stem)
        return
    if not path.is_dir():
        raise ImageError(f"cannot read {path}: there is no such file or folder")
    if path.resolve() == output.resolve():
        raise InputError(
            f"{path} is both an input and the output folder, whose pictures the next run would "
            "take for inputs: name another folder with -o"
        )
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in IMAGE_SUFFIXES
        and not file.name.startswith(".")
        and file.is_file()
        and output.resolve() not in file.resolve().parents
    ]
    if not found:
        raise InputError(f"there is no image under {path} ({', '.join(sorted(IMAGE_SUFFIXES))})")
    for file in found:
        yield file, file.relative_to(path).with_suffix("")


def _names(name: Path, suffix: str) -> Iterator[Path]:
    """Yields `x`, then `x_jpg`, `x_jpg_2`, `x_jpg_3` and so on."""
    yield name
    longer = name.with_name(f"{name.name}_{suffix.lstrip('.').lower()}") if suffix else name
    yield longer
    number = 2
    while True:
        yield longer.with_name(f"{longer.name}_{number}")
        number += 1
