"""The network as it is deployed: uint8 image in, logits or label map out."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.labels import IGNORE
from icnet_deploy.networks.base import SegmentationNetwork
from icnet_deploy.networks.preprocessing import Preprocessing

NO_CLASS = float(IGNORE)
"""What a label map holds where logits are not finite: a label that every reader refuses."""

LARGEST_SUM = 3e38
"""Beyond it float32 ends, at 3.4e38."""


Size = tuple[int, int]

_LARGE = (4097, 8193)
"""Here one number alone gives a grid; at small sizes several may."""


class Deployed(nn.Module):
    """Preprocessing, network and head in one module, whose graph is the artefact.

    Args:
        network: in eval mode; it is copied, not changed.
        preprocessing: what the network's input expects. Where the network says which convolutions
            read the image, scales and the order of the channels are folded into them, which is
            exact: a resize works on each channel alone, and zero padding stays zero. Where it does
            not, both are operators, as subtracting the mean is; `fold_input` takes them out of the
            graph where only convolutions read the image.
        head: `logits` or `labels`.
        free_size: write the network so that it is right at every size.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        preprocessing: Preprocessing,
        head: str,
        free_size: bool = False,
    ) -> None:
        super().__init__()
        chosen = network.for_free_size() if free_size else network
        self.network = copy.deepcopy(chosen).eval()
        self.head = head
        mean, scale = (
            torch.tensor(v).view(1, 3, 1, 1) for v in (preprocessing.mean, preprocessing.scale)
        )
        reverse = preprocessing.channels == "bgr"
        readers = self.network.image_convolutions()
        for convolution in readers:
            weight = convolution.weight.data * scale
            convolution.weight.data = weight.flip(1) if reverse else weight
        self.mean = nn.Buffer(mean.flip(1) if reverse else mean)
        unfolded = not readers and preprocessing.scale != (1, 1, 1)
        self.scale = nn.Buffer(scale.flip(1) if reverse else scale) if unfolded else None
        self.order = nn.Buffer(torch.tensor([2, 1, 0])) if reverse and not readers else None
        self._told = bool(readers)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 N x H x W x 3, RGB, to float N x C x h x w or uint8 N x H x W.

        The first operator is the cast to float, and the last two are casts to float and to uint8:
        TensorRT takes uint8 nowhere else.

        An image with a logit that is infinite or not a number gets the label 255 everywhere.
        """
        x = image.to(torch.float32).permute(0, 3, 1, 2)
        if not self._told:  # its `view`s may want the strides that an image has there
            x = x.contiguous()
        x = x - self.mean
        if self.scale is not None:
            x = x * self.scale
        if self.order is not None:
            x = x.index_select(1, self.order)
        logits: Tensor = self.network(x)
        if self.head == "logits":
            return logits
        labels = labels_of(logits)
        if self.network.upsampling != "none":
            logits = self.network.upsample(logits, (image.shape[1], image.shape[2]))
        return lowest_argmax(logits, labels).to(torch.uint8)


def labels_of(logits: Tensor) -> Tensor:
    """What each class of an image is called, as float, N x C x 1 x 1: its index, or 255.

    255 for all classes of an image with a logit, of N x C x h x w, that is not finite. So the check
    costs one pass over the small logits and nothing at the size of the label map. It is a sum,
    which carries NaN and infinity along in every runtime, where a maximum may drop them.
    """
    index = torch.arange(logits.shape[1], dtype=torch.float32).view(1, -1, 1, 1)
    total = logits.sum((1, 2, 3), keepdim=True).abs()
    return torch.where(total < LARGEST_SUM, index, NO_CLASS)


def lowest_argmax(logits: Tensor, labels: Tensor) -> Tensor:
    """The label of the lowest class of the largest logit, float N x H x W, of N x C x H x W.

    `labels` ascend along axis 1, as `labels_of` gives them; a pixel without a largest logit gets
    255. It says what ArgMax says, in operators that fuse: TensorRT runs ArgMax as a slow TopK.
    """
    best = logits.amax(dim=1, keepdim=True)
    return torch.where(logits == best, labels, NO_CLASS).amin(dim=1)


def stride_of(network: SegmentationNetwork, sizes: Sequence[Size]) -> int | None:
    """The s with which a network's logits are ceil(H / s) x ceil(W / s) at all these sizes.

    It is run without numbers; what it says of itself is held against that.

    Args:
        network: it is copied, not changed.
        sizes: (height, width) in pixels.

    Returns:
        None if there is no such whole number, as of a network with a pool that rounds up: 1024
        pixels may be 65 times 16 there, 1025 are, too.

    Raises:
        InputError: it fails at one of the sizes.
        CheckFailed: it says a stride, or that each logit is a pixel, and its logits are elsewhere.
    """
    grid = _grids(network)
    stride = 1 if network.upsampling == "none" else network.stride
    if stride is not None:
        for size in sizes:
            _require_grid(network, size, grid(size), stride)
        return stride
    multiple = network.side_multiple
    height, width = (-(-side // multiple) * multiple for side in _LARGE)
    seen = {size: found for size in (*sizes, (height, width)) if (found := grid(size)) != _UNKNOWN}
    largest = max(seen)
    stride = round((largest[0] - 1) / max(1, seen[largest][0] - 1))
    even = all(found == _cells(size, stride) for size, found in seen.items())
    return stride if even else None


_UNKNOWN = (0, 0)


def _cells(size: Size, stride: int) -> Size:
    return -(-size[0] // stride), -(-size[1] // stride)


def _grids(network: SegmentationNetwork) -> Callable[[Size], Size]:
    """What gives the height and width of a network's logits for an image's."""
    twin = copy.deepcopy(network).eval()
    bare = copy.deepcopy(twin).to("meta")

    def grid(size: Size) -> Size:
        with torch.no_grad():
            try:
                logits = bare(torch.empty(1, 3, *size, device="meta"))
            except Exception:  # a tensor that it makes itself has numbers
                if size[0] * size[1] > _MOST_PIXELS:
                    return _UNKNOWN
                logits = _run(twin, size)
        return int(logits.shape[2]), int(logits.shape[3])

    return grid


_MOST_PIXELS = 1 << 22
"""Of an image that a network is run on with numbers, only to see what becomes of its size."""


def _run(network: SegmentationNetwork, size: Size) -> Tensor:
    try:
        logits: Tensor = network(torch.zeros(1, 3, *size))
    except Exception as error:
        raise InputError(
            f"the network does not take an image of {size[0]}x{size[1]}: {error}; it declares "
            f"sides of {network.min_side} or more that are multiples of {network.side_multiple}: "
            "correct its min_side or side_multiple (--side-multiple)"
        ) from error
    return logits


def _require_grid(network: SegmentationNetwork, size: Size, found: Size, stride: int) -> None:
    wanted = _cells(size, stride)
    if found == wanted:
        return
    said = f"its stride is {stride} pixels"
    advice = "correct its stride"
    if network.upsampling == "none":
        said = "each of its logits is a pixel (upsampling 'none')"
        advice = "correct its upsampling: half-pixel or aligned-corners"
    actual = {round(side / each) for side, each in zip(size, found, strict=True) if each}
    like = f", as with a stride of {actual.pop()}" if len(actual) == 1 else ""
    raise CheckFailed(
        f"the network declares that {said}, so an image of {size[0]}x{size[1]} has logits of "
        f"{wanted[0]}x{wanted[1]}; they are {found[0]}x{found[1]}{like}: {advice}"
    )
