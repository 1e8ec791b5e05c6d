"""A folder of files, and one that was signed."""

from __future__ import annotations

import pytest
from signed_folders import CONTENTS

from icnet_deploy.runtime.signing.signature import sign_folder


@pytest.fixture
def folder(tmp_path):
    """A function that makes a folder of files that was not signed."""

    def make(contents=CONTENTS, name="release"):
        for file, content in contents.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / name

    return make


@pytest.fixture
def signed(folder, keys):
    """The folder, signed."""
    made = folder()
    sign_folder(made, keys[0])
    return made
