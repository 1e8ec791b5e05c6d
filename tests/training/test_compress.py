"""Compression: what belongs together is cut together, and cutting zeros changes nothing."""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the training room needs torch")
pytest.importorskip("safetensors", reason="checkpoints need safetensors")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from icnet_deploy.cli import main  # noqa: E402
from icnet_deploy.errors import InputError  # noqa: E402
from icnet_deploy.files import sha256  # noqa: E402
from icnet_deploy.labels import CITYSCAPES  # noqa: E402
from icnet_deploy.networks.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from icnet_deploy.networks.icnet import ICNet  # noqa: E402
from icnet_deploy.networks.preprocessing import STREET  # noqa: E402
from icnet_deploy.networks.registry import build_network, cost  # noqa: E402
from icnet_deploy.training.compress.prune import (  # noqa: E402
    channel_groups,
    compress,
    kept_channels,
    prune,
)

ICNETS = [{"architecture": "icnet", "stages": s} for s in ("sub4", "sub24", "sub124")]
PSPNETS = [{"architecture": "pspnet", "downsampling": d} for d in (8, 16, 32)]
KINDS = [k | {"guidance": g} for k in ICNETS + PSPNETS for g in (False, True)]
SIZE = (65, 97)
pytestmark = pytest.mark.usefixtures("one_thread")


def built(kind, width=0.125):
    return build_network({"num_classes": 5, "width": width} | kind)


def _table():
    spec = importlib.util.spec_from_file_location(
        "table", Path(__file__).parents[1] / "networks" / "table.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_axis_that_counts_channels_is_in_exactly_one_group(kind):
    """All but the image's three channels and the classes."""
    network = built(kind)
    found = [axis for group in channel_groups(network) for axis in group.axes]
    wanted = set()
    for name, tensor in network.state_dict().items():
        if name.startswith("conv6"):
            wanted |= {(name, 1)} if tensor.ndim == 4 else set()
        elif tensor.ndim == 4:
            wanted |= {(name, 0), (name, 1)} if tensor.shape[1] != 3 else {(name, 0)}
        elif tensor.ndim == 1:
            wanted.add((name, 0))
    assert len(found) == len(set(found))
    assert set(found) == wanted


def test_groups_are_those_of_the_released_table():
    """Walks the table's sums back to the convolutions that made what is summed."""
    makers: dict[str, frozenset[str]] = {"data": frozenset()}
    groups: dict[str, set[str]] = {}
    for row in _table().layers():
        bottoms = [b for b in row["bottoms"].split("|") if b]
        if row["type"] == "Convolution":
            makers[row["name"]] = frozenset([row["name"]])
            groups[row["name"]] = {row["name"]}
        elif bottoms and row["name"] not in makers and row["type"] not in ("BN", "ReLU"):
            makers[row["name"]] = frozenset().union(*(makers[b] for b in bottoms))
        if row["type"] == "Eltwise":
            merged = set().union(*(groups[m] for m in makers[row["name"]]))
            groups.update(dict.fromkeys(merged, merged))
    wanted = {frozenset(g) for g in groups.values()} - {frozenset(["conv6_cls"])}
    assert {frozenset(g.layers) for g in channel_groups(ICNet(19))} == wanted
    assert max(map(len, wanted)) == 7


def silence(network, keep, multiple, seed):
    """Makes as many channels of every group all zero as `prune` drops; returns the network."""
    state, chosen = network.state_dict(), random.Random(seed)
    for group in channel_groups(network):
        count = kept_channels(group.channels, keep, multiple)
        dropped = chosen.sample(range(group.channels), group.channels - count)
        for name, axis in group.axes:
            if axis == 0 and not name.endswith("running_var"):
                state[name][dropped] = 0
    return network


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    keep=st.floats(0.05, 1.0),
    multiple=st.sampled_from([1, 3, 8]),
    seed=st.integers(0, 99),
)
def test_dropping_filters_that_are_zero_changes_nothing(lively, kind, keep, multiple, seed):
    network = silence(lively(built(kind), seed), keep, multiple, seed)
    image = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed))
    small = prune(network, keep, multiple=multiple)
    with torch.inference_mode():
        for before, after in zip(network.heads(image), small.heads(image), strict=True):
            # What is left out of each sum is exactly zero; float32 sums in another order.
            assert (before - after).abs().max() <= 1e-5 * before.abs().max()


def test_a_filter_that_is_not_zero_is_missed(lively):
    """The exact check can fail: one BN shift left in place is enough."""
    network = silence(lively(ICNet(5, width=0.125)), 0.5, 1, 0)
    bias = network.conv2_1._1x1_increase.bn.bias.data
    bias[bias == 0] = 1.0
    image = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before, after = network(image), prune(network, 0.5, multiple=1)(image)
    assert (before - after).abs().max() > 0.01 * before.abs().max()


def test_layers_that_are_summed_are_ranked_by_the_sum_of_their_norms():
    network = ICNet(5, width=0.125)
    block, chain = network.conv2_1, (network.conv2_1, network.conv2_2, network.conv2_3)
    for layer in [block._1x1_proj, *(b._1x1_increase for b in chain)]:
        layer.conv.weight.data.fill_(1e-3)
    for channel in range(24):  # weak in three of the four, and yet kept
        block._1x1_proj.conv.weight.data[channel] = 1.0
    for channel in (3, 30):
        network.conv2_3._1x1_increase.conv.weight.data[channel] = -5.0
    network.conv2_2._1x1_reduce.conv.weight.data[0] = torch.arange(32.0)[:, None, None]
    small = prune(network, 0.5)
    read = small.conv2_2._1x1_reduce.conv.weight[0, :, 0, 0]
    assert read.tolist() == [*range(15), 30]
    assert small.conv2_1._1x1_proj.cout == small.conv2_3._1x1_increase.cout == 16


@pytest.mark.parametrize(
    ("channels", "keep", "kept"),
    [(32, 0.75, 24), (64, 0.5, 32), (20, 0.5, 8), (32, 0.01, 8), (12, 0.9, 8), (5, 0.5, 5)],
)
def test_channels_are_kept_in_eights(channels, keep, kept):
    assert kept_channels(channels, keep) == kept


def test_shares_are_of_the_original(lively):
    network = lively(ICNet(5, width=0.25))
    most = prune(network, 0.75)
    half = prune(most, 0.5, network)
    assert half.description() == prune(network, 0.5).description()
    assert half.width == 0.25
    assert cost(half).macs < cost(most).macs < cost(network).macs
    with pytest.raises(InputError, match="give a smaller share"):
        prune(half, 0.75, network)


def test_half_the_released_net_is_a_quarter_of_the_work():
    with torch.device("meta"):
        quarter = cost(ICNet(19, width=0.25))
    assert cost(prune(ICNet(19), 0.5)) == quarter


class Trainer:
    """Stands in for a training run: shifts the weights, and dies at a given step if told."""

    def __init__(self, settings, dies_at=0):
        self.settings, self.dies_at, self.calls = settings, dies_at, []

    def __call__(self, init, out, run, resume):
        self.calls.append((run.name, resume))
        if len(self.calls) == self.dies_at:
            (run / "last.ckpt").write_text("state")
            raise KeyboardInterrupt
        read = load_checkpoint(init)
        for parameter in read.network.parameters():
            parameter.data += 0.01
        info = {"config": self.settings, "started_from": read.sha256}
        save_checkpoint(out, read.network, read.label_set, read.preprocessing, info, half=True)


@pytest.fixture
def origin(tmp_path, lively):
    path = tmp_path / "origin.safetensors"
    network = lively(ICNet(19, width=0.125, stages="sub4"))
    save_checkpoint(path, network, CITYSCAPES, STREET, {"data": ["x"]})
    return path


def test_a_killed_compression_goes_on_where_it_was(origin, tmp_path):
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    keep, steps = (0.75, 0.5), {"steps": 3}

    def go(out, trainer, resume, keep=keep, origin=origin):
        return compress(
            origin, keep, out, out.with_suffix(".run"), trainer, trainer.settings, resume
        )

    go(whole, Trainer(steps), False)
    with pytest.raises(KeyboardInterrupt):
        go(broken, Trainer(steps, dies_at=2), False)
    assert not broken.exists()
    again = Trainer(steps)
    _, result = go(broken, again, True)
    assert again.calls == [("keep-0.5", True)]
    assert sha256(whole) == sha256(broken)
    assert result.info["compression"]["keep"] == [0.75, 0.5]
    assert result.info["compression"]["parent"] == {"data": ["x"]}
    done, other = Trainer(steps), Trainer({"steps": 4})
    go(broken, done, True)
    assert done.calls == []
    go(broken, other, True)  # other settings: nothing that was tuned is taken for these
    assert [name for name, _ in other.calls] == ["keep-0.75", "keep-0.5"]
    changed = load_checkpoint(origin)
    save_checkpoint(origin, changed.network, CITYSCAPES, STREET, {"data": ["y"]})
    fresh = Trainer({"steps": 4})
    go(broken, fresh, True)  # another origin: neither is what was pruned, nor a state
    assert fresh.calls == [("keep-0.75", False), ("keep-0.5", False)]


def test_the_command_prunes_and_says_that_it_only_did_that(origin, tmp_path, capsys):
    out = tmp_path / "half.safetensors"
    assert main(["compress", str(origin), "--keep", "0.5", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "pruned only, and not accurate: fine-tune it" in printed
    assert "conv2_1_1x1_proj + 3 summed with it" in printed
    read = load_checkpoint(out)
    expected = prune(load_checkpoint(origin).network, 0.5)
    assert read.network.description() == expected.description()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(read.network.state_dict()[name], tensor), name
    assert json.dumps(read.network.channels)


def test_the_command_fine_tunes(origin, tmp_path, capsys):
    pytest.importorskip("pytorch_lightning", reason="fine-tuning needs pytorch_lightning")
    from icnet_deploy.data.scenes import write_scenes

    write_scenes(tmp_path / "scenes", 2, (96, 128), 1, "train", progress=False)
    config = tmp_path / "c.toml"
    config.write_text("width = 1.0\nbatch = 2\ncrop = [65, 97]\nseed = 3\n")
    out = tmp_path / "half.safetensors"
    data = ["--dataset", "scenes", "--data", str(tmp_path / "scenes"), "--config", str(config)]
    argv = ["compress", str(origin), "--keep", "0.5", *data, "--steps", "2", "-o", str(out)]
    assert main(argv) == 0
    read = load_checkpoint(out)
    pruned = load_checkpoint(tmp_path / "half.run" / "keep-0.5" / "pruned.safetensors")
    assert read.network.description() == pruned.network.description()
    assert read.network.channels["conv4_6_3x3"] == 16
    assert read.info["started_from"] == pruned.sha256
    assert read.info["data"][0]["images"] == 2
    moved = [
        not torch.equal(a, b)
        for a, b in zip(read.network.parameters(), pruned.network.parameters(), strict=True)
    ]
    assert sum(moved) > 0.9 * len(moved)
    assert "fine-tuning" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--keep", "0.5", "0.75"], "each smaller than the one before"),
        (["--keep", "1"], "shares between 0 and 1"),
        (["--keep", "0.5", "0"], "shares between 0 and 1"),
        (["--keep", "nan"], "keep"),
        (["--keep", "0.5", "--dataset", "scenes"], "1 --dataset but 0 --data"),
        (["--keep", "0.5", "-o", "x.pt"], "x.pt: it does not end in .safetensors"),
        (["--keep", "0.5", "-o", f"{__file__}/x.safetensors"], "a file of that name is there"),
    ],
)
def test_wrong_requests_are_refused(origin, tmp_path, capsys, more, said):
    argv = ["compress", str(origin), "-o", str(tmp_path / "o.safetensors"), *more]
    assert main(argv) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "o.safetensors").exists()
