"""What OpenVINO says of a graph that it does not take."""

import pytest

pytest.importorskip("openvino", reason="openvino is not installed")

from icnet_deploy.errors import ModelError
from icnet_deploy.metadata import read_onnx_metadata, stamped
from icnet_deploy.runtime import Predictor


def test_words_that_are_no_text_are_an_error_of_ours(artefact, tmp_path):
    """OpenVINO cites the operator's name, and Python cannot read the bytes of it."""
    content = artefact.read_bytes()
    assert content.count(b"\x04Conv") > 3
    path = tmp_path / "odd.onnx"
    path.write_bytes(
        stamped(content.replace(b"\x04Conv", b"\x04C\xff\xfev"), read_onnx_metadata(artefact))
    )
    with pytest.raises(ModelError, match="OpenVINO cannot load the model") as error:
        Predictor.open(path, "openvino")
    str(error.value).encode()
