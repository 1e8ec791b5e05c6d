"""What a folder that is signed holds, and that one is refused."""

from __future__ import annotations

import pytest

from icnet_deploy.errors import ModelError
from icnet_deploy.runtime.signing.trusted import check_folder, trusted_folder

CONTENTS = {
    "icnet.onnx": b"the first model",
    "icnet.engine": b"ftrt, and a program",
    "icnet.engine.json": b'{"a": 1}',
    "verified.json": b"{}",
    "sub/weights.bin": bytes(range(64)),
    ".hidden": b"seen all the same",
    "empty": b"",
}


def refused(folder, key, match=None):
    """That nothing of it is opened; what is said."""
    with pytest.raises(ModelError, match=match) as of_check:
        check_folder(folder, key)
    with pytest.raises(ModelError, match=match) as of_copy, trusted_folder(folder, key):
        pytest.fail("it was opened")
    assert str(of_check.value) == str(of_copy.value)
    return str(of_check.value)
