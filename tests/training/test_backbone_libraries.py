"""The names, the shapes and the function of the ResNet-50 that torchvision and timm have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the training room needs torch")

ROOT = Path(__file__).parents[2]
LIBRARIES = Path(sys.prefix) / "networks"

SCRIPT = """
import sys, torch
torch.set_num_threads(1)
sys.path[:0] = ["tests/fakes", "examples/own_network"]
import my_networks, timm, torchvision
from pathlib import Path
from plain_resnet import PlainResNet
from icnet_deploy.networks.registry import build_network
from icnet_deploy.networks.resnet import BLOCKS
from icnet_deploy.training.backbone import take_backbone

def shapes(network):
    return {n: v.shape for n, v in network.state_dict().items() if not n.startswith("fc.")}

with torch.device("meta"):
    deep = {"stem": "timm", "cout": 64}
    real = {
        "resnet50": PlainResNet(64), "resnet50c": PlainResNet(64, **deep),
        "resnet50d": PlainResNet(64, **deep, pooled=True),
        "resnet50s": PlainResNet(64, stem="timm", cout=128),
    }
    for name, plain in real.items():
        assert shapes(plain) == shapes(timm.create_model(name)), name
    assert shapes(real["resnet50"]) == shapes(torchvision.models.resnet50(weights=None))

torch.manual_seed(0)
theirs = timm.models.resnet.ResNet(
    timm.models.resnet.Bottleneck, (3, 4, 6, 3), channels=(8, 16, 32, 64), stem_width=8,
    stem_type="deep", output_stride=8, num_classes=9, zero_init_last=False,
).eval()
path = Path(sys.argv[1]) / "net.pth"
torch.save(theirs.state_dict(), path)
# What names and shapes do not say: the stride of layer2.0, the dilation of a stage's first 3x3.
theirs.layer2[0].conv1.stride, theirs.layer2[0].conv2.stride = (2, 2), (1, 1)
for stage, dilation in ((theirs.layer3, 2), (theirs.layer4, 4)):
    stage[0].conv2.dilation = stage[0].conv2.padding = (dilation, dilation)
network = build_network({"architecture": "pspnet", "num_classes": 2, "width": 0.125}).eval()
print(*take_backbone(network, path).notes, sep="\\n")
image = torch.randn(1, 3, 129, 193)
with torch.inference_mode():
    mine, its = network._run(BLOCKS, network._stem(image)), theirs.forward_features(image)
assert mine.shape == its.shape and its.std() > 0
assert torch.allclose(mine, its, atol=1e-4 * float(its.abs().max()))
"""


def test_the_files_of_torchvision_and_timm(tmp_path):
    """Theirs have the names and shapes of the plain one, and timm's modules its answers."""
    if not (LIBRARIES / "timm").is_dir():
        pytest.skip(f"{LIBRARIES} is missing: make {LIBRARIES.parent.name}/networks fills it")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(LIBRARIES), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("backbone: 275 of its 275 tensors come from net.pth\n")
