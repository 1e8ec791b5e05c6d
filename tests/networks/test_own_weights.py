"""Weights of one's own: which files are read, and that every tensor is accounted for."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import warnings

import pytest

torch = pytest.importorskip("torch", reason="a network of one's own needs torch")
pytest.importorskip("safetensors", reason="weights need safetensors")

import numpy as np  # noqa: E402
import safetensors.torch  # noqa: E402
from torch import nn  # noqa: E402

from icnet_deploy.errors import ModelError  # noqa: E402
from icnet_deploy.networks.own.weights import load_weights  # noqa: E402


class Net(nn.Module):
    """Two parts, one with a batch norm; `aux` where training needs it."""

    def __init__(self, width=4, depth=1, aux=False):
        super().__init__()
        self.backbone = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)) for _ in range(depth))
        )
        self.head = nn.Conv2d(width, 5, 1)
        if aux:
            self.aux_head = nn.Conv2d(width, 5, 1)

    def forward(self, x):
        return self.head(self.backbone(x))


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(1)
    return Net()


@pytest.fixture
def loaded(tmp_path, trained):
    """A function: writes a value as a file, loads it into a fresh network; what it said of it.

    The network must then have the trained one's weights, plus `offset`.
    """

    def load(value, offset=0.0, name="net.pth", module=None):
        path = tmp_path / name
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(value, path)
        else:
            torch.save(value, path)
        fresh = module or Net()
        result = load_weights(fresh, path, "nets:Net")
        for key, tensor in trained.state_dict().items():
            own = dict(fresh.state_dict())
            key = next(k for k in own if k.endswith(key))
            if tensor.is_floating_point():
                assert torch.allclose(own[key], tensor + offset)
        return result

    return load


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


def moved(state, offset):
    return {k: v + offset if v.is_floating_point() else v for k, v in state.items()}


WRAPPED = {
    "bare": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": s, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
    "nested": lambda s: {"checkpoint": {"model_state_dict": s}, "loss": 0.3},
    "module.": lambda s: prefixed(s, "module."),
    "_orig_mod.module.": lambda s: {"net": prefixed(s, "_orig_mod.module.")},
    "compiled part": lambda s: {k.replace("backbone.", "backbone._orig_mod."): s[k] for k in s},
    "lightning": lambda s: {
        "state_dict": {**prefixed(s, "model.net."), "criterion.weight": torch.ones(5)},
        "hyper_parameters": argparse.Namespace(lr=1e-3, best=np.float64(3)),
        "pytorch-lightning_version": "2.5",
    },
    "namespace": lambda s: {"model": s, "args": argparse.Namespace(lr=1e-3)},
}


@pytest.mark.parametrize("form", WRAPPED)
def test_wrappers_and_prefixes_are_understood(loaded, trained, form):
    assert "8 tensors taken" in loaded(WRAPPED[form](trained.state_dict())).words


def test_the_table_accounts_for_every_tensor(loaded, trained):
    state = trained.state_dict() | prefixed(Net(aux=True).aux_head.state_dict(), "aux_head.")
    result = loaded({"model": state})
    assert result.words == (
        "8 tensors taken from its 'model', 2 left over (aux_head: for training only)"
    )
    assert [row[:2] + row[3:] for row in result.table.rows] == [
        ("backbone", "6", "taken"),
        ("head", "2", "taken"),
        ("aux_head", "2", "left out"),
    ]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_float32(tmp_path, trained, kind):
    state = {k: v.to(kind) if v.is_floating_point() else v for k, v in trained.state_dict().items()}
    torch.save(state, tmp_path / "net.pt")
    fresh = Net()
    load_weights(fresh, tmp_path / "net.pt", "nets:Net")
    assert fresh.head.weight.dtype == torch.float32
    assert torch.equal(fresh.head.weight, trained.head.weight.to(kind).float())


@pytest.mark.parametrize("start", [b"\x80", b"\x80\x04"])
def test_a_header_whose_length_begins_as_a_pickle_does(start, trained, tmp_path, monkeypatch):
    monkeypatch.delattr(torch, "load")  # newer ones read safetensors, too
    state = trained.state_dict()
    data, path = safetensors.torch.save(state), tmp_path / "net.safetensors"
    length, unit = int.from_bytes(data[:8], "little"), 256 ** len(start)
    longer = length + (int.from_bytes(start, "little") - length) % unit
    header = data[8 : 8 + length].ljust(longer)
    path.write_bytes(longer.to_bytes(8, "little") + header + data[8 + length :])
    assert path.read_bytes().startswith(start)
    fresh = Net()
    load_weights(fresh, path, "nets:Net")
    assert all(torch.equal(value, state[name]) for name, value in fresh.state_dict().items())


def test_a_file_of_safetensors_and_one_without_counters_are_read(loaded, trained):
    state = {k: v for k, v in trained.state_dict().items() if "num_batches" not in k}
    loaded(prefixed(state, "module."), name="net.safetensors")


def test_the_old_form_of_torch_save_is_read(tmp_path, trained):
    torch.save(trained.state_dict(), tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    load_weights(Net(), tmp_path / "a.pth", "nets:Net")


def test_of_weights_and_their_average_the_average_is_taken_and_said(loaded, trained):
    state = trained.state_dict()
    both = {"model": state, "model_ema": prefixed(moved(state, 0.5), "module.")}
    both["model_ema"]["n_averaged"] = torch.tensor(3)
    said = loaded(both, offset=0.5).words
    assert "its 'model_ema'" in said
    assert "not from its 'model', which also fits" in said
    one = {"state_dict": prefixed(state, "model.") | prefixed(moved(state, 0.5), "ema_model.")}
    assert "'ema_model.'" in loaded(one, offset=0.5).words


def test_two_networks_in_one_file_are_not_guessed_between(loaded, trained):
    state = trained.state_dict()
    both = prefixed(state, "first.") | prefixed(moved(state, 1), "second.")
    with pytest.raises(ModelError, match=r"more than once, under 'first.', 'second.'"):
        loaded(both)


def test_a_network_that_keeps_another_as_its_only_part_takes_the_others_names(loaded, trained):
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = Net()

    loaded(trained.state_dict(), module=Outer())


WRONG = {
    "missing": (
        lambda s: s.pop("head.bias"),
        r"7 of the network's 8 .* 1 missing in the file: hea",
    ),
    "shape": (
        lambda s: s.update({"head.weight": torch.zeros(19, 4, 1, 1)}),
        r"1 of another shape: head.weight is 19x4x1x1, the network's is 5x4x1x1",
    ),
    "left over": (
        lambda s: s.update({"backbone.1.0.weight": torch.zeros(3)}),
        "1 left over in the file: backbone.1.0.weight",
    ),
    "kind": (
        lambda s: s.update({"head.bias": torch.zeros(5, dtype=torch.int64)}),
        "1 of another kind: head.bias holds torch.int64",
    ),
    "not finite": (lambda s: s["head.bias"].fill_(float("nan")), r"head.bias \(5 of 5 values\)"),
    "others": (
        lambda s: (s.clear(), s.update(a=torch.zeros(3))),
        "no tensor in it has the name of",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_fit_is_listed(tmp_path, trained, wrong):
    change, message = WRONG[wrong]
    state = {k: v.clone() for k, v in trained.state_dict().items()}
    change(state)
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(ModelError, match=message):
        load_weights(Net(), tmp_path / "net.pth", "nets:Net")


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"model": m, "epoch": 1}])
def test_a_pickled_module_is_refused_with_the_lines_that_make_a_state_dict(tmp_path, trained, wrap):
    path = tmp_path / "whole.pt"
    torch.save(wrap(trained), path)
    with pytest.raises(
        ModelError,
        match=r"a pickled module, \S*test_own_weights.Net,.* cannot be read without running",
    ) as e:
        load_weights(Net(), path, "nets:Net")
    lines = str(e.value).partition("in Python: ")[2].split(" ; ")
    for line in lines:
        exec(line.replace("whole-state", f"{tmp_path}/whole-state"), globals())
    load_weights(Net(), tmp_path / "whole-state.pth", "nets:Net")


def test_torchscript_is_refused_with_the_lines_that_make_a_state_dict(tmp_path, trained):
    path = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Conv2d(3, 4, 1)).save(path)
    with pytest.raises(ModelError, match=r"a TorchScript archive, .*torch.jit.load") as error:
        load_weights(Net(), path, "nets:Net")
    assert re.search(r"torch.save\(network.state_dict\(\), .*script-state.pth", str(error.value))


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("function", [os.mkdir, exec])
def test_nothing_in_a_file_is_run(tmp_path, trained, function, zipped):
    made = tmp_path / "made"
    call = (function, f"import os; os.mkdir({str(made)!r})" if function is exec else str(made))
    path = tmp_path / "evil.pth"
    value = {"state_dict": trained.state_dict(), "more": Evil(*call)}
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"evil.pth (is refused|holds more than tensors)"):
        load_weights(Net(), path, "nets:Net")
    assert not made.exists()


FILES = {
    "empty.pth": (b"", "it is empty"),
    "page.pth": (b"<html>not found</html>", "a web page"),
    "half.pth": (b"PK\x03\x04 and no more", "not a whole file of torch.save"),
    "pickle.pth": (
        pickle.dumps({"a": 1}),
        "not a whole file|expected a dict of tensors|more than tensors",
    ),
    "half.safetensors": (b"\x40" + bytes(7) + b'{"a":', "not a whole safetensors file"),
    "other.bin": (bytes(range(64)), "neither a .safetensors nor a .pth file"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_hold_no_weights_are_refused(tmp_path, name):
    content, message = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_weights(Net(), tmp_path / name, "nets:Net")


def test_what_is_no_state_dict_is_said(tmp_path):
    for value, words in [({"epoch": 3}, "a dict of 'epoch'"), ([1], "a value of list")]:
        torch.save(value, tmp_path / "x.pth")
        with pytest.raises(ModelError, match=f"holds {words}"):
            load_weights(Net(), tmp_path / "x.pth", "nets:Net")
    with pytest.raises(ModelError, match="there is no such file"):
        load_weights(Net(), tmp_path / "absent.pth", "nets:Net")
