"""What is found of the networks of other libraries, in a process of its own.

They lie apart (`make` fills the folder): torchvision without its operators breaks what imports it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARIES = Path(sys.prefix) / "networks"

SCRIPT = """
import json, torch
torch.set_num_threads(1)
from icnet_deploy.labels import LabelSet
from icnet_deploy.networks.own.opened import open_network
from icnet_deploy.networks.own.request import NetworkRequest

found = {}
for name in ("lraspp", "unet", "deeplabv3plus", "segformer", "road"):
    count = 2 if name == "road" else 3
    label_set = LabelSet("few", ("a", "b", "c")[:count], ((0, 0, 0),) * count)
    arguments = {} if name == "road" else {"num_classes": 3}
    request = NetworkRequest(
        f"my_networks:{name}", arguments, label_set=label_set, preprocessing="imagenet"
    )
    network = open_network(request, (128, 256)).network
    found[name] = [network.upsampling, network.stride, network.side_multiple]
print(json.dumps(found))
"""


def test_what_the_networks_of_other_libraries_do_is_found():
    if not LIBRARIES.is_dir():
        pytest.skip(f"{LIBRARIES} is missing: make {LIBRARIES.parent.name}/networks fills it")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT / "examples" / "own_network",
        env=os.environ | {"PYTHONPATH": str(LIBRARIES)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "lraspp": ["half-pixel", 8, 1],
        "unet": ["none", 1, 1],
        "deeplabv3plus": ["aligned-corners", 4, 16],
        "segformer": ["half-pixel", 4, 1],
        "road": ["none", 1, 1],
    }
