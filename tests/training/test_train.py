"""A training run: it learns, it can be killed and resumed, and it refuses nonsense."""

from __future__ import annotations

import csv

import pytest

torch = pytest.importorskip("torch", reason="the training room needs torch")
pytest.importorskip("pytorch_lightning", reason="training needs pytorch_lightning")

from icnet_deploy.cli import main  # noqa: E402
from icnet_deploy.data.scenes import write_scenes  # noqa: E402
from icnet_deploy.training.checkpoint import load_checkpoint  # noqa: E402

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


def test_a_resumed_run_ends_where_an_unbroken_one_does(scenes, tmp_path, monkeypatch):
    from icnet_deploy.training import train as module

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(scenes, whole, 6) == 0
    monkeypatch.setattr(module, "SAVE_EVERY", 4)
    plain = module.Training.training_step

    def dies_at_six(self, batch, batch_idx):
        if self.global_step == 5:
            raise RuntimeError("killed")
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(module.Training, "training_step", dies_at_six)
    with pytest.raises(RuntimeError, match="killed"):
        run(scenes, broken, 6)
    assert not (broken / "net.safetensors").exists()
    monkeypatch.setattr(module.Training, "training_step", plain)
    assert run(scenes, broken, 6, "--resume") == 0
    a = load_checkpoint(whole / "net.safetensors").network.state_dict()
    b = load_checkpoint(broken / "net.safetensors").network.state_dict()
    for name, value in a.items():
        assert torch.allclose(value, b[name], atol=1e-4), name


def test_starts_from_a_checkpoint(scenes, tmp_path, capsys):
    assert run(scenes, tmp_path / "a", 3) == 0
    start = tmp_path / "a" / "net.safetensors"
    assert run(scenes, tmp_path / "b", 1, "--init", str(start)) == 0
    first, second = load_checkpoint(start), load_checkpoint(tmp_path / "b" / "net.safetensors")
    assert second.info["started_from"] == first.sha256
    kernels = [n.network.conv1_sub1.conv.weight for n in (first, second)]
    assert (kernels[0] - kernels[1]).abs().max() < 0.01  # new weights would be 0.3 away
    wide = (tmp_path / "b" / "c.toml").read_text().replace("0.125", "0.25")
    (tmp_path / "wide.toml").write_text(wide)
    assert run(scenes, tmp_path, 1, "--init", str(start), "--config", f"{tmp_path}/wide.toml") == 2
    assert "of width 0.125" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--resume"], "nothing to resume"),
        (["--config", "nosuch"], "no configuration"),
        (["--dataset", "scenes"], "one of each"),
        (["-o", "x.pth"], ".safetensors"),
        (["--batch", "1"], "batch"),
        (["--label-set", "camvid"], "cannot be trained"),
    ],
)
def test_wrong_requests_are_one_line_and_exit_code_2(scenes, tmp_path, capsys, more, said):
    assert run(scenes, tmp_path, 2, *more) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1


def test_wrong_settings_are_named(tmp_path, capsys, scenes):
    for text, said in (("rat = 1", "unknown settings"), ("rate = [", "not TOML")):
        (tmp_path / "bad.toml").write_text(text)
        argv = ["train", "--dataset", "scenes", "--data", str(scenes)]
        argv += ["--config", str(tmp_path / "bad.toml"), "-o", str(tmp_path / "n.safetensors")]
        assert main(argv) == 2
        assert said in capsys.readouterr().err
