"""The shipped checkpoint, exported once a session at a small size in every form."""

from __future__ import annotations

import pytest

for package in ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime"):
    pytest.importorskip(package, reason=f"export needs {package}")

from icnet_deploy.export.to_onnx import export  # noqa: E402

SIZE = (97, 161)

FORMS = {
    "logits": {},
    "labels": {"head": "labels"},
    "half": {"precision": "fp16"},
    "free": {"dynamic_size": True},
}


@pytest.fixture(scope="session")
def artefact(tmp_path_factory):
    """Returns a form's file, exported when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("artefacts"), {}

    def get(form: str):
        if form not in made:
            made[form] = folder / f"{form}.onnx"
            export(made[form], size=SIZE, **FORMS[form])
        return made[form]

    return get


@pytest.fixture(scope="session")
def scene():
    """A drawn scene at the artefacts' size, uint8 H x W x 3."""
    from icnet_deploy.data.scenes import draw_scene

    return draw_scene(5, SIZE).image
