"""What `icnet predict` was asked to label, and the names that the results get."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from os.path import isdir, isfile
from pathlib import Path

from icnet_deploy.errors import ImageError, InputError
from icnet_deploy.files import RESULT_ENDINGS, find_files, real_path, why_no_folder
from icnet_deploy.images import IMAGE_SUFFIXES, ImageFile
from icnet_deploy.runtime.video import VIDEO_SUFFIXES

_PAGED = frozenset({".tif", ".tiff"})
"""Image files whose pictures are pages, not frames."""


@dataclass(frozen=True)
class Item:
    """One file.

    Attributes:
        path: the file.
        name: it, from the folder on that was given.
        base: the results' path without their endings: `base` + `_labels.png` and so on.
        video: whether it is a video. An animation, which only its content tells from an image, gets
            what a video does, too.
        pages: of a TIFF, each of which gets what an image does.
    """

    path: Path
    name: str
    base: Path
    video: bool
    pages: int = 1

    def result(self, ending: str) -> Path:
        """The path of a result, e.g. of the ending `_labels.png`."""
        return self.base.with_name(self.base.name + ending)

    @property
    def overlay_video(self) -> Path:
        """What is written for a video, and for an animation."""
        return self.result("_overlay.mp4")

    def page(self, number: int) -> Item:
        """A page as an image of its own: page 2 of `x.tif` gets `x_page2_labels.png` and so on."""
        return replace(self, base=self.result(f"_page{number}"), pages=1)

    def results(self) -> list[Path]:
        """All the files that are written for it, if it is no animation."""
        if self.pages > 1:
            pages = map(self.page, range(1, self.pages + 1))
            return [result for page in pages for result in page.results()]
        if self.video:
            return [self.overlay_video]
        return [self.result(ending) for ending in RESULT_ENDINGS]


def find_items(
    inputs: Sequence[str], output: Path, tell: Callable[[str], object] = print
) -> list[Item]:
    """Finds the images and videos among files and folders, each file once.

    Folders are searched with their sub-folders, linked ones too, which the results keep. Two inputs
    never share a result, and no result takes the name of an input: a number is added.

    Args:
        inputs: files and folders, as given.
        output: the folder of the results.
        tell: is given a sentence on the files of a folder that are neither image nor video.

    Raises:
        ImageError: an input does not exist.
        InputError: a folder holds no image or video, or is the output folder.
    """
    paths: dict[Path, tuple[Path, Path]] = {}
    for text in inputs:
        for path, name in _expand(Path(text), output, tell):
            paths.setdefault(real_path(path), (path, name))
    taken = set(paths)
    items = []
    for path, name in paths.values():
        suffix = path.suffix.lower()
        named = name.with_name(path.name).as_posix()
        pages = _pages(path) if suffix in _PAGED else 1
        for candidate in _names(name, path.suffix):
            item = Item(path, named, output / candidate, suffix in VIDEO_SUFFIXES, pages)
            results = {real_path(result) for result in (*item.results(), item.overlay_video)}
            if not results & taken:
                break
        taken |= results
        items.append(item)
    return items


def _pages(path: Path) -> int:
    try:
        return ImageFile(path).pictures
    except ImageError:  # said in its turn, when it is read
        return 1


def _expand(path: Path, output: Path, tell: Callable[[str], object]) -> Iterator[tuple[Path, Path]]:
    """Yields (file, its name below the output folder, without suffix)."""
    if isfile(path):
        yield path, Path(path.stem)
        return
    if not isdir(path):
        raise ImageError(
            f"cannot read {path}: it {why_no_folder(path)}; expected an image, a video or a folder"
        )
    if real_path(path) == real_path(output):
        raise InputError(
            f"{path} is both an input and the output folder, and the next run would label the "
            "results: name another folder with -o"
        )
    results, inside = real_path(output), find_files(path, IMAGE_SUFFIXES | VIDEO_SUFFIXES)
    files, left_out = (
        tuple(file for file in some if results not in real_path(file).parents)
        for some in (inside.files, inside.left_out)
    )
    if left_out:
        tell(f"{path}: {replace(inside, left_out=left_out).says_left_out()}")
    if not files:
        raise InputError(
            f"there is no image or video in the folder {str(path)!r} or its sub-folders: check "
            "the folder, and how its files end (.jpg, .png, .mp4 or the like)"
        )
    for file in files:
        yield file, file.relative_to(path).with_suffix("")


def _names(name: Path, suffix: str) -> Iterator[Path]:
    """Yields `x`, then `x_jpg`, `x_jpg_2`, `x_jpg_3` and so on."""
    yield name
    longer = name.with_name(f"{name.name}_{suffix.lstrip('.').lower()}") if suffix else name
    yield longer
    for number in count(2):
        yield longer.with_name(f"{longer.name}_{number}")
