"""What the networks are made of: convolution with batch norm, bottleneck, pyramid pooling."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BN_EPS = 1e-5
POOL_BINS = (1, 2, 3, 6)


def resize(x: Tensor, size: tuple[int, int], upsampling: str = "aligned-corners") -> Tensor:
    """Resizes float N x C x h x w to a size of (height, width).

    Args:
        x: what to resize.
        size: wanted.
        upsampling: bilinear with `aligned-corners`, the only resize in ICNet and PSPNet, or with
            `half-pixel` centres; `none` takes the nearest, which changes nothing of that size.
    """
    if upsampling == "none":
        return F.interpolate(x, size=size, mode="nearest-exact")
    aligned = upsampling == "aligned-corners"
    return F.interpolate(x, size=size, mode="bilinear", align_corners=aligned)


def halved(size: tuple[int, int]) -> tuple[int, int]:
    """(n - 1) // 2 + 1 a side: 1025 -> 513, 1024 -> 512."""
    return (size[0] - 1) // 2 + 1, (size[1] - 1) // 2 + 1


class ConvBN(nn.Module):
    """Convolution without bias, batch norm, and ReLU unless `relu=False`.

    Attributes:
        cout: channels of the output.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        relu: bool = True,
        groups: int = 1,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.conv = nn.Conv2d(cin, cout, kernel, stride, padding, dilation, groups, bias=False)
        self.bn = nn.BatchNorm2d(cout, eps=BN_EPS, momentum=0.05)
        self.relu, self.cout = relu, cout

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return F.relu(x, inplace=True) if self.relu else x


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut; a stride sits on the first 1x1, as the authors have it.

    Args:
        cin: channels of the input.
        reduce: channels after the first 1x1.
        mid: channels after the 3x3.
        cout: channels of the output.
        stride: of the first 1x1, and of the projection.
        dilation: of the 3x3.
        proj: a 1x1 on the shortcut, where the input has another shape than the output.
    """

    def __init__(
        self,
        cin: int,
        reduce: int,
        mid: int,
        cout: int,
        stride: int = 1,
        dilation: int = 1,
        proj: bool = False,
    ) -> None:
        super().__init__()
        self._1x1_reduce = ConvBN(cin, reduce, 1, stride)
        self._3x3 = ConvBN(reduce, mid, 3, dilation=dilation)
        self._1x1_increase = ConvBN(mid, cout, 1, relu=False)
        self._1x1_proj = ConvBN(cin, cout, 1, stride, relu=False) if proj else None
        self.cout = cout

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self._1x1_proj is None else self._1x1_proj(x)
        return F.relu(skip + self._1x1_increase(self._3x3(self._1x1_reduce(x))), inplace=True)


def pool_windows(side: int) -> list[tuple[int, int]]:
    """(kernel, stride) along one side for 1, 2, 3 and 6 bins; every window fits and all are alike.

    At 33 and 65 these are the authors' fixed windows: the stride for 3 bins is twice that for 6.
    A side below 6 has as many bins as pixels.
    """
    windows = []
    for bins in POOL_BINS:
        bins = min(bins, side)
        stride = max(1, 2 * (side // 6) if bins == 3 else side // bins)
        windows.append((side - stride * (bins - 1), stride))
    return windows


class PyramidPooling(nn.Module):
    """Average pools to 1, 2, 3 and 6 bins, each upsampled back and summed with the input."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        total = x
        for (kh, sh), (kw, sw) in zip(pool_windows(height), pool_windows(width), strict=True):
            pooled = F.avg_pool2d(x, (kh, kw), (sh, sw))
            total = total + resize(pooled, (height, width))
        return total


class MatrixPyramidPooling(PyramidPooling):
    """The same windows and the same upsampling as matrix products, right at every size.

    Average pools need their windows when a graph is written. Along one side of n pixels, pooling
    to b bins is a b x n matrix R and upsampling an n x b matrix U, and both can be computed from
    n when the graph runs.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2], x.shape[3]
        total = x + x.mean((2, 3), keepdim=True)
        for bins in POOL_BINS[1:]:
            pool_h, up_h = _matrices(height, bins)
            pool_w, up_w = _matrices(width, bins)
            pooled = pool_h @ (x @ pool_w.T)
            total = total + up_h @ (pooled @ up_w.T)
        return total


def _matrices(side: int, bins: int) -> tuple[Tensor, Tensor]:
    """R, bins x side, and U, side x bins; see `pool_windows` for the rule of the windows."""
    used = torch.sym_min(bins, side)  # type: ignore[no-untyped-call]
    even = 2 * (side // 6) if bins == 3 else side // bins
    stride = torch.sym_max(1, even)  # type: ignore[no-untyped-call]
    kernel = side - stride * (used - 1)
    x = torch.arange(side, dtype=torch.float32)[None, :]
    i = torch.arange(bins, dtype=torch.float32)[:, None]
    inside = (x >= i * stride) & (x < i * stride + kernel)
    pool = inside.to(torch.float32) / kernel
    up = F.relu(1 - (x * (used - 1) / (side - 1) - i).abs())
    return pool, up.T
