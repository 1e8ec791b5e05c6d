"""A training whose numbers are no longer finite stops, says so, and writes no checkpoint."""

from __future__ import annotations

import re
import shutil

import pytest

torch = pytest.importorskip("torch", reason="the training room needs torch")
pl = pytest.importorskip("pytorch_lightning", reason="training needs pytorch_lightning")

import safetensors.torch  # noqa: E402

from icnet_deploy.cli import main  # noqa: E402
from icnet_deploy.data import open_dataset  # noqa: E402
from icnet_deploy.data.scenes import write_scenes  # noqa: E402
from icnet_deploy.errors import CheckFailed, NotFinite  # noqa: E402
from icnet_deploy.labels import CITYSCAPES  # noqa: E402
from icnet_deploy.training import train as running  # noqa: E402
from icnet_deploy.training.config import load_config  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
WILD = {
    "sgd": 'optimizer = "sgd"\nschedule = "poly"\nrate = 1000\nguidance = [1e30]\n',
    "adamw": 'schedule = "poly"\nrate = 1000\nweight_decay = 1000\n',
}
CONFIG = "width = 0.125\nsteps = {steps}\nbatch = 2\ncrop = [65, 97]\nseed = 3\n"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, 2, (96, 128), 1, "train", progress=False)
    write_scenes(root, 1, (96, 128), 1, "val", progress=False)
    return root


@pytest.fixture
def train(scenes, tmp_path, capsys):
    """Trains with some more settings; gives the exit code and what was said in one line."""

    def go(settings="", *more, steps=4):
        (tmp_path / "c.toml").write_text(CONFIG.format(steps=steps) + settings)
        code = main(
            [
                *("train", "--dataset", "scenes", "--data", str(scenes)),
                *("--config", str(tmp_path / "c.toml"), "-o", str(tmp_path / "net.safetensors")),
                *more,
            ]
        )
        lines = capsys.readouterr().err.strip().splitlines()
        return code, lines[-1] if lines else ""

    return go


def states(folder):
    """What is left in a run's folder that a run could go on from."""
    return [torch.load(path, weights_only=False) for path in (folder / "net.run").glob("*.ckpt")]


@pytest.mark.parametrize("line", ["guidance = [nan]", "rate = nan", "weight_decay = inf"])
def test_settings_that_are_no_numbers_are_refused_before_anything(train, tmp_path, line):
    code, said = train(line)
    assert code == 2
    assert line.split()[0] in said
    assert [p.name for p in tmp_path.iterdir()] == ["c.toml"]


@pytest.mark.parametrize("more", ["", "average = 0.9", 'architecture = "pspnet"'])
@pytest.mark.parametrize("optimizer", WILD)
def test_a_loss_that_is_no_number_stops_the_run(train, tmp_path, optimizer, more):
    (tmp_path / "net.safetensors").write_text("an earlier one")
    code, said = train(WILD[optimizer] + more, steps=9)
    assert code == 1
    assert re.search(r"the loss is not a finite number at step [2-9] of 9", said)
    assert "a rate below 1000" in said
    assert (tmp_path / "net.safetensors").read_text() == "an earlier one"
    for state in states(tmp_path):
        assert all(v.isfinite().all() for v in state["state_dict"].values())


@pytest.mark.parametrize("more", ["", "average = 0.9"])
def test_weights_that_the_last_step_spoils_are_not_saved(train, tmp_path, more):
    code, said = train(WILD["sgd"].replace("30", "37") + more, steps=1)
    assert code == 1
    assert "holds numbers that are infinite or not numbers" in said
    assert "a rate below 1000" in said
    assert not (tmp_path / "net.safetensors").exists()
    assert states(tmp_path) == []


class Spoil(pl.Callback):
    """Does something to the trained module when Lightning comes by."""

    def __init__(self, when, do):
        setattr(self, when, lambda trainer, module, *_: do(trainer, module))


@pytest.fixture
def spoiled(scenes, tmp_path):
    """Trains with a callback, and scores after every step, or never."""

    def go(callback, scored=True, resume=False):
        (tmp_path / "c.toml").write_text(CONFIG.format(steps=4))
        validation = [("scenes", open_dataset("scenes", scenes, "val"))] if scored else []
        return running.train(
            [open_dataset("scenes", scenes, "train")],
            CITYSCAPES,
            load_config(str(tmp_path / "c.toml")),
            tmp_path / "net.safetensors",
            tmp_path / "net.run",
            resume,
            None,
            validation,
            1,
            callbacks=[callback],
        )

    return go


def test_statistics_that_no_loss_shows_are_not_saved(spoiled, tmp_path):
    """In training a batch norm does not read its running statistics."""

    def spoil(trainer, module):
        module.network.conv1_sub1.bn.running_var[1] = float("inf")

    with pytest.raises(CheckFailed, match=r"conv1_sub1.bn.running_var \(1 of 8 values\)"):
        spoiled(Spoil("on_train_batch_end", spoil), scored=False)
    assert not (tmp_path / "net.safetensors").exists()


def test_a_score_is_not_taken_of_logits_that_are_no_numbers(spoiled, tmp_path):
    def spoil(trainer, module):
        module.best.conv6_cls.bias.data[3] = float("nan")

    with pytest.raises(NotFinite, match="the logits are infinite or not numbers"):
        spoiled(Spoil("on_validation_start", spoil))
    assert not (tmp_path / "net.safetensors").exists()


@pytest.fixture(scope="module")
def two_steps(scenes, tmp_path_factory):
    """A folder with a run of two steps, which another test may go on with."""
    folder = tmp_path_factory.mktemp("two-steps")
    (folder / "c.toml").write_text(CONFIG.format(steps=2) + "average = 0.9")
    argv = ["train", "--dataset", "scenes", "--data", str(scenes)]
    argv += ["--config", str(folder / "c.toml"), "-o", str(folder / "net.safetensors")]
    assert main(argv) == 0
    (folder / "net.safetensors").unlink()
    return folder


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["weight", "average", "optimizer", "schedule"])
def test_a_state_that_is_not_finite_is_not_resumed(train, two_steps, tmp_path, where, value):
    shutil.copytree(two_steps, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "net.run" / "last.ckpt"
    state = torch.load(path, weights_only=False)
    if where == "optimizer":
        name = "exp_avg"
        state["optimizer_states"][0]["state"][3][name].view(-1)[0] = value
    elif where == "schedule":
        name = "_last_lr"
        state["lr_schedulers"][0][name][0] = value
    else:
        name = {"weight": "network", "average": "average"}[where] + ".conv6_cls.bias"
        state["state_dict"][name][3] = value
    torch.save(state, path)
    code, said = train("average = 0.9", "--resume", steps=2)
    assert code == 2
    assert "the run's last state holds numbers that are infinite or not numbers" in said
    assert name in said
    assert not (tmp_path / "net.safetensors").exists()


def test_a_resumed_run_that_diverges_stops(train, spoiled, tmp_path):
    def dies(trainer, module):
        if trainer.global_step == 2:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        spoiled(Spoil("on_train_batch_start", dies), scored=False)
    path = tmp_path / "net.run" / "last.ckpt"
    state = torch.load(path, weights_only=False)
    state["state_dict"]["network.conv6_cls.weight"].fill_(3e38)
    torch.save(state, path)
    code, said = train("", "--resume")
    assert code == 1
    assert "not a finite number at step 3 of 4" in said
    assert not (tmp_path / "net.safetensors").exists()


@pytest.mark.parametrize("command", ["train", "compress", "evaluate", "export"])
def test_no_command_takes_a_checkpoint_that_is_not_finite(train, scenes, tmp_path, capsys, command):
    assert train("", steps=1)[0] == 0
    path, bad = tmp_path / "net.safetensors", tmp_path / "bad.safetensors"
    with safetensors.safe_open(path, framework="pt") as file:
        told = {"icnet_deploy": file.metadata()["icnet_deploy"]}  # without the digest
    tensors = safetensors.torch.load_file(path)
    tensors["conv6_cls.bias"][3] = float("nan")
    safetensors.torch.save_file(tensors, bad, told)
    path.unlink()
    if command == "train":
        code, said = train("", "--init", str(bad), steps=1)
    else:
        argv = {
            "compress": [str(bad), "--keep", "0.5", "-o", str(path)],
            "evaluate": [str(bad), "--dataset", "scenes", "--data", str(scenes)],
            "export": ["--weights", str(bad), "--size", "64x96", "-o", str(tmp_path / "a.onnx")],
        }[command]
        code, said = main([command, *argv]), capsys.readouterr().err
    assert code == 2
    assert "conv6_cls.bias (1 of 19 values)" in said
    assert not path.exists()
    assert not list(tmp_path.glob("*.onnx"))


def test_a_fine_tuning_that_diverges_stops_the_compression(train, scenes, tmp_path, capsys):
    assert train("", steps=1)[0] == 0
    (tmp_path / "wild.toml").write_text(CONFIG.format(steps=9) + WILD["adamw"])
    out = tmp_path / "half.safetensors"
    argv = ["compress", str(tmp_path / "net.safetensors"), "--keep", "0.5", "-o", str(out)]
    argv += ["--dataset", "scenes", "--data", str(scenes), "--config", f"{tmp_path}/wild.toml"]
    assert main(argv) == 1
    assert "the training diverged" in capsys.readouterr().err
    assert not out.exists()
    assert [p.name for p in tmp_path.glob("half.run/*/*.safetensors")] == ["pruned.safetensors"]
