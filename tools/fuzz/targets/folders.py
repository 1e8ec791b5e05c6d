"""Data sets: folders of every layout, with what says what their labels mean.

A case is a JSON object: the layout, the split, what is asked for, and the files. A file is a text,
numbers (the pixels of a picture) or a link.
"""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from icnet_deploy.errors import InputError
from tools.fuzz.mutate.tree import changed_json, loads
from tools.fuzz.target import Run, Target
from tools.fuzz.targets.options import exit_of

_MOST_FILES = 40
_FEW = 3
_GREY = {"pixels": [[0, 1], [1, 255]], "mode": "L"}
_PHOTO = {"pixels": [[0, 9], [99, 255]], "mode": "RGB"}
_CLASSES = {"label_set": {"name": "f", "names": ["soil", "crop", "weed"]}, "ignore": [255]}


def _seeds() -> list[bytes]:
    labelled = {"images/val/a.png": _PHOTO, "labels/val/a.png": _GREY}
    plain = {**labelled, "classes.json": {"json": _CLASSES}}
    taught = {**plain, "confidence/val/a.png": _GREY}
    person = {"label_set": {"name": "p", "names": ["g", "h"]}, "classes": {"crop": "h"}}
    drawn = {**taught, "person/val/a.png": _GREY, "person.json": {"json": person}}
    other = {"from": _CLASSES["label_set"], "to": "voc", "classes": {"soil": None, "crop": "car"}}
    lists = "ImageSets/Segmentation/val.txt"
    rows: list[dict[str, Any]] = [
        {"layout": "folder", "files": plain},
        {"layout": "folder", "files": taught},
        {"layout": "folder", "files": drawn},
        {"layout": "folder", "files": plain, "label_values": "ids", "group_by": "^(.)"},
        {"layout": "folder", "files": plain, "class_map": other},
        {
            "layout": "folder",
            "files": {
                **plain,
                "labels/val/a.png": {"pixels": [[0, 0], [0, 0]], "mode": "RGB"},
                "images/val/b.png": {"link": "a.png"},
                "labels/val/b.png": {"link": "nothing"},
            },
        },
        {
            "layout": "voc",
            "files": {
                "JPEGImages/a.jpg": _PHOTO,
                "SegmentationClass/a.png": {**_GREY, "mode": "P"},
                lists: {"text": "a\n"},
            },
        },
        {"layout": "camvid", "files": {"val/a.png": _PHOTO, "valannot/a.png": _GREY}},
        {"layout": "camvid", "files": {"val/a_1.png": _PHOTO, "val_labels/a_1_L.png": _PHOTO}},
        {
            "layout": "camvid",
            "files": {
                "701_StillsRaw_full/a.png": _PHOTO,
                "LabeledApproved_full/a_L.png": _PHOTO,
                "val.txt": {"text": "a_L.png\n"},
            },
        },
        {
            "layout": "cityscapes",
            "files": {
                "leftImg8bit/val/c/c_0_0_leftImg8bit.png": _PHOTO,
                "gtFine/val/c/c_0_0_gtFine_labelIds.png": {**_GREY, "pixels": [[7, 8], [11, 0]]},
            },
        },
    ]
    return [json.dumps({"split": "val", **row}).encode() for row in rows]


def _build(root: Path, files: Mapping[str, Any]) -> None:
    """Writes the files of a case; what no system can have is left out."""
    for name, what in islice(files.items(), _MOST_FILES):
        path = Path(str(name))
        if path.is_absolute() or ".." in path.parts or not isinstance(what, dict):
            continue
        with contextlib.suppress(OSError, ValueError):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            _write(root / path, what)


def _write(path: Path, what: Mapping[str, Any]) -> None:
    link = what.get("link")
    if isinstance(link, str) and not link.startswith("/") and ".." not in link:
        os.symlink(link, path)
    elif "json" in what:
        path.write_text(json.dumps(what["json"]), "utf-8")
    elif "text" in what:
        path.write_text(str(what["text"]), "utf-8", "surrogatepass")
    else:
        path.write_bytes(_picture(what))


def _picture(what: Mapping[str, Any]) -> bytes:
    """A PNG of the pixels; of what is none, bytes that are no picture."""
    from PIL import Image

    stream = io.BytesIO()
    try:
        values = np.array(what["pixels"], np.uint8)
        picture = Image.fromarray(values.repeat(8, axis=0).repeat(8, axis=1), "L")
        picture.convert(str(what.get("mode", "L"))).save(stream, "PNG")
    except Exception:  # whatever a case says
        return str(what).encode("utf-8", "replace")
    return stream.getvalue()


def _prepare(folder: Path) -> Run:
    from icnet_deploy.data.checking.command import main as check
    from icnet_deploy.data.registry import open_dataset

    root = folder / "set"
    number = 0

    def run(data: bytes) -> Iterator[str]:
        nonlocal number
        number += 1
        try:
            case = dict(loads(data))
            files = dict(case["files"]) if isinstance(case["files"], dict) else {}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(f"a case that is no folder: {error!r:.80}") from error
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        _build(root, files)
        layout, split = str(case.get("layout")), str(case.get("split"))
        asked = {}
        for key in ("group_by", "label_values", "exif"):
            if isinstance(case.get(key), str):
                asked[key] = case[key]
        if "class_map" in case:
            (folder / "map.json").write_text(json.dumps(case["class_map"]), "utf-8")
            asked["class_map"] = str(folder / "map.json")
        if ":" in layout:  # code of one's own
            raise InputError(f"a case of the layout {layout!r:.40}, which is code of one's own")
        if number % 8 == 0:  # also as a command, which finds all that is wrong
            with contextlib.suppress(Exception):
                text = [str(root), "--dataset", layout, "--split", split]
                yield f"checked, exit code {exit_of('dataset check', check, text)}"
        dataset = open_dataset(layout, root, split, **asked)
        yield "opened"
        for index in range(min(len(dataset), _FEW)):
            sample = dataset[index]
            assert sample.labels.shape == sample.image.shape[:2]
            image = dataset.files[index][0]
            if dataset.teacher is not None:
                dataset.teacher.labels(image, sample.labels.shape)
                dataset.teacher.confidence(image, sample.labels.shape)
        yield "read"

    return run


TARGETS = (
    Target(
        "folders",
        "data sets: folder, voc, camvid, cityscapes; classes, persons, maps, lists, confidence",
        _seeds,
        changed_json,
        _prepare,
        60_000,
    ),
)
