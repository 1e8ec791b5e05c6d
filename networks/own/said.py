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
            f"--upsampling {said} was said, but {name} upsamples its logits by {found}: its last "
            f"resize has align_corners={aligned}; leave --upsampling out, or say {found}"
        )
    if behaviour.is_whole:
        if said not in (None, "none"):
            raise InputError(
                f"--upsampling {said} was said, but the logits of {name} have the image's size: "
                "nothing is left to be upsampled; leave --upsampling out, or say none"
            )
        rule = "none"
    elif said == "none":
        raise InputError(
            f"--upsampling none was said, but {_sizes_of(behaviour, name)}, not the image's size: "
            "leave --upsampling out, or say half-pixel or aligned-corners, as it was trained"
        )
    else:
        rule = said or found or _ASSUMED
    if request.stride is not None and request.stride != behaviour.stride:
        true = f"stride {behaviour.stride}" if behaviour.stride else "no one stride"
        raise InputError(
            f"--stride {request.stride} was said, but {_sizes_of(behaviour, name)}: {true}; leave "
            "--stride out"
        )
    placed = behaviour.stride is not None or said is not None or found is not None
    if not placed and not behaviour.is_near_a_grid:
        raise InputError(
            f"no stride places the logits of {name}: {_sizes_of(behaviour, name)}; pad its "
            "convolutions, let it upsample its logits to the image's size, or say by which "
            "--upsampling they become pixels"
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
        raise InputError(f"--threshold is about a plain module of one channel; {name} is none")
    pairs = {
        "--upsampling": (request.upsampling, network.upsampling),
        "--stride": (request.stride, network.stride),
        "--side-multiple": (request.side_multiple, network.side_multiple),
    }
    for option, (said, declared) in pairs.items():
        if said is not None and said != declared:
            raise InputError(f"{option} {said} was said, but {name} says of itself {declared}")
    if network.stride not in (None, behaviour.stride):
        raise CheckFailed(
            f"{name} says of itself that its stride is {network.stride}, but "
            f"{_sizes_of(behaviour, name)}"
        )
    if network.num_classes != behaviour.channels:
        raise CheckFailed(
            f"{name} says of itself that it has {network.num_classes} classes, but its logits have "
            f"{behaviour.channels} channels"
        )


def in_words(
    network: SegmentationNetwork, request: NetworkRequest, behaviour: Behaviour
) -> list[str]:
    """What an artefact will say of the network, and where each of it comes from, line by line."""
    stride = "no one number" if network.stride is None else str(network.stride)
    size = behaviour.only_size
    sides = (
        f"{size[0]}x{size[1]} alone"
        if size
        else f"multiples of {network.side_multiple}, from {network.min_side} pixels on"
    )
    lines = [
        f"upsampling: {_rule_in_words(network, request, behaviour)}",
        f"stride: {stride} ({'found' if request.stride is None else 'said, and found'})",
        f"sides: {sides} ({'found' if request.side_multiple is None else 'said, and tried'})",
    ]
    if (kind := behaviour.squashed) is not None:
        lines.append(
            f"its answer is the {kind} of its logits: the label map is the same, how sure a pixel "
            "is cannot be said"
        )
    threshold = getattr(network, "threshold", None)
    if threshold is not None:
        lines.append(f"threshold: {threshold:g} ({'said' if request.threshold else 'assumed'})")
    return lines


def _rule_in_words(
    network: SegmentationNetwork, request: NetworkRequest, behaviour: Behaviour
) -> str:
    rule = network.upsampling
    if behaviour.left_out is not None:
        sizes = ", ".join(f"{run.size[0]}x{run.size[1]}" for run in behaviour.runs)
        return (
            f"{rule} (found: its last resize is taken off, and the answer is the same at {sizes})"
        )
    if request.upsampling is not None:
        return f"{rule} (said)"
    if behaviour.is_whole:
        return f"{rule} (found: its logits have the image's size)"
    if not hasattr(network, "module"):
        return f"{rule} (the network says it)"
    others = behaviour.rules == {"aligned-corners"}
    hint = "; its own resizes align corners: say --upsampling aligned-corners if this one does, too"
    return (
        f"{rule} (assumed, PyTorch's default: the network does not say it{hint if others else ''})"
    )


def _sizes_of(behaviour: Behaviour, name: str) -> str:
    if behaviour.stride is None:
        run = behaviour.runs[0]
        size, grid = run.size, run.grid
    else:
        size = behaviour.only_size or _SHOWN
        grid = (-(-size[0] // behaviour.stride), -(-size[1] // behaviour.stride))
    return f"the logits of {name} for {size[0]}x{size[1]} pixels are {grid[0]}x{grid[1]}"
