"""What every network does: a new one subclasses `NetworkContract` in a few lines."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need torch")
pytest.importorskip("safetensors", reason="checkpoints need safetensors")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from icnet_deploy.export.deployed import Deployed, stride_of  # noqa: E402
from icnet_deploy.labels import CAMVID  # noqa: E402
from icnet_deploy.metadata import UPSAMPLINGS  # noqa: E402
from icnet_deploy.networks.blocks import words  # noqa: E402
from icnet_deploy.networks.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from icnet_deploy.networks.preprocessing import STREET, Preprocessing  # noqa: E402
from icnet_deploy.networks.registry import build_network, cost  # noqa: E402

SIZES = [(64, 64), (65, 97), (100, 333), (360, 480), (1024, 2048)]


class NetworkContract:
    """Tests of one network, small and with random weights.

    A subclass says how it is described, with its architecture, and how many heads it has when those
    for training are built.
    """

    described: dict[str, Any]
    heads: int = 1
    finest_first: bool = True

    def guided(self, network, lively):
        """Another of the same, with new weights and all heads."""
        return lively(build_network(network.description(guidance=True)), seed=1)

    @pytest.fixture(scope="class")
    @classmethod
    def network(cls, lively):
        """It with 11 classes, each of its batch norms random."""
        return lively(build_network({"num_classes": 11} | cls.described))

    def answer(self, network, size=(96, 130), seed=0):
        image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            return network(image)

    def shapes(self, network, size):
        """Of every head, at a size at which nothing is computed."""
        twin = build_network(network.description()).to("meta").eval()
        return [tuple(h.shape) for h in twin.heads(torch.empty(2, 3, *size, device="meta"))]

    def test_its_description_makes_the_same_network(self, network):
        description = network.description()
        assert description.items() >= self.described.items()
        assert json.loads(json.dumps(description)) == description
        again = build_network(description)
        assert again.description() == description
        assert {k: v.shape for k, v in again.state_dict().items()} == {
            k: v.shape for k, v in network.state_dict().items()
        }
        assert words(description).startswith(description["architecture"])

    def test_a_checkpoint_of_it_is_it_without_what_training_adds(self, network, lively, tmp_path):
        trained, path = self.guided(network, lively), tmp_path / "net.safetensors"
        save_checkpoint(path, trained, CAMVID, STREET, {"steps": 3})
        read = load_checkpoint(path)
        assert read.network.description() == network.description(guidance=False)
        assert read.network.state_dict().keys() == network.state_dict().keys()
        assert torch.equal(self.answer(read.network), self.answer(trained))
        assert (read.label_set, read.preprocessing, read.info) == (CAMVID, STREET, {"steps": 3})
        assert not read.network.training

    @pytest.mark.parametrize("size", SIZES)
    def test_its_first_head_is_the_one_that_is_deployed_at_any_size(self, network, lively, size):
        [alone] = self.shapes(network, size)
        guided = self.shapes(self.guided(network, lively), size)
        assert len(guided) == self.heads
        assert guided[0] == alone
        assert all(shape[:2] == (2, 11) for shape in guided)
        areas = [shape[2] * shape[3] for shape in guided]
        assert areas == sorted(areas, reverse=True) or not self.finest_first

    def test_heads_for_training_cost_nothing_where_it_is_deployed(self, network, lively):
        assert cost(self.guided(network, lively)) == cost(network)

    def test_its_stride_is_what_its_grids_show(self, network):
        least = network.min_side  # these sides have every remainder of 32
        sizes = [(least + i, least + 16 + i) for i in range(16)]
        assert network.stride == stride_of(network, sizes)

    def test_it_takes_its_least_side(self, network):
        assert self.answer(network, (network.min_side, network.min_side)).isfinite().all()

    def test_its_logits_become_pixels_by_its_rule(self, network):
        assert network.upsampling in UPSAMPLINGS
        logits, size = self.answer(network), (96, 130)
        pixels = network.upsample(logits, size)
        if network.upsampling == "none":
            assert torch.equal(pixels, logits)
        else:
            aligned = network.upsampling == "aligned-corners"
            wanted = F.interpolate(logits, size, mode="bilinear", align_corners=aligned)
            assert torch.equal(pixels, wanted)

    def test_scale_and_order_of_the_input_fold_exactly(self, network):
        rule = Preprocessing((100.0, 110.0, 120.0), (0.02, 0.01, 0.03), "bgr")
        pixels = np.random.default_rng(0).integers(0, 256, (1, 96, 130, 3), np.uint8)
        plain = copy.deepcopy(network).double()
        deployed = Deployed(plain, rule, "logits").double()
        mean, scale = (
            torch.tensor(values).double().view(1, 3, 1, 1) for values in (rule.mean, rule.scale)
        )
        bgr = torch.from_numpy(pixels).permute(0, 3, 1, 2).flip(1).double()
        with torch.inference_mode():
            wanted, answer = plain((bgr - mean) * scale), deployed(torch.from_numpy(pixels))
        assert float((answer - wanted).abs().max() / wanted.std()) < 1e-9

    def test_its_form_of_free_size_is_it_at_every_size(self, network):
        free = network.for_free_size()
        assert free.description() == network.description()
        assert free.state_dict().keys() == network.state_dict().keys()
        for size in ((64, 64), (96, 130), (129, 193), (200, 333)):
            wanted = self.answer(network, size)
            assert float((self.answer(free, size) - wanted).abs().max() / wanted.std()) < 1e-4

    def test_its_blocks_hold_every_convolution_once(self, network):
        held = [
            convolution
            for modules in network.blocks().values()
            for name in modules
            for convolution in network.get_submodule(name).modules()
            if isinstance(convolution, nn.Conv2d)
        ]
        every = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        assert len(held) == len(set(held))
        assert set(held) == set(every)

    def test_every_kernel_is_of_another_layer(self, network):
        kernels = [name for name, value in network.named_parameters() if value.ndim == 4]
        assert len({network.layer_of(kernel) for kernel in kernels}) == len(kernels)

    def test_ties_are_wider_where_arithmetic_is_coarser(self, network):
        margins = network.tie_margins(32.0)
        assert margins.keys() == {8, 16, 32}
        assert 0 < margins[32] < margins[16] < margins[8]
