"""What is said of a network of one's own, on the command line or in Python. Needs no torch."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icnet_deploy.command import count, number_type
from icnet_deploy.documents import PROBABILITY, parse
from icnet_deploy.errors import InputError
from icnet_deploy.labels import LabelSet, load_label_set
from icnet_deploy.metadata import UPSAMPLINGS


@dataclass(frozen=True)
class NetworkRequest:
    """A network of one's own, as it is asked for. What is None is found out, or left to others.

    Attributes:
        factory: `PACKAGE.MODULE:FACTORY`, what is called to get the module.
        arguments: its keyword arguments.
        weights: a `.safetensors` or `.pth` file; None: as the factory made them.
        label_set: its classes.
        preprocessing: what its input expects: a name, the path of a JSON file, or `to_dict`'s form.
        upsampling: of `UPSAMPLINGS`; None: found by running it.
        threshold: of one channel of logits, the probability from which on a pixel is of the second
            class; None: 0.5.
        stride: pixels from logit to logit; None: found.
        side_multiple: what both sides must be multiples of; None: found.
    """

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    label_set: LabelSet | None = None
    preprocessing: str | Mapping[str, Any] | None = None
    upsampling: str | None = None
    threshold: float | None = None
    stride: int | None = None
    side_multiple: int | None = None


def add_network_options(parser: argparse._ActionsContainer) -> None:
    """Adds what names a network of one's own, but for `--weights` and `--label-set`.

    Args:
        parser: of the command, or a group of its options.
    """
    parser.add_argument(
        "--network",
        metavar="PACKAGE.MODULE:FACTORY",
        help="the function that returns your PyTorch network; the current folder is searched for "
        "the module",
    )
    parser.add_argument(
        "--network-args", metavar="JSON", help="FACTORY's keyword arguments, a JSON object"
    )
    parser.add_argument(
        "--preprocessing",
        metavar="NAME|FILE.json",
        help="what the network's input expects: imagenet, caffe, unit (0..1), symmetric (-1..1), "
        "or a file",
    )
    parser.add_argument(
        "--upsampling",
        choices=UPSAMPLINGS,
        help="how logits become pixels (default: found by running the network)",
    )
    parser.add_argument(
        "--threshold",
        type=number_type(PROBABILITY),
        metavar="P",
        help="for a network with one channel of logits: a pixel of at least this probability gets "
        "the second class (default: 0.5)",
    )
    parser.add_argument(
        "--stride", type=count, metavar="N", help="pixels from logit to logit (default: found)"
    )
    parser.add_argument(
        "--side-multiple",
        type=count,
        metavar="N",
        help="the number that both sides of an image must be multiples of (default: found)",
    )


def network_request(arguments: argparse.Namespace) -> NetworkRequest | None:
    """What was asked for with `add_network_options`, `--weights` and `--label-set`; None: nothing.

    Raises:
        InputError: an option of it stands without `--network`, or a value cannot be read.
    """
    names = ("network_args", "preprocessing", "upsampling", "threshold", "stride", "side_multiple")
    if arguments.network is None:
        given = [name for name in names if getattr(arguments, name) is not None]
        if given:
            option = given[0].replace("_", "-")
            raise InputError(
                f"--{option} needs --network PACKAGE.MODULE:FACTORY also: give it, or leave "
                f"--{option} out"
            )
        return None
    try:
        value = parse(arguments.network_args or "{}")
        if not isinstance(value, dict):
            raise ValueError(f"it holds {value!r}")
    except ValueError as error:
        raise InputError(
            f"--network-args {arguments.network_args} is not a JSON object: {error}; expected e.g. "
            "'{\"num_classes\": 19}'"
        ) from error
    label_set = getattr(arguments, "label_set", None)
    return NetworkRequest(
        arguments.network,
        value,
        arguments.weights,
        None if label_set is None else load_label_set(label_set),
        arguments.preprocessing,
        arguments.upsampling,
        arguments.threshold,
        arguments.stride,
        arguments.side_multiple,
    )
