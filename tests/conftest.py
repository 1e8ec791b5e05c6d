"""A small random network, what it exports to, and a few drawn scenes to score it on."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from icnet_deploy.cli import main
from icnet_deploy.data import Dataset, Sample
from icnet_deploy.images import read_grey, write_image, write_labels
from icnet_deploy.labels import CITYSCAPES, LabelSet
from icnet_deploy.metadata import read_onnx_metadata, stamped

SIZE = (96, 128)
BLANK_ROWS = 24  # at the top of every scene: truth unknown


@pytest.fixture(autouse=True)
def ctrl_c():
    """Ctrl-C raises in each test, whatever started the run (`nohup`, `&`) or another test left."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    """Three scenes of 96x128 whose 24 upper rows are not labelled."""
    from icnet_deploy.data.scenes import write_scenes

    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, 3, SIZE, 0, "val")
    for path in root.glob("gtFine/val/*/*_gtFine_labelIds.png"):
        labels = read_grey(path).copy()
        labels[:BLANK_ROWS] = 0
        write_labels(path, labels)
    return root


@pytest.fixture(scope="session")
def one_thread():
    """PyTorch on one thread: on a busy machine waiting for a second one costs most of the time."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def lively(one_thread):
    """Makes a network's batch norms random, in place, so that each of them matters."""

    import torch

    def make(network, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.data.uniform_(0.6, 1.4, generator=generator)
                module.bias.data.normal_(0, 0.1, generator=generator)
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
            elif isinstance(module, torch.nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.data.normal_(0, (1.5 / fan_in) ** 0.5, generator=generator)
        return network.eval()

    return make


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, one_thread) -> Path:
    """A random ICNet whose classes all occur: its logits have mean 0 and deviation 3 a class."""
    import torch

    from icnet_deploy.data.scenes import draw_scene
    from icnet_deploy.networks.checkpoint import save_checkpoint
    from icnet_deploy.networks.icnet import ICNet
    from icnet_deploy.networks.preprocessing import STREET

    torch.manual_seed(0)
    network = ICNet(19, width=0.125).eval()
    with torch.inference_mode():
        logits = network(STREET.tensor(draw_scene(0, SIZE).image))
        mean, deviation = logits.mean((0, 2, 3)), logits.std((0, 2, 3))
    with torch.no_grad():
        network.conv6_cls.weight.mul_((3 / deviation)[:, None, None, None])
        network.conv6_cls.bias.copy_(-3 * mean / deviation)
    path = tmp_path_factory.mktemp("checkpoint") / "random.safetensors"
    save_checkpoint(path, network, CITYSCAPES, STREET)
    return path


@pytest.fixture(scope="session")
def artefact(tmp_path_factory, checkpoint) -> Path:
    """The checkpoint as ONNX: float32, logits, 96x128."""
    from icnet_deploy.export.to_onnx import export

    path = tmp_path_factory.mktemp("artefact") / "random.onnx"
    export(path, checkpoint, SIZE)
    return path


@pytest.fixture(scope="session")
def labels_graph(tmp_path_factory, artefact):
    """The artefact with a head that makes label maps, as an export's: no second export is made."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(artefact)
    scales = helper.make_tensor("out_scales", TensorProto.FLOAT, [4], [1, 1, 4, 4])
    model.graph.initializer.append(scales)
    how = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    model.graph.node.extend(
        [
            helper.make_node("Resize", ["logits", "", "out_scales"], ["dense"], **how),
            helper.make_node("ArgMax", ["dense"], ["best"], axis=1, keepdims=0),
            helper.make_node("Cast", ["best"], ["labels"], to=TensorProto.UINT8),
        ]
    )
    del model.graph.output[:]
    shape = ["N", 96, 128]
    model.graph.output.append(helper.make_tensor_value_info("labels", TensorProto.UINT8, shape))
    metadata = dataclasses.replace(read_onnx_metadata(artefact), head="labels")
    path = tmp_path_factory.mktemp("labels") / "labels.onnx"
    path.write_bytes(stamped(model.SerializeToString(), metadata))
    return path


@pytest.fixture
def describe(artefact, tmp_path):
    """A function that copies the artefact with other metadata, and with its graph edited."""
    import onnx

    def edit(name, change=lambda graph: None, **fields) -> Path:
        model = onnx.load(artefact)
        metadata = dataclasses.replace(read_onnx_metadata(artefact), **fields)
        change(model.graph)
        path = tmp_path / name
        path.write_bytes(stamped(model.SerializeToString(), metadata))
        return path

    return edit


@pytest.fixture
def run():
    """A function that runs `icnet` with some arguments: its exit code, stdout and stderr."""

    def run(*arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(argument) for argument in arguments])
        return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())

    return run


@pytest.fixture
def timed():
    """A function that makes a latency of 96x128 from samples in ms, as if read from a file."""
    from icnet_deploy.benchmarks.measurement import Measurement
    from icnet_deploy.timing import summary

    def make(name, samples, scope="image-to-labels", values=(), setting=(), **fields):
        subject = {
            "name": name,
            "file": f"{name}.onnx",
            "sha256": f"{name:0<64}",
            "precision": "fp32",
            "runtime": "openvino",
            "device": "cpu",
            **fields.pop("subject", {}),
        }
        told = {"total": summary([ms / 1e3 for ms in samples]), **dict(values)}
        return Measurement(
            fields.pop("kind", "latency"),
            scope,
            subject,
            {"size": [96, 128], "batch": 1, "warmup": 3, "rounds": len(samples), **dict(setting)},
            told,
            fields.pop("machine", {"cpu": "a cpu", "cores": 2}),
            fields.pop("versions", {"numpy": "2"}),
        )

    return make


class Memory(Dataset):
    """A data set of samples that are there already."""

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


@pytest.fixture
def memory():
    """A function from (labels, ...) to a data set of grey images with these truths."""

    def make(*labels, label_set: LabelSet = CITYSCAPES):
        dataset = Memory("scenes", "val", label_set, (), read_grey)
        samples = [
            Sample(f"s{i}", np.full((*np.shape(truth), 3), i, np.uint8), np.array(truth, np.uint8))
            for i, truth in enumerate(labels)
        ]
        object.__setattr__(dataset, "samples", samples)
        return dataset

    return make


@pytest.fixture
def camvid(tmp_path) -> Path:
    """One CamVid frame of 8x8: sky above, road below."""
    truth = np.array([[0] * 8] * 4 + [[3] * 8] * 4, np.uint8)
    write_image(tmp_path / "camvid/val/a.png", np.zeros((8, 8, 3), np.uint8))
    write_labels(tmp_path / "camvid/valannot/a.png", truth)
    return tmp_path / "camvid"
