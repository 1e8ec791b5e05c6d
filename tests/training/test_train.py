"""A training run: it learns, it can be killed and resumed, and it refuses nonsense."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the training room needs torch")
pl = pytest.importorskip("pytorch_lightning", reason="training needs pytorch_lightning")

from icnet_deploy.cli import main  # noqa: E402
from icnet_deploy.data import open_dataset  # noqa: E402
from icnet_deploy.data.scenes import write_scenes  # noqa: E402
from icnet_deploy.errors import DatasetError  # noqa: E402
from icnet_deploy.labels import CITYSCAPES  # noqa: E402
from icnet_deploy.networks.checkpoint import load_checkpoint  # noqa: E402
from icnet_deploy.training.config import load_config  # noqa: E402
from icnet_deploy.training.loader import Mix  # noqa: E402
from icnet_deploy.training.module import optimizers  # noqa: E402
from icnet_deploy.training.train import train  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = """
width = 0.125
steps = {steps}
batch = 2
crop = [65, 97]
resize = [0.9, 1.2]
rate = 3e-3
seed = 3
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, 3, (96, 128), 1, "train", progress=False)
    return root


def run(scenes, folder, steps, *more):
    folder.mkdir(exist_ok=True)
    (folder / "c.toml").write_text(CONFIG.format(steps=steps))
    return main(
        [
            *("train", "--dataset", "scenes", "--data", str(scenes)),
            *("--config", str(folder / "c.toml"), "-o", str(folder / "net.safetensors"), *more),
        ]
    )


def test_learns_and_writes_a_checkpoint(scenes, tmp_path, capsys):
    assert run(scenes, tmp_path, 60) == 0
    read = load_checkpoint(tmp_path / "net.safetensors")
    assert read.info["steps"] == 60
    assert read.info["data"] == [{"name": "scenes", "split": "train", "images": 3, "share": 1.0}]
    rows = list(csv.DictReader((tmp_path / "net.run" / "metrics.csv").open()))
    losses = [float(r["loss"]) for r in rows]
    assert sum(losses[-3:]) / 3 < 0.85 * losses[0]
    assert "60 steps" in capsys.readouterr().out


class Dies(pl.Callback):
    """Ends a run as it begins a step."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 5:
            raise RuntimeError("killed")


def test_a_resumed_run_ends_where_an_unbroken_one_does(scenes, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(scenes, whole, 6) == 0
    sets, config = [open_dataset("scenes", scenes, "train")], load_config(f"{whole}/c.toml")
    out, state = broken / "net.safetensors", broken / "net.run"
    with pytest.raises(RuntimeError, match="killed"):
        train(sets, CITYSCAPES, config, out, state, callbacks=[Dies()])
    assert not out.exists()
    assert run(scenes, broken, 6, "--resume") == 0
    a = load_checkpoint(whole / "net.safetensors").network.state_dict()
    b = load_checkpoint(broken / "net.safetensors").network.state_dict()
    for name, value in a.items():
        assert torch.allclose(value, b[name], atol=1e-4), name


def test_a_run_killed_for_real_goes_on(scenes, tmp_path):
    """SIGKILL leaves no time for anything; the run is at most an epoch, here two steps, behind."""
    (tmp_path / "c.toml").write_text(CONFIG.format(steps=400))
    command = [sys.executable, "-m", "icnet_deploy", "train", "--dataset", "scenes"]
    command += ["--data", str(scenes), "--config", str(tmp_path / "c.toml")]
    command += ["-o", str(tmp_path / "net.safetensors")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **quiet)
    curve = tmp_path / "net.run" / "metrics.csv"
    end = time.monotonic() + 120
    while time.monotonic() < end and not (curve.is_file() and len(curve.read_text()) > 200):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = list(csv.DictReader(curve.open()))
    state = torch.load(tmp_path / "net.run" / "last.ckpt", weights_only=False)
    assert state["global_step"] >= int(before[-1]["step"]) - 2
    # What is left of it is cut short: the settings are the state's own.
    state["icnet_deploy_config"]["steps"] = state["global_step"] + 3
    torch.save(state, tmp_path / "net.run" / "last.ckpt")
    (tmp_path / "c.toml").write_text(CONFIG.format(steps=state["global_step"] + 3))
    assert main([*command[3:], "--resume"]) == 0
    after = list(csv.DictReader(curve.open()))
    kept = [row for row in before if int(row["step"]) < state["global_step"]]
    assert after[: len(kept)] == kept
    assert int(after[-1]["step"]) > state["global_step"]


def test_starts_from_a_checkpoint(scenes, tmp_path, capsys):
    assert run(scenes, tmp_path / "a", 3) == 0
    start = tmp_path / "a" / "net.safetensors"
    assert run(scenes, tmp_path / "b", 1, "--init", str(start)) == 0
    first, second = load_checkpoint(start), load_checkpoint(tmp_path / "b" / "net.safetensors")
    assert second.info["started_from"] == first.sha256
    kernels = [n.network.conv1_sub1.conv.weight for n in (first, second)]
    assert (kernels[0] - kernels[1]).abs().max() < 0.01  # new weights would be 0.3 away
    # The checkpoint says what network it is, and a configuration of another is not silently lost.
    wide = (tmp_path / "b" / "c.toml").read_text().replace("0.125", "0.25")
    (tmp_path / "wide.toml").write_text(wide)
    assert run(scenes, tmp_path, 1, "--init", str(start), "--config", f"{tmp_path}/wide.toml") == 0
    said = capsys.readouterr().out
    assert "icnet, sub124, width 0.125, not the configured icnet, sub124, width 0.25" in said
    assert load_checkpoint(tmp_path / "net.safetensors").network.width == 0.125


def test_the_average_is_saved_and_scored(scenes, tmp_path):
    """With a decay of almost 1 the average stays near the start, where the weights have left."""
    write_scenes(scenes, 1, (96, 128), 9, "val", progress=False)
    plain, averaged = tmp_path / "plain", tmp_path / "averaged"
    curve = []
    for folder, more in ((plain, ""), (averaged, "average = 0.9")):
        folder.mkdir()
        (folder / "own.toml").write_text(CONFIG.format(steps=6) + more)
        assert run(scenes, folder, 6, "--config", f"{folder}/own.toml") == 0
        curve.append(list(csv.DictReader((folder / "net.run" / "metrics.csv").open())))
    assert [r["loss"] for r in curve[0]] == [r["loss"] for r in curve[1]]
    assert curve[0][-1]["miou_scenes"] != curve[1][-1]["miou_scenes"]
    a, b = (load_checkpoint(f / "net.safetensors").network.state_dict() for f in (plain, averaged))
    assert any(not torch.equal(v, b[k]) for k, v in a.items())


def test_a_run_is_not_resumed_with_other_settings(scenes, tmp_path, capsys):
    assert run(scenes, tmp_path, 2) == 0
    assert run(scenes, tmp_path, 3, "--resume") == 2
    assert "steps: 2 before, 3 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        (
            ("--leave-out", "^scenes_000000"),
            ("--leave-out", "^scenes_000001"),
            ("the data: 2 images of train without ^scenes_000000", "2 images of train without"),
        ),
        (("--init", "first"), (), ("--init: SHA-256 ", "before, none now")),
        ((), ("--label-set", "turned.json"), ("the classes: road, ", "now)")),
    ],
)
def test_a_run_is_not_resumed_otherwise_than_it_began(
    scenes, tmp_path, capsys, monkeypatch, before, now, words
):
    """What is left out now would have been trained on, and be scored as if it had not."""
    monkeypatch.chdir(tmp_path)
    turned = {"name": "turned", "names": CITYSCAPES.names[::-1], "palette": CITYSCAPES.palette}
    Path("turned.json").write_text(json.dumps(turned))
    if "--init" in before:
        assert run(scenes, tmp_path / "a", 1) == 0
        (tmp_path / "a" / "net.safetensors").rename("first")
    assert run(scenes, tmp_path, 1, *before) == 0
    capsys.readouterr()
    assert run(scenes, tmp_path, 1, "--resume", *now) == 2
    said = capsys.readouterr().err
    assert "began differently" in said
    assert all(word in said for word in words), said
    assert run(scenes, tmp_path, 1, "--resume", *before) == 0


def test_sgd_on_the_papers_schedule():
    config = load_config("paper-30k")
    made = optimizers(torch.nn.Conv2d(3, 4, 3), config)
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [1e-4, 0.0]
    for _ in range(15000):
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 0.5**0.9, rel=1e-6)
    assert optimizer.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize(
    "name", ["paper-30k", "paper-90k", "camvid", "street-first", "street", "demo"]
)
def test_shipped_configurations_are_read(name):
    assert load_config(name).steps >= 600


def test_a_baseline_trains(scenes, tmp_path):
    (tmp_path / "p.toml").write_text(CONFIG.format(steps=2) + 'architecture = "pspnet"')
    assert run(scenes, tmp_path, 2, "--config", f"{tmp_path}/p.toml") == 0
    network = load_checkpoint(tmp_path / "net.safetensors").network
    assert network.description()["architecture"] == "pspnet"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--resume"], "nothing to resume"),
        (["--config", "nosuch"], "no configuration"),
        (["--dataset", "scenes"], "give both for each set"),
        (["-o", "x.pth"], ".safetensors"),
        (["--batch", "1"], "batch"),
        (["--batch", "3", "--devices", "2"], "cannot be shared"),
        (["--batch", "100000000000"], "GiB for images and labels alone"),
        (["--crop", "1000000x1000000"], "each side must be 64 to 16384 pixels"),
        (["--label-set", "camvid"], "cannot be trained"),
    ],
)
def test_wrong_requests_are_one_line_and_exit_code_2(scenes, tmp_path, capsys, more, said):
    assert run(scenes, tmp_path, 2, *more) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1


def _raises(error):
    raise error


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        (lambda: _raises(DatasetError("the image x.png was cut off")), "x.png was cut off"),
        (lambda: _raises(RuntimeError("unable to allocate shared memory(shm)")), "--workers 0"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "--workers 0"),
    ],
)
def test_what_ends_a_loading_process_is_one_line(scenes, tmp_path, capsys, monkeypatch, ends, said):
    own = os.getpid()
    drawn = Mix.draw
    monkeypatch.setattr(Mix, "draw", lambda *given: drawn(*given) if os.getpid() == own else ends())
    assert run(scenes, tmp_path, 2, "--workers", "1") == 2
    (error,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("icnet: error")]
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "net.safetensors").exists()


class _Interrupted(pl.Callback):
    def on_train_batch_end(self, *_):
        raise KeyboardInterrupt


def test_ctrl_c_does_afterwards_what_it_did_before(scenes, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    data, config = open_dataset("scenes", scenes, "train"), load_config("demo")
    config = config.override(steps=2, batch=2, crop=(65, 97))
    with pytest.raises(KeyboardInterrupt):
        train(
            [data],
            CITYSCAPES,
            config,
            tmp_path / "n.safetensors",
            tmp_path / "run",
            callbacks=[_Interrupted()],
        )
    assert signal.getsignal(signal.SIGINT) is before


def test_wrong_settings_are_named(tmp_path, capsys, scenes):
    for text, said in (
        ("rat = 1", "it holds rat; known: appearance, architecture, "),
        ("rate = [", "not TOML"),
    ):
        (tmp_path / "bad.toml").write_text(text)
        argv = ["train", "--dataset", "scenes", "--data", str(scenes)]
        argv += ["--config", str(tmp_path / "bad.toml"), "-o", str(tmp_path / "n.safetensors")]
        assert main(argv) == 2
        assert said in capsys.readouterr().err
