"""`icnet evaluate --diagnose`: its checks, and the files that it writes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from icnet_deploy.data.options import open_data
from icnet_deploy.errors import InputError, require
from icnet_deploy.evaluation.diagnose.diagnosis import IMAGES, diagnose
from icnet_deploy.evaluation.diagnose.report import Diagnosed, diagnosis_page, diagnosis_text
from icnet_deploy.evaluation.float_network import NEEDS, PytorchNetwork
from icnet_deploy.evaluation.model import kind_of_model, require_pytorch
from icnet_deploy.evaluation.reference import read_checkpoint
from icnet_deploy.files import write_json, write_text

if TYPE_CHECKING:
    from icnet_deploy.networks.checkpoint import Checkpoint


def diagnosed(arguments: argparse.Namespace) -> int:
    """Runs `icnet evaluate --diagnose`.

    Args:
        arguments: of `icnet evaluate`, checked.

    Returns:
        0: nothing that was tried scores clearly better; 1: something does.

    Raises:
        InputError: the model is no float network; or as `open_data` and `diagnose`.
    """
    limit = arguments.limit or IMAGES
    dataset = open_data(argparse.Namespace(**{**vars(arguments), "limit": limit}))
    checkpoint, own = _opened(arguments)
    PytorchNetwork(checkpoint).require_size(arguments.size)
    found = diagnose(checkpoint, dataset, arguments.size)
    result = Diagnosed(found, checkpoint, dataset, arguments.size, own)
    if arguments.json:
        write_json(arguments.json, result.to_dict())
    if arguments.report:
        write_text(arguments.report, diagnosis_page(result))
    print(diagnosis_text(result))  # last: its reader may close the pipe
    return 1 if found.found else 0


def refuse_beside(arguments: argparse.Namespace) -> None:
    """Finds out before the long work what does not go with `--diagnose` (InputError)."""
    for name in ("against", "plot", "save_predictions", "images"):
        given = getattr(arguments, name, None)
        if given is not None:
            option = f"--{name.replace('_', '-')} {given}"
            why = "it needs labels" if name == "images" else "it compares one network with itself"
            raise InputError(f"{option} does not go with --diagnose, as {why}: leave it out")
    require_pytorch(arguments.runtime, arguments.device)


def _opened(arguments: argparse.Namespace) -> tuple[Checkpoint, bool]:
    """The float network, and whether it is one of one's own."""
    from icnet_deploy.networks.own.request import network_request

    request = network_request(arguments)
    if request is not None:
        require(*NEEDS)
        from icnet_deploy.networks.own.opened import open_network

        return open_network(request, arguments.size), True
    path = arguments.model
    if kind_of_model(path) != "checkpoint":
        raise InputError(
            f"--diagnose cannot change the preprocessing of {path}: give a network in PyTorch "
            "(--network PACKAGE.MODULE:FACTORY) or a checkpoint (.safetensors)"
        )
    return read_checkpoint(path), False
