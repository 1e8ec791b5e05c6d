"""What is said of a network, held against what it does; and both in words."""

from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.networks.base import SegmentationNetwork
from icnet_deploy.networks.own.probe import Behaviour
from icnet_deploy.networks.own.request import NetworkRequest

_SHOWN = (512, 1024)
"""(height, width) that a message speaks of, where the network takes any."""

_ASSUMED = "half-pixel"
"""PyTorch's own default: `interpolate(mode="bilinear")` without another word."""


def hold_said(request: NetworkRequest, behaviour: Behaviour, name: str) -> str:
    """The rule of the last upsampling.

    Raises:
        InputError: what was said of the rule, or of the stride, is not what the network does; or
            nothing places its logits.
    """
    said, found = request.upsampling, behaviour.upsampling
    if said is not None and found not in (None, said):
        aligned = found == "aligned-corners"
        raise InputError(
            f"the upsampling {said} was given, but {name} upsamples its logits by {found}: its "
            f"last resize has align_corners={aligned}; leave it out, or give {found}"
        )
    if behaviour.is_whole:
        if said not in (None, "none"):
            raise InputError(
                f"the upsampling {said} was given, but the logits of {name} have the image's size "
                "already; leave it out, or give none"
            )
        rule = "none"
    elif said == "none":
        raise InputError(
            f"the upsampling none was given, but {_sizes_of(behaviour, name)}, not the image's "
            "size: leave it out, or give half-pixel or aligned-corners, as the network was trained"
        )
    else:
        rule = said or found or _ASSUMED
    if request.stride is not None and request.stride != behaviour.stride:
        true = f"a stride of {behaviour.stride}" if behaviour.stride else "no single stride"
        raise InputError(
            f"the stride {request.stride} was given, but {_sizes_of(behaviour, name)}: {true}; "
            "leave it out"
        )
    placed = behaviour.stride is not None or said is not None or found is not None
    if not placed and not behaviour.is_near_a_grid:
        raise InputError(
            f"the logits of {name} match no stride: {_sizes_of(behaviour, name)}; pad its "
            "convolutions, let it upsample its logits to the image's size, or give the upsampling "
            "that makes pixels of them"
        )
    return rule


def hold_declared(
    network: SegmentationNetwork, request: NetworkRequest, behaviour: Behaviour, name: str
) -> None:
    """Holds what was said against what a network of this kit's own kind says of itself.

    Raises:
        InputError: they differ; or a threshold was said, which it has none of.
        CheckFailed: it says of itself what it does not do.
    """
    if request.threshold is not None:
        raise InputError(
            f"a threshold is for a plain module with one channel of logits, not for {name}: leave "
            "it out"
        )
    pairs = {
        "upsampling": (request.upsampling, network.upsampling),
        "stride": (request.stride, network.stride),
        "side multiple": (request.side_multiple, network.side_multiple),
    }
    for what, (said, declared) in pairs.items():
        if said is not None and said != declared:
            raise InputError(
                f"the {what} {said} was given, but {name} declares {declared}: leave it out"
            )
    if network.stride not in (None, behaviour.stride):
        raise CheckFailed(
            f"{name} declares the stride {network.stride}, but {_sizes_of(behaviour, name)}: "
            "correct its stride"
        )
    if network.num_classes != behaviour.channels:
        raise CheckFailed(
            f"{name} declares {network.num_classes} classes, but its logits have "
            f"{behaviour.channels} channels: correct its num_classes"
        )


def in_words(
    network: SegmentationNetwork, request: NetworkRequest, behaviour: Behaviour
) -> list[str]:
    """What an artefact will say of the network, and where each of it comes from, line by line."""
    stride = "not a single number" if network.stride is None else str(network.stride)
    size = behaviour.only_size
    sides = (
        f"only {size[0]}x{size[1]}"
        if size
        else f"multiples of {network.side_multiple}, from {network.min_side} pixels on"
    )
    lines = [
        f"upsampling: {_rule_in_words(network, request, behaviour)}",
        f"stride: {stride} ({'found' if request.stride is None else 'given, and confirmed'})",
        f"sides: {sides} ({'found' if request.side_multiple is None else 'given, and tried'})",
    ]
    if (kind := behaviour.squashed) is not None:
        lines.append(
            f"it gives the {kind} of its logits: the label map is the same, but the confidences of "
            "pixels are not known"
        )
    threshold = getattr(network, "threshold", None)
    if threshold is not None:
        lines.append(f"threshold: {threshold:g} ({'given' if request.threshold else 'assumed'})")
    return lines


def _rule_in_words(
    network: SegmentationNetwork, request: NetworkRequest, behaviour: Behaviour
) -> str:
    rule = network.upsampling
    if behaviour.left_out is not None:
        sizes = ", ".join(f"{run.size[0]}x{run.size[1]}" for run in behaviour.runs)
        return f"{rule} (found: without its last resize, the answer is the same at {sizes})"
    if request.upsampling is not None:
        return f"{rule} (given)"
    if behaviour.is_whole:
        return f"{rule} (found: its logits have the image's size)"
    if not hasattr(network, "module"):
        return f"{rule} (declared by the network)"
    others = behaviour.rules == {"aligned-corners"}
    hint = "; its own resizes align corners: if this one does also, give aligned-corners"
    return f"{rule} (assumed: PyTorch's default{hint if others else ''})"


def _sizes_of(behaviour: Behaviour, name: str) -> str:
    if behaviour.stride is None:
        run = behaviour.runs[0]
        size, grid = run.size, run.grid
    else:
        size = behaviour.only_size or _SHOWN
        grid = (-(-size[0] // behaviour.stride), -(-size[1] // behaviour.stride))
    return f"the logits of {name} for {size[0]}x{size[1]} pixels are {grid[0]}x{grid[1]}"
