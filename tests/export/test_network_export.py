"""Networks of one's own, from a PyTorch module to a file: by the command, and in Python."""

from __future__ import annotations

import json

import numpy as np
import onnx
import own_modules
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from icnet_deploy.cli import main
from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.engine_sidecar import EngineSidecar, read_sidecar, sidecar_path
from icnet_deploy.errors import CheckFailed, InputError, LabelSetError, ModelError
from icnet_deploy.export import export_network
from icnet_deploy.export.build_engine import build_engine
from icnet_deploy.export.engine.options import BuildOptions
from icnet_deploy.files import write_json
from icnet_deploy.images import write_image
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.networks.preprocessing import STREET, Preprocessing
from icnet_deploy.runtime.predictor import Predictor

SIZE = (64, 96)
FIVE = {"size": SIZE, "label_set": own_modules.FIVE, "preprocessing": STREET}


class Odd(nn.Module):
    """One convolution, and what an exporter may stumble over.

    Args:
        oddity: maps its features, N x 8 x h x w, and the image, to features.
    """

    def __init__(self, oddity):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 5, 1)
        self.oddity = oddity

    def forward(self, image):
        return self.last(self.oddity(self.first(image).relu(), image))


def pyramid(features, image):
    pools = (F.adaptive_avg_pool2d(features, 6), F.adaptive_max_pool2d(features, (3, 5)))
    how = {"size": features.shape[2:], "mode": "bilinear", "align_corners": False}
    return features + sum(F.interpolate(pool, **how) for pool in pools)


def branching(features, image):
    return features if float(image.sum()) < 1e12 else -features


def of_the_height(features, image):
    return features + float(image.shape[2])


def unknown(features, image):
    return torch.special.bessel_j0(features)


def one_of_two(features, image):
    return features * torch.ones(2, 1, 1, 1) if len(features) == 2 else features


@pytest.fixture(scope="module")
def free(tmp_path_factory):
    """Five classes, sides of any multiple of 32, by the command, and what it said."""
    folder = tmp_path_factory.mktemp("free")
    out, classes = folder / "free.onnx", folder / "classes.json"
    weights = folder / "five.pth"
    write_json(classes, {"label_set": own_modules.FIVE.to_dict()})
    torch.save({"state_dict": own_modules.five().state_dict()}, weights)
    argv = ["export", "--network", "own_modules:five", "--network-args", '{"multiple": 32}']
    argv += ["--weights", weights, "--label-set", classes, "--preprocessing", "imagenet"]
    argv += ["--size", "64x96", "--dynamic-size", "-o", out]
    assert main([str(each) for each in argv]) == 0
    return out


def test_the_command_exports_a_network_of_any_multiple(free):
    metadata = read_onnx_metadata(free)
    assert (metadata.size, metadata.side_multiple, metadata.stride) == (None, 32, 4)
    assert (metadata.upsampling, metadata.fit, metadata.threshold) == (
        "half-pixel",
        "stretch",
        None,
    )
    assert metadata.label_set == own_modules.FIVE
    assert (metadata.network["architecture"], metadata.schema) == ("own_modules:five", 2)
    assert metadata.network["arguments"] == {"multiple": 32}
    model = onnx.load(free)
    sides = [d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim[1:3]]
    assert all(side.startswith("32*") for side in sides)
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"Mul", "BatchNormalization"}
    network = own_modules.five()
    with Predictor.open(free, "onnxruntime", "cpu") as predictor:
        for size in ((64, 64), (128, 96)):
            image = draw_scene(3, size).image
            with torch.inference_mode():
                wanted = network(STREET.tensor(image)).argmax(1)[0].numpy()
            assert (predictor.predict(image).labels == wanted).mean() > 0.999


def test_tensorrt_rtx_builds_it_and_the_sidecar_says_what_the_file_says(free, tmp_path):
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    options = BuildOptions(sizes=((64, 64), SIZE, (128, 128)), targets=("SM86",))
    build_engine(free, tmp_path / "five.engine", trt, options)
    assert read_sidecar(tmp_path / "five.engine").metadata == read_onnx_metadata(free)


def test_a_sidecar_keeps_all_that_a_file_says(tmp_path):
    out = tmp_path / "one.onnx"
    rule = Preprocessing((120.0, 110.0, 100.0), (0.02, 0.02, 0.02), "bgr", "letterbox")
    photo = tmp_path / "photo.png"
    write_image(photo, draw_scene(4, (96, 64)).image)
    exported = export_network(
        own_modules.one(),
        out,
        size=SIZE,
        label_set=own_modules.TWO,
        preprocessing=rule,
        head="labels",
        precision="fp16",
        threshold=0.3,
        images=[photo],
    )
    assert exported.check.images == 3
    assert exported.headroom is not None
    assert any("threshold: 0.3" in line for line in exported.found)
    metadata = read_onnx_metadata(out)
    assert (metadata.threshold, metadata.fit, metadata.precision) == (0.3, "letterbox", "fp16")
    assert (metadata.size, metadata.schema) == (SIZE, 2)
    sidecar = EngineSidecar("a", "b", metadata, "tensorrt", "10.16", None)
    write_json(sidecar_path(tmp_path / "one.engine"), sidecar.to_dict())
    assert read_sidecar(tmp_path / "one.engine").metadata == metadata


@pytest.mark.parametrize("free_size", [False, True])
def test_pools_to_bins_that_are_no_divisors_are_exact(tmp_path, free_size):
    """The check runs the file at several sizes, and raises otherwise."""
    out = tmp_path / "odd.onnx"
    check, *_ = export_network(Odd(pyramid), out, **FIVE, dynamic_size=free_size)
    assert check.largest < 1e-5 * check.spread
    assert not {n.op_type for n in onnx.load(out).graph.node} & {"GatherND", "BatchNormalization"}


def test_the_other_exporter_is_used_where_the_first_fails_and_that_is_said(tmp_path):
    exported = export_network(Odd(branching), tmp_path / "odd.onnx", **FIVE)
    assert "TorchScript exporter recorded the graph from one example" in exported.found[-1]
    assert exported.check.largest < 1e-5 * exported.check.spread


@pytest.mark.parametrize(
    ("oddity", "free_size", "error", "said"),
    [
        (unknown, False, ModelError, r"no ONNX for (prims|aten)\S*bessel_j0 .*other operators"),
        (of_the_height, True, CheckFailed, "right at 64x96 and wrong at .* at a fixed size"),
        (one_of_two, False, CheckFailed, "treats the number of images as a constant"),
    ],
    ids=["operator", "size", "batch"],
)
def test_what_cannot_be_exported_is_refused_by_its_cause(
    tmp_path, capfd, oddity, free_size, error, said
):
    with pytest.raises(error, match=said):
        export_network(Odd(oddity), tmp_path / "odd.onnx", **FIVE, dynamic_size=free_size)
    assert list(tmp_path.iterdir()) == []
    assert "graph(" not in capfd.readouterr().out


def test_a_label_set_of_another_size_and_a_size_of_no_multiple_are_refused(tmp_path):
    out = tmp_path / "x.onnx"
    with pytest.raises(LabelSetError, match="5 channels"):
        export_network(own_modules.five(), out, **FIVE | {"label_set": "cityscapes"})
    with pytest.raises(InputError, match=r"multiple.* of 32"):
        export_network(own_modules.five(32), out, **FIVE | {"size": (64, 80)})
    assert list(tmp_path.iterdir()) == []


WHOLE = {
    "--network": "own_modules:five",
    "--label-set": "cityscapes",
    "--preprocessing": "imagenet",
    "--size": "64x96",
}


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ("--label-set", "needs --label-set also: the classes"),
        ("--preprocessing", "needs --preprocessing also: what its input expects"),
        ("--size", "needs --size also: the HEIGHTxWIDTH"),
        ("--network", "--label-set is for --network PACKAGE.MODULE:FACTORY"),
    ],
)
def test_what_a_network_needs_is_asked_for_and_means_nothing_without_one(
    tmp_path, monkeypatch, capsys, left_out, said
):
    monkeypatch.chdir(tmp_path)
    argv = [part for name, value in WHOLE.items() if name != left_out for part in (name, value)]
    assert main(["export", *argv]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_help_shows_a_network_of_ones_own(capsys):
    assert main(["export", "--help"]) == 0
    said = capsys.readouterr().out
    assert "--network PACKAGE.MODULE:FACTORY" in said
    assert "--label-set FILE|NAME" in said


def test_a_name_says_the_network(tmp_path, monkeypatch, capsys):
    """Where no -o is given; a label set in JSON is a file's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.json").write_text(json.dumps(own_modules.FIVE.to_dict()))
    argv = [part for pair in (WHOLE | {"--label-set": "c.json"}).items() for part in pair]
    assert main(["export", *argv, "--head", "labels"]) == 0
    assert "upsampling: half-pixel (found" in capsys.readouterr().out
    image = draw_scene(3, SIZE).image
    with Predictor.open("five-64x96-labels-fp32.onnx", "onnxruntime", "cpu") as predictor:
        assert len(np.unique(predictor.predict(image).labels)) > 2
