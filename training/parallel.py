"""Training by several processes as if by one: batch norm over the whole batch, and shared means."""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn


def processes() -> int:
    """How many processes train together; 1 outside of `torch.distributed`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Mean(torch.autograd.Function):
    """The mean of a tensor over all processes; its gradient is the mean of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous().clone()
        dist.all_reduce(x)
        return x / dist.get_world_size()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        return grad / dist.get_world_size()


def shared_mean(x: Tensor) -> Tensor:
    """The mean of `x`, of any shape, over all processes; `x` itself where there is one."""
    return x if processes() == 1 else cast(Tensor, _Mean.apply(x))  # type: ignore[no-untyped-call]


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics are those of all processes' batches, on any device.

    torch's own SyncBatchNorm needs CUDA. Every process must bring as many pixels as the others.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Float N x C x H x W; as BatchNorm2d but for the statistics of training."""
        if not self.training or processes() == 1:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = shared_mean(wide.mean((0, 2, 3)))
        centred = wide - mean.view(1, -1, 1, 1)
        var = shared_mean(centred.square().mean((0, 2, 3)))
        self._follow(mean.detach(), var.detach(), processes() * x.numel() // x.shape[1])
        scale = self.weight * (var + self.eps).rsqrt()
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)

    def _follow(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Moves the running statistics; the variance without bias, as torch has it."""
        part = cast(float, self.momentum)
        cast(Tensor, self.running_mean).lerp_(mean, part)
        cast(Tensor, self.running_var).lerp_(var * (count / (count - 1)), part)
        cast(Tensor, self.num_batches_tracked).add_(1)


def share_batch_norm(network: nn.Module) -> None:
    """Makes every BatchNorm2d of a network, in place, a SharedBatchNorm2d of the same state."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum)
                shared.load_state_dict(child.state_dict())
                shared.to(child.weight.device, child.weight.dtype)
                setattr(parent, name, shared)
