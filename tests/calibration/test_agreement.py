"""What is written is checked on every runtime that is installed, not on ONNX Runtime alone."""

import numpy as np
import onnx
import placement_contract as small
import pytest
from fake_backend import FakeBackend

from icnet_deploy.calibration import agreement
from icnet_deploy.calibration.agreement import Agreement, agreement_words, other_runtimes
from icnet_deploy.calibration.artefact import Recipe, write_quantized
from icnet_deploy.errors import CheckFailed, ModelError
from icnet_deploy.labels import CITYSCAPES


@pytest.fixture
def write(float_file, tmp_path):
    """Writes the 8-bit file of a placement; returns its path, and what was found."""

    def write(placement):
        out = tmp_path / f"{placement}.onnx"
        recipe = Recipe(small.calibration(), placement)
        return out, write_quantized(float_file, out, recipe, small.images()[:2])

    return write


@pytest.fixture
def another(monkeypatch):
    """Lets OpenVINO be here, and open what it is given as this says."""

    def as_this(open_backend):
        monkeypatch.setattr(agreement, "installed", lambda package: package == "openvino")
        monkeypatch.setattr(agreement, "open_backend", open_backend)

    return as_this


def of_other_labels(name, path, device, **options):
    onnx.checker.check_model(onnx.load(path))
    return FakeBackend.of_colours(CITYSCAPES, small.SIZE)


def that_does_not_load(name, path, device, **options):
    raise ModelError("OpenVINO cannot load the model: no such operator")


def that_fails(name, path, device, **options):
    backend = FakeBackend.of_colours(CITYSCAPES, small.SIZE)
    backend.fail_with = "OpenVINO failed to run the model: no memory"
    return backend


def not_finite(name, path, device, **options):
    backend = FakeBackend.of_colours(CITYSCAPES, small.SIZE)
    backend.run = lambda feed: {"logits": np.full((1, len(CITYSCAPES), 4, 4), np.nan, np.float32)}
    return backend


@pytest.mark.parametrize("placement", ["int8", "int8-ort"])
def test_each_runtime_that_is_here_has_its_share(write, placement):
    pytest.importorskip("openvino")
    _, found = write(placement)
    assert [one.runtime for one in found] == ["onnxruntime", *other_runtimes()]
    assert min(one.share for one in found) > 0.98
    assert len(agreement_words(found, "them")) == 1


@pytest.mark.parametrize(
    ("open_backend", "why"),
    [
        (of_other_labels, "computes a layer wrongly"),
        (that_does_not_load, "no such operator"),
        (that_fails, "no memory"),
        (not_finite, "not numbers"),
    ],
)
def test_wrong_labels_on_a_runtime_that_it_is_for_are_refused(write, another, open_backend, why):
    another(open_backend)
    with pytest.raises(
        CheckFailed, match=rf"the int8 graph on openvino gives .*{why}.*No artefact"
    ):
        write("int8")
    out, found = write("int8-ort")
    assert out.exists()
    assert [one.share < 0.5 for one in found] == [False, True]
    lines = agreement_words(found, "them")
    notes = ("note: many more labels differ on openvino", "note: openvino cannot label the images")
    assert lines[1].startswith(notes[0] if why == "computes a layer wrongly" else notes[1])
    assert not out.with_name("int8.onnx").exists()


@pytest.mark.parametrize(("share", "lines"), [(0.96, 2), (0.985, 1), (0.991, 1)])
def test_a_runtime_that_is_much_worse_is_named(share, lines):
    found = [Agreement("onnxruntime", 0.99), Agreement("openvino", share)]
    assert len(agreement_words(found, "8 images")) == lines
