"""Files that other programs wrote, and what each is adopted as."""

from __future__ import annotations

from pathlib import Path

import pytest

for package in ("torch", "onnx", "onnxsim", "onnxruntime"):
    pytest.importorskip(package, reason=f"adopting needs {package}")

from quick_scenes import quick_scene  # noqa: E402

from icnet_deploy.export import check  # noqa: E402
from icnet_deploy.export.adopt.adoption import adopt  # noqa: E402
from icnet_deploy.export.adopt.request import Request  # noqa: E402
from icnet_deploy.labels import LabelSet, label_set_of  # noqa: E402
from icnet_deploy.networks.preprocessing import PREPROCESSINGS  # noqa: E402

FILES = Path(__file__).parent / "files"

FIVE = label_set_of({"name": "five", "names": ["a", "b", "c", "d", "e"]}, "this test")
TWO = label_set_of({"name": "two", "names": ["other", "road"]}, "this test")


def classes_of(path: Path) -> LabelSet:
    """The label set of a file in `files`."""
    return TWO if any(word in path.stem for word in ("sigmoid", "above")) else FIVE


@pytest.fixture(scope="session")
def request_for():
    """A function that says of a file what is to be said of it, and more."""

    def request(path, **more):
        return Request(classes_of(path), PREPROCESSINGS["imagenet"], **more)

    return request


@pytest.fixture(scope="session")
def adopted(tmp_path_factory, one_thread, request_for):
    """A function that adopts a file of `files`, once: the artefact and what was found."""
    folder = tmp_path_factory.mktemp("adopted")
    made = {}
    patch = pytest.MonkeyPatch()  # most of the time goes into drawing scenes
    patch.setattr(check, "draw_scene", quick_scene)

    def get(name):
        if name not in made:
            path = FILES / f"{name}.onnx"
            out = folder / f"{name}.onnx"
            made[name] = out, adopt(path, out, request_for(path))
        return made[name]

    yield get
    patch.undo()


@pytest.fixture
def changed(tmp_path):
    """A function that writes a file of `files` with a change: a function of the model."""
    import onnx

    def write(change, name="script-half"):
        model = onnx.load(FILES / f"{name}.onnx")
        answer = change(model)
        out = tmp_path / "changed.onnx"
        out.write_bytes((model if answer is None else answer).SerializeToString())
        return out

    return write


@pytest.fixture
def take(adopted, request_for, tmp_path):
    """A function that adopts a file and gives the artefact and what was found."""

    def take(path, **more):
        out = tmp_path / "out.onnx"
        return out, adopt(Path(path), out, request_for(Path(path), **more))

    return take
