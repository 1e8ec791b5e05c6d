"""`Predictor.open`: a file, an engine or a folder, and the options that fit each."""

import numpy as np
import pytest

from icnet_deploy.errors import BackendError, InputError, ModelError
from icnet_deploy.labels import CITYSCAPES
from icnet_deploy.runtime import Predictor

SIZE = (64, 96)


def test_it_opens_a_file(tiny_model, blocks):
    image = blocks(SIZE)
    model = tiny_model()
    with Predictor.from_onnx(model, "onnxruntime", "cpu", 1) as named:
        labels = named.predict(image).labels
    for path in (model, str(model)):
        with Predictor.open(path, "onnxruntime", "cpu", 1, streams=1, cached=False) as opened:
            assert opened.runtime == "onnxruntime"
            np.testing.assert_array_equal(opened.predict(image).labels, labels)


def test_it_opens_what_is_fastest_of_a_folder(tiny_model, blocks):
    folder = tiny_model().parent
    with pytest.raises(InputError, match=r"no artefact in .* is verified"):
        Predictor.open(folder, "onnxruntime", "cpu")
    with Predictor.open(
        folder, "onnxruntime", "cpu", precision="fp32", size=SIZE, unverified=True
    ) as opened:
        assert opened.choice.winner.file == "tiny1.onnx"
        assert opened.predict(blocks(SIZE)).labels.shape == SIZE


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "icnet.onnx",
            {"size": SIZE},
            "is one file: leave out --size .*, which chooses among the files",
        ),
        ("icnet.onnx", {"precision": "fp16"}, "leave out the precision, which chooses among"),
        ("icnet.engine", {"unverified": True}, "leave out unverified, which chooses among"),
        ("icnet.onnx", {"require_manifest": True}, "--require-manifest .* is for an engine"),
        ("icnet.onnx", {"label_set": CITYSCAPES}, "has its own: leave out label_set"),
        ("icnet.engine", {"device": "cpu"}, "is an engine: it runs on the GPU"),
        ("icnet.plan", {"threads": 2}, "is an engine: it runs on the GPU"),
        ("icnet.engine", {"streams": 2}, "is an engine: it runs on the GPU"),
        ("icnet.engine", {"tf32": True}, "is an engine: it runs on the GPU"),
        (".", {"tf32": True}, "is a folder"),
        (".", {"cached": False}, "is a folder"),
        (".", {"label_set": CITYSCAPES}, "has its own: leave out label_set"),
    ],
)
def test_it_refuses_an_option_that_does_not_fit(tmp_path, name, options, message):
    with pytest.raises(InputError, match=message):
        Predictor.open(tmp_path / name, **options)


def test_what_is_no_engine_is_read_as_onnx(tmp_path):
    with pytest.raises(ModelError, match="cannot read the engine"):
        Predictor.open(tmp_path / "absent.plan", cached=False)
    with pytest.raises(ModelError, match="icnet export --weights"):
        Predictor.open(tmp_path / "icnet.safetensors")
    with pytest.raises(ModelError, match="cannot read the model"):
        Predictor.open(tmp_path / "absent")


def test_its_backend_is_open_until_it_is_closed(tiny_model, blocks):
    predictor = Predictor.open(tiny_model(), "onnxruntime", "cpu")
    feed = {"image": blocks(SIZE)[None]}
    assert predictor.backend.run(feed)["logits"].shape == (1, 19, 16, 24)
    predictor.close()
    with pytest.raises(BackendError, match="the predictor is closed"):
        predictor.backend.run(feed)
