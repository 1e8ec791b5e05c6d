"""A process without a home, whose user no file of users knows, as containers have it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

NOBODY = ["unshare", "--user", "--map-user=54321"]

LABELS = """
import json, os, pwd, sys
from pathlib import Path
import numpy as np
for home in (Path.home, lambda: pwd.getpwuid(os.getuid())):
    try:
        home()
    except (KeyError, RuntimeError):
        continue
    raise SystemExit("there is a home")
from icnet_deploy import Predictor
image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
with Predictor.open(sys.argv[1], runtime=sys.argv[2]) as predictor:
    print(json.dumps(predictor.predict(image).labels.tolist()))
"""


def _possible():
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NOBODY, "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not _possible(), reason="needs unshare (util-linux) and user namespaces")
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_it_labels_as_anybody(tiny_model, runtime, tmp_path):
    """OpenVINO: "Could not determine home directory", which was told as a bad model."""
    model = tiny_model()
    homeless = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    found = []
    for program, environment in (([], os.environ), (NOBODY, homeless)):
        words = [*program, sys.executable, "-c", LABELS, str(model), runtime]
        if not program:
            words[2] = LABELS.replace("raise SystemExit", "str")
        done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout.splitlines()[-1]))
    assert found[0] == found[1]
