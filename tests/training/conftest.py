"""Networks with weights that behave: random kernels, and statistics measured on an input."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the training room needs torch")


@pytest.fixture(scope="session")
def lively():
    """Makes a network's batch norms random, in place, so that each of them matters."""

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
