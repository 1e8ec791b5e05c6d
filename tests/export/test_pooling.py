"""Adaptive pools of plain operators are torch's own, whatever divides what."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="export needs torch")

from torch import nn  # noqa: E402

from icnet_deploy.export.pooling import PlainPools  # noqa: E402

BINS = [1, 2, 6, (3, 5), (None, 4), (1, None)]


@pytest.mark.parametrize("size", [(12, 20), (13, 7), (5, 4), (3, 3)])
@pytest.mark.parametrize("bins", BINS, ids=str)
@pytest.mark.parametrize("kind", [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])
def test_they_are_torchs(kind, bins, size):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    wanted = kind(bins)(x)
    with PlainPools():
        answer = kind(bins)(x)
    assert answer.shape == wanted.shape
    assert torch.allclose(answer, wanted, atol=1e-6)


def test_the_places_of_the_largest_are_left_to_torch():
    x = torch.randn(1, 2, 7, 9)
    with PlainPools():
        values, places = nn.AdaptiveMaxPool2d(3, return_indices=True)(x)
    wanted, where = nn.AdaptiveMaxPool2d(3, return_indices=True)(x)
    assert torch.equal(values, wanted)
    assert torch.equal(places, where)
