"""From `PACKAGE.MODULE:FACTORY` to a PyTorch module."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from icnet_deploy.command import error_words, import_named
from icnet_deploy.errors import InputError


def build_module(factory: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Imports a module, looks a name up in it and calls that.

    What is named may also be a network that is there already.

    Args:
        factory: `PACKAGE.MODULE:FACTORY`.
        arguments: its keyword arguments.

    Returns:
        What it gave, in the state that it gave it in.

    Raises:
        InputError: as `import_named`; or what is named refuses the arguments, fails, or gives
            something that is no network.
    """
    target = import_named(factory, "--network")
    if isinstance(target, nn.Module) and not arguments:
        return target
    if isinstance(target, nn.Module):
        raise InputError(
            f"--network {factory} is a network, not a function that builds one, so it takes no "
            "arguments: leave --network-args out, or name the function"
        )
    return _called(target, arguments, factory)


def _called(target: Any, arguments: Mapping[str, Any], factory: str) -> nn.Module:
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # what is compiled does not say
        signature = None
    if signature is not None:
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise InputError(
                f"{factory} does not take the arguments {dict(arguments)}: {error}; it takes "
                f"{signature}: give them with --network-args"
            ) from error
    try:
        value = target(**arguments)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{factory} with {dict(arguments)} failed with {error_words(error)}: correct it there"
        ) from error
    if not isinstance(value, nn.Module):
        raise InputError(
            f"{factory} returned a value of {type(value).__name__}, expected a torch.nn.Module: "
            "name a function or class that returns the network"
        )
    return value
