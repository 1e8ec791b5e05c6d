"""Files that no backbone can begin with: each is refused in one line, and changes nothing."""

import os
import pickle

import pytest

torch = pytest.importorskip("torch", reason="the training room needs torch")

from plain_resnet import PlainResNet  # noqa: E402
from torch import nn  # noqa: E402

from icnet_deploy.errors import ModelError  # noqa: E402
from icnet_deploy.labels import CITYSCAPES  # noqa: E402
from icnet_deploy.networks.checkpoint import save_checkpoint  # noqa: E402
from icnet_deploy.networks.preprocessing import STREET  # noqa: E402
from icnet_deploy.networks.registry import build_network  # noqa: E402
from icnet_deploy.training.backbone import take_backbone  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


class Basic(nn.Module):
    """Two 3x3 a block, as in a ResNet-18 or -34."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 7, bias=False), nn.BatchNorm2d(8)
        for stage, count in enumerate((3, 4, 6, 3)):
            mid = 8 * 2**stage
            blocks = [nn.Module() for _ in range(count)]
            for block in blocks:
                block.conv1, block.bn1 = nn.Conv2d(mid, mid, 3, bias=False), nn.BatchNorm2d(mid)
                block.conv2, block.bn2 = nn.Conv2d(mid, mid, 3, bias=False), nn.BatchNorm2d(mid)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))


def grouped(state):
    """Its 3x3 convolutions read a quarter of the channels each."""
    return {n: v[:, : v.shape[1] // 4] if ".conv2.w" in n else v for n, v in state.items()}


class Runs:
    def __reduce__(self):
        return os.system, ("touch hostile",)


def claimed_twice(path):
    state = claimed(PlainResNet().state_dict())
    torch.save({f"{prefix}.{n}": v for prefix in "ab" for n, v in state.items()}, path)


def hostile(path):
    path.write_bytes(pickle.dumps({"state_dict": Runs()}))


def cut(path):
    torch.save(PlainResNet().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])


def of_the_kit(path):
    save_checkpoint(path, build_network({"num_classes": 19, "width": 0.125}), CITYSCAPES, STREET)


def saved(change):
    return lambda path: torch.save(change(PlainResNet().state_dict()), path)


def not_finite(state):
    state["layer3.2.conv1.weight"][0, 0] = float("nan")
    return state


def claimed(state):
    """Tensors that claim sizes which the file does not hold."""
    return {n: torch.zeros(1).expand(1 << 40, *v.shape[1:]) for n, v in state.items() if v.ndim}


REFUSED = {
    "missing": (lambda path: None, "there is no such file"),
    "a folder": (lambda path: path.mkdir(), "it is a folder"),
    "a program": (hostile, "holds more than tensors"),
    "cut": (cut, "is not a whole file of torch.save"),
    "text": (lambda path: path.write_text("<html>no</html>"), "a web page"),
    "empty": (lambda path: path.touch(), "has no weights"),
    "no tensors": (lambda path: torch.save({"a": 1}, path), "expected a dict of tensors"),
    "of the kit": (
        of_the_kit,
        r"found conv1_1_3x3_s2\S+, .* a checkpoint of icnet train goes to --init",
    ),
    "basic blocks": (
        lambda path: torch.save(Basic().state_dict(), path),
        r"expected .* such as layer4.2.conv1.weight, found conv1.weight, bn1.weight, .* and \d+ "
        r"more; conv5_3: its layer4.2.conv1.weight is "
        r"64x64x3x3, the network's conv5_3._1x1_reduce.conv.weight 64x256x1x1",
    ),
    "grouped": (saved(grouped), "its layer4.2.conv2.weight is 64x16x3x3: 16 channels, expected 64"),
    "whole numbers": (
        saved(lambda state: {n: v.int() for n, v in state.items()}),
        "its layer4.2.conv1.weight is not an array of floats",
    ),
    "not finite": (saved(not_finite), r"numbers that are infinite .* conv4_3._1x1_reduce"),
    "claimed sizes": (saved(claimed), "its layer4.2.conv1.weight is not an array of floats"),
    "claimed sizes, twice": (claimed_twice, "holds the network more than once"),
    "names that are no names": (
        lambda path: torch.save({"a\nb" * 40: torch.ones(1)}, path),
        r"found 'a\\nba\\nb\S+\.\.\.; ",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_is_no_backbone_is_refused_in_one_line(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    make, words = REFUSED[kind]
    make(path := tmp_path / "net.pth")
    network = build_network({"architecture": "pspnet", "num_classes": 3, "width": 0.125}).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ModelError, match=words) as caught:
        take_backbone(network, path)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert str(path) in str(caught.value)
    assert not (tmp_path / "hostile").exists()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
