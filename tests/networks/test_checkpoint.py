"""Checkpoints: what is written is read back, and nothing else is."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training room needs torch")
pytest.importorskip("safetensors", reason="checkpoints need safetensors")

import safetensors.torch  # noqa: E402

from icnet_deploy.errors import CheckFailed, LabelSetError, ModelError, OutputError  # noqa: E402
from icnet_deploy.labels import CAMVID, CITYSCAPES  # noqa: E402
from icnet_deploy.networks.checkpoint import (  # noqa: E402
    SHIPPED,
    load_checkpoint,
    save_checkpoint,
)
from icnet_deploy.networks.icnet import ICNet  # noqa: E402
from icnet_deploy.networks.preprocessing import STREET, Preprocessing  # noqa: E402


@pytest.fixture(scope="module")
def whole(tmp_path_factory, lively):
    """A network, and its checkpoint, which stays as it is."""
    network = lively(ICNet(11, width=0.125, stages="sub24", guidance=True))
    path = tmp_path_factory.mktemp("whole") / "net.safetensors"
    save_checkpoint(path, network, CAMVID, STREET, {"steps": 3})
    return network, path


@pytest.fixture
def saved(tmp_path, whole):
    """The same, for a test to change the file."""
    network, path = whole
    return network, Path(shutil.copy(path, tmp_path))


def test_a_checkpoint_of_schema_1_is_an_icnet(tmp_path, saved):
    network, path = saved

    def age(description, tensors):
        description["schema"] = 1
        kept = ("num_classes", "width", "stages")
        description["network"] = {k: description["network"][k] for k in kept}

    read = load_checkpoint(_rewritten(path, tmp_path / "old.safetensors", age)).network
    assert read.description() == network.description() | {"guidance": False}


def test_half_keeps_small_variances(tmp_path, lively):
    network = lively(ICNet(11, width=0.125))
    network.conv1_sub1.bn.running_var.fill_(1e-9)
    save_checkpoint(tmp_path / "half.safetensors", network, CAMVID, STREET, half=True)
    read = load_checkpoint(tmp_path / "half.safetensors").network
    assert torch.equal(read.conv1_sub1.bn.running_var, network.conv1_sub1.bn.running_var)
    assert read.conv1_sub1.conv.weight.dtype == torch.float32
    half = network.conv1_sub1.conv.weight.half().float()
    assert torch.equal(read.conv1_sub1.conv.weight, half)


def test_label_set_must_fit(tmp_path):
    with pytest.raises(LabelSetError, match="5 classes"):
        save_checkpoint(tmp_path / "x.safetensors", ICNet(5, width=0.125), CITYSCAPES, STREET)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [0, 1, 7, 100, 5000, -1])
def test_cut_off_file_is_refused(saved, keep):
    _, path = saved
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError):
        load_checkpoint(path)


def test_other_files_are_refused(tmp_path, saved):
    with pytest.raises(ModelError, match=r"checkpoint .* there is no such file"):
        load_checkpoint(tmp_path / "absent.safetensors")
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(3)}, other)
    with pytest.raises(ModelError, match="icnet-deploy did not write it"):
        load_checkpoint(other)


def _rewritten(path, out, change):
    with safetensors.safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["icnet_deploy"])
    tensors = safetensors.torch.load_file(path)
    change(description, tensors)
    safetensors.torch.save_file(tensors, out, {"icnet_deploy": json.dumps(description)})
    return out


@pytest.mark.parametrize(
    "change",
    [
        lambda d, t: t.pop("conv1_sub1.conv.weight", t.popitem()),
        lambda d, t: t.update(extra=torch.zeros(1)),
        lambda d, t: d["network"].update(width=0.5),
        lambda d, t: d["network"].update(stages="sub5"),
        lambda d, t: d["network"].update(architecture="pspnet"),
        lambda d, t: d["network"].update(channels={"conv1_2_3x3": 12}),
        lambda d, t: d["network"].update(channels={"conv1_2_3x3": 10**18}),
        lambda d, t: d["network"].update(channels=["conv1_2_3x3"]),
        lambda d, t: d["network"].update(channels={"conv9": 8}),
        lambda d, t: d["network"].update(width=1e308),
        lambda d, t: d.update(network="icnet"),
        lambda d, t: d.pop("label_set"),
        lambda d, t: d.update(schema=99),
        lambda d, t: d["preprocessing"].update(channels="gray"),
    ],
)
def test_contradictions_are_refused(tmp_path, saved, change):
    with pytest.raises(ModelError):
        load_checkpoint(_rewritten(saved[1], tmp_path / "bad.safetensors", change))


NOT_FINITE = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize(
    "name", ["conv6_sub2.bias", "conv1_1_3x3_s2.conv.weight", "conv4_1._3x3.bn.running_var"]
)
@pytest.mark.parametrize("kind", [torch.float16, torch.float32, torch.float64])
def test_values_that_are_not_finite_are_refused_by_name(tmp_path, saved, value, name, kind):
    def spoil(description, tensors):
        tensors[name] = tensors[name].to(kind)
        tensors[name].view(-1)[3] = value

    path = _rewritten(saved[1], tmp_path / "bad.safetensors", spoil)
    with pytest.raises(ModelError, match=rf"{name} \(1 of \d+ values\).*another checkpoint"):
        load_checkpoint(path)


def test_what_is_no_number_as_float32_is_refused(tmp_path, saved):
    def spoil(description, tensors):
        tensors["conv6_sub2.bias"] = torch.full((11,), 1e300, dtype=torch.float64)

    with pytest.raises(ModelError, match=r"conv6_sub2.bias \(11 of 11 values\)"):
        load_checkpoint(_rewritten(saved[1], tmp_path / "bad.safetensors", spoil))


def test_a_variance_below_zero_is_refused(tmp_path, saved):
    def spoil(description, tensors):
        tensors["conv4_1._3x3.bn.running_var"][:2] = torch.tensor([-1.0, -1e-30])

    with pytest.raises(ModelError, match=r"running_var \(2 of"):
        load_checkpoint(_rewritten(saved[1], tmp_path / "bad.safetensors", spoil))


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.complex64])
def test_weights_that_are_no_floats_are_refused(tmp_path, saved, kind):
    def spoil(description, tensors):
        tensors["conv6_sub2.bias"] = tensors["conv6_sub2.bias"].to(kind)

    with pytest.raises(ModelError, match=r"conv6_sub2.bias holds torch.*, expected torch.float32"):
        load_checkpoint(_rewritten(saved[1], tmp_path / "bad.safetensors", spoil))


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("value", NOT_FINITE)
def test_values_that_are_not_finite_are_not_saved(tmp_path, lively, value, half):
    network = lively(ICNet(11, width=0.125))
    network.conv6_cls.bias.data[3] = value
    with pytest.raises(CheckFailed, match=r"conv6_cls.bias \(1 of 11 values\)"):
        save_checkpoint(tmp_path / "x.safetensors", network, CAMVID, STREET, half=half)
    assert not list(tmp_path.iterdir())


def test_what_float16_cannot_hold_is_saved_as_float32(tmp_path, lively):
    network = lively(ICNet(11, width=0.125))
    network.conv6_cls.bias.data[3] = 70000.0
    save_checkpoint(tmp_path / "half.safetensors", network, CAMVID, STREET, half=True)
    read = load_checkpoint(tmp_path / "half.safetensors").network
    assert torch.equal(read.conv6_cls.bias, network.conv6_cls.bias)
    half = network.conv6_cls.weight.half().float()
    assert torch.equal(read.conv6_cls.weight, half)


@pytest.mark.parametrize("value", [*NOT_FINITE, 1e300])
@pytest.mark.parametrize("what", ["mean", "scale"])
def test_preprocessing_that_is_not_finite_is_refused(tmp_path, saved, value, what):
    def spoil(description, tensors):
        description["preprocessing"][what][1] = value

    with pytest.raises(ModelError, match=r"finite|is no number"):
        load_checkpoint(_rewritten(saved[1], tmp_path / "bad.safetensors", spoil))


def test_preprocessing_is_the_formula():
    image = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8).numpy()
    rule = Preprocessing((10.0, 20.0, 30.0), (1.0, 0.5, 0.25), "bgr")
    ours = rule.tensor(image)
    for channel, (mean, scale) in enumerate(zip(rule.mean, rule.scale, strict=True)):
        plane = torch.from_numpy(image[..., 2 - channel].astype("float32"))
        assert torch.equal(ours[:, channel], (plane - mean) * scale)
    assert rule.tensor(image[0]).shape == (1, 3, 5, 7)


def test_the_shipped_checkpoint_is_small_and_whole():
    assert SHIPPED.stat().st_size <= 14e6
    checkpoint = load_checkpoint(SHIPPED)
    assert checkpoint.label_set == CITYSCAPES
    assert checkpoint.network.stages == "sub124"
    assert (SHIPPED.parent / "LICENSE.md").is_file()
    assert checkpoint.info["config"]["steps"] == checkpoint.info["steps"]


def test_a_changed_byte_is_found(tmp_path, saved):
    """Of random floats a changed one is as good as any: only the digest tells."""
    _, path = saved
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")  # of the tensors, behind the header
    copy = tmp_path / "copy.safetensors"
    for at in np.linspace(start, len(content) - 1, 40).astype(int):
        changed = bytearray(content)
        changed[at] ^= 1
        copy.write_bytes(bytes(changed))
        with pytest.raises(ModelError, match="was changed after it was written"):
            load_checkpoint(copy)
    assert content.count(b'\\"steps\\": 3') == 1
    copy.write_bytes(content.replace(b'\\"steps\\": 3', b'\\"steps\\": 4'))
    with pytest.raises(ModelError, match="was changed after it was written"):
        load_checkpoint(copy)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_a_full_disk_is_an_output_error(tmp_path, saved, monkeypatch):
    network, path = saved
    before = path.read_bytes()
    write = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda _, content: write(Path("/dev/full"), content))
    with pytest.raises(OutputError, match="No space left on device"):
        save_checkpoint(path, network, CAMVID, STREET)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_network_gives_the_same_file(tmp_path, saved):
    network, path = saved
    for count in range(8):
        again = tmp_path / f"{count}.safetensors"
        save_checkpoint(again, network, CAMVID, STREET, {"steps": 3})
        assert again.read_bytes() == path.read_bytes()


def test_a_rule_of_whole_numbers_of_any_size_is_one():
    """PyTorch makes no tensor of a whole number beyond 64 bits."""
    rule = Preprocessing((10**30, 0, -(2**63) - 1), (1, 1, 1))
    assert rule.tensor(np.zeros((2, 2, 3), np.uint8)).isfinite().all()
