"""What the tests share: a file that makes label maps, and a folder that was verified."""

import shutil

import pytest

from icnet_deploy.files import sha256
from icnet_deploy.runtime.auto.verdicts import Entry, Verdicts, write_verdicts


@pytest.fixture
def release(artefact, tmp_path):
    """A folder with one artefact, which was verified on OpenVINO."""
    folder = tmp_path / "release"
    folder.mkdir()
    shutil.copy(artefact, folder / "street.onnx")
    told = (sha256(artefact), "openvino", "cpu", "within", "", 0.0, "2 images", "0.3 points")
    write_verdicts(folder, Verdicts((Entry("street.onnx", *told, "2026-01-01", "a processor"),)))
    return folder
