"""What a network says of itself, so that whoever trains, exports, measures or prunes one asks it.

A network of one's own is a subclass with `heads`, and `register(name, cls)` makes it known by a
name; `tests/contracts/network_contract.py` holds it to what it says.
"""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from icnet_deploy.documents import as_read
from icnet_deploy.networks.backbone import BackbonePart
from icnet_deploy.networks.blocks import block_of, block_patterns
from icnet_deploy.networks.layers import resize
from icnet_deploy.precisions import PRECISIONS

_USUAL_LARGEST = 32.0
"""The size of a logit up to which the tie margins of the precisions are stated."""


class SegmentationNetwork(nn.Module):
    """A network from an image to logits.

    Of the constructor's arguments each is kept as an attribute of its name, a JSON value. Three
    have a meaning of their own:
    - `num_classes`, which every network takes;
    - `guidance`, true or false, where there are heads that only training needs: whether to build
      them;
    - `channels`, where a network can be pruned: layer -> channels of its output, for the layers
      that have others than a network of the same arguments without it.

    Attributes:
        num_classes: how many classes it tells apart.
        architecture: the name that it is registered under.
        upsampling: how its logits become pixels: bilinearly at aligned corners or at half-pixel
            centres, or not at all, where they have the image's size.
        min_side: the shortest side of an image, in pixels, that it takes.
        side_multiple: both sides of an image must be multiples of it, in pixels; 1: any will do.
    """

    architecture: ClassVar[str] = ""
    upsampling: str = "aligned-corners"
    min_side: int = 64
    side_multiple: int = 1

    num_classes: int

    def heads(self, image: Tensor) -> list[Tensor]:
        """Logits of every head that was built; the first is the one that is deployed.

        The others, where there are any, guide the training of coarser stages, finer ones first.

        Args:
            image: float, N x 3 x H x W, as the checkpoint's preprocessing leaves it; sides of
                `min_side` or more.

        Returns:
            Float, N x C x h x w each.
        """
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the head that is deployed; see `heads`."""
        return self.heads(image)[0]

    @property
    def stride(self) -> int | None:
        """How many pixels of the image lie from logit to logit, on both axes.

        The logits of every image are ceil(H / stride) x ceil(W / stride); None where no one number
        says that.
        """
        return None

    def description(self, guidance: bool | None = None) -> dict[str, Any]:
        """What `build_network` makes the same network of, but for the weights: JSON values.

        Args:
            guidance: whether to build the heads that only training needs; None: as they are here.
        """
        arguments = {name: getattr(self, name) for name in signature(type(self)).parameters}
        if guidance is not None and "guidance" in arguments:
            arguments["guidance"] = guidance
        value: dict[str, Any] = as_read({"architecture": self.architecture, **arguments})
        return value

    def upsample(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits, float N x C x h x w, at a size of (height, width) pixels, by its own rule."""
        return resize(logits, size, self.upsampling)

    def image_convolutions(self) -> list[nn.Conv2d]:
        """The convolutions that read the image, where nothing else does but a linear resize.

        An export folds the input's scale and the order of its channels into their weights. Where
        there are none, both stay in the graph.
        """
        return []

    def backbone(self) -> Sequence[BackbonePart]:
        """What image classifiers' checkpoints may initialise, from the image on.

        None where no file of others is known to hold such a backbone.
        """
        return ()

    def for_free_size(self) -> Self:
        """A network of the same weights whose graph, traced at one size, is right at every other.

        This one stays as it is; it may be the answer itself.
        """
        return self

    def blocks(self) -> dict[str, list[str]]:
        """The parts that tables speak of: name -> its modules, of those directly below this one.

        Every convolution is in one of them.
        """
        patterns = block_patterns(self.description())
        blocks: dict[str, list[str]] = {}
        for name, child in self.named_children():
            if any(isinstance(module, nn.Conv2d) for module in child.modules()):
                blocks.setdefault(block_of(name, patterns), []).append(name)
        return blocks

    def layer_of(self, kernel: str) -> str:
        """What `channels` and tables call the layer of a kernel, e.g. `conv1.weight`."""
        return kernel.removesuffix(".weight")

    def tie_margins(self, largest: float) -> Mapping[int, float]:
        """Where two logits are nearly tied, by the bits of the arithmetic that gave them.

        What an arithmetic does to a logit grows with the logits: a sum in another order, float16's
        mantissa and an 8-bit grid are all relative to the largest. The margins of `precisions` are
        those of logits of up to 32 in size.

        Args:
            largest: the largest size of a logit that the float32 reference gave.

        Returns:
            Bits -> how far the best logit may be above the second best for a tie.
        """
        factor = largest / _USUAL_LARGEST
        return {row.bits: row.tie_margin * factor for row in PRECISIONS.values()}
