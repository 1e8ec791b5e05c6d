"""Several processes train as one would: the stream, batch norm, and a real run of two."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="the training room needs torch")
pytest.importorskip("pytorch_lightning", reason="training needs pytorch_lightning")

import torch.distributed as dist  # noqa: E402
import torch.multiprocessing as mp  # noqa: E402

from icnet_deploy.data import open_dataset  # noqa: E402
from icnet_deploy.data.scenes import write_scenes  # noqa: E402
from icnet_deploy.labels import CITYSCAPES  # noqa: E402
from icnet_deploy.training.config import TrainConfig  # noqa: E402
from icnet_deploy.training.loader import Mix  # noqa: E402
from icnet_deploy.training.parallel import (  # noqa: E402
    SharedBatchNorm2d,
    share_batch_norm,
    shared_mean,
)

# Float64, few steps and a low rate: a net of 50 batch norms on so few pixels makes noise grow by a
# large factor a step, and what is to be seen is that there is no difference but noise.
CONFIG = """
width = 0.125
steps = 4
batch = 4
crop = [65, 97]
optimizer = "sgd"
schedule = "poly"
rate = 0.001
class_weights = 0.5
hard_pixels = 0.5
precision = "64-true"
seed = 3
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, 3, (96, 128), 1, "train", progress=False)
    write_scenes(root, 3, (96, 128), 9, "val", progress=False)
    return root


def test_processes_and_workers_share_the_one_stream(scenes):
    config = TrainConfig(batch=4, crop=(64, 96))
    mix = Mix([open_dataset("scenes", scenes, "train")], CITYSCAPES, config)
    whole = iter(mix)
    expected = [next(whole)[0] for _ in range(12)]
    mix.processes = 2
    for rank in (0, 1):
        mix.rank = rank
        loader = iter(torch.utils.data.DataLoader(mix, 2, num_workers=2))
        for step in range(3):
            batch = next(loader)[0]
            assert torch.equal(batch, torch.stack(expected[4 * step + 2 * rank :][:2]))


def test_a_resumed_stream_goes_on(scenes):
    config = TrainConfig(batch=2, crop=(64, 96))
    mix = Mix([open_dataset("scenes", scenes, "train")], CITYSCAPES, config)
    whole = iter(mix)
    fifth = [next(whole)[0] for _ in range(5)][4]
    mix.start = 2
    assert torch.equal(next(iter(mix))[0], fifth)


def test_one_process_is_plain_batch_norm():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    before = network(torch.ones(2, 3, 4, 4))
    names = list(network.state_dict())
    share_batch_norm(network)
    assert isinstance(network[1], SharedBatchNorm2d)
    assert list(network.state_dict()) == names
    assert torch.equal(network(torch.ones(2, 3, 4, 4)), before)


def _norm(rank, folder, x, grad, out):
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    norm = SharedBatchNorm2d(5)
    part = x[2 * rank : 2 * rank + 2].clone().requires_grad_()
    y = norm(part)
    y.backward(grad[2 * rank : 2 * rank + 2])
    torch.save((y.detach(), part.grad, norm.state_dict()), f"{out}/{rank}.pt")
    assert float(shared_mean(torch.tensor(float(rank)))) == 0.5
    dist.destroy_process_group()


def test_batch_norm_over_two_processes_is_that_of_the_whole_batch(tmp_path):
    torch.manual_seed(0)
    x, grad = 3 * torch.randn(4, 5, 6, 7) + 10, torch.randn(4, 5, 6, 7)
    mp.spawn(_norm, (str(tmp_path), x, grad, str(tmp_path)), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    plain, whole = torch.nn.BatchNorm2d(5), x.clone().requires_grad_()
    y = plain(whole)
    # The mean of both losses is what training takes, so its gradient is half of the sum's.
    (y * grad).sum().div(2).backward()
    assert torch.allclose(torch.cat([p[0] for p in parts]), y, atol=1e-5)
    halves = torch.cat([p[1] for p in parts]) / 2
    assert torch.allclose(halves, whole.grad, atol=1e-5)
    for name, value in plain.state_dict().items():
        assert torch.allclose(parts[0][2][name].float(), value.float(), rtol=1e-5), name


def train(scenes, folder, *more):
    folder.mkdir()
    (folder / "c.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "icnet_deploy", "train", "--dataset", "scenes"]
    command += ["--data", str(scenes), "--config", str(folder / "c.toml"), *more]
    command += ["--validate-every", "2", "-o", str(folder / "net.safetensors")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    with (folder / "net.run" / "metrics.csv").open() as file:
        return list(csv.DictReader(file)), done.stdout


def test_two_processes_have_the_loss_curve_of_one(scenes, tmp_path):
    alone, _ = train(scenes, tmp_path / "one")
    together, said = train(scenes, tmp_path / "two", "--devices", "2")
    assert said.count("4 steps in") == 1  # one process speaks
    assert len(alone) == len(together) == 4
    for a, b in zip(alone, together, strict=True):
        assert a.keys() == b.keys()
        for name in ("loss", "loss_1", "loss_2", "loss_3"):
            assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-5), (
                a,
                b,
            )  # six digits are written
    scores = [
        [float(r["miou_scenes"]) for r in rows if r["miou_scenes"]] for rows in (alone, together)
    ]
    assert len(scores[0]) == 2
    assert scores[0] == pytest.approx(scores[1], abs=0.01)
