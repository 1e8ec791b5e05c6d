"""From `PACKAGE.MODULE:FACTORY` to a PyTorch module."""

import functools
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from torch import nn

from icnet_deploy.errors import InputError

_EXPECTED = "expected PACKAGE.MODULE:FACTORY, e.g. networks:unet"


def build_module(factory: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Imports a module, looks a name up in it and calls that.

    The current folder is searched before all others, as by `python -m`. A name may have dots. It
    may also stand for a network that is there already.

    Args:
        factory: `PACKAGE.MODULE:FACTORY`.
        arguments: its keyword arguments.

    Returns:
        What it gave, in the state that it gave it in.

    Raises:
        InputError: there is no such module or name, its import fails, it cannot be called, refuses
            the arguments, fails, or gives something that is no network.
    """
    module, colon, name = factory.partition(":")
    is_file = module.endswith(".py") or "/" in module
    if not colon or not name or is_file or not _is_dotted(module):
        raise InputError(f"--network {factory} names no factory: {_EXPECTED}{_hint(factory)}")
    target = functools.reduce(
        lambda holder, part: _attribute(holder, part, factory), name.split("."), _import(module)
    )
    if isinstance(target, nn.Module) and not arguments:
        return target
    if isinstance(target, nn.Module):
        raise InputError(
            f"--network {factory} is a network already, which takes no arguments: leave out "
            "--network-args, or name a function that builds it"
        )
    if not callable(target):
        raise InputError(
            f"--network {factory} is a value of {type(target).__name__}, expected a function or "
            "class that gives the network"
        )
    return _called(target, arguments, factory)


def _is_dotted(module: str) -> bool:
    return all(part.isidentifier() for part in module.split("."))


def _hint(factory: str) -> str:
    """What is meant where the path of a file was given."""
    path = factory.partition(":")[0]
    if not path.endswith(".py"):
        return ""
    return f"; the file {path} is named {path.removesuffix('.py').strip('./').replace('/', '.')}"


def _import(module: str) -> Any:
    folder = os.getcwd()
    if folder not in sys.path:  # a console script has its own folder there, not the user's
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise InputError(
                f"there is no module {error.name!r}: {folder} was searched for it, and what "
                "Python has installed; run the command in the folder that holds it, or install it"
            ) from error
        raise _failed(f"the import of {module}", error) from error
    except (Exception, SystemExit) as error:
        raise _failed(f"the import of {module}", error) from error


def _attribute(holder: Any, name: str, factory: str) -> Any:
    try:
        return getattr(holder, name)
    except AttributeError as error:
        whose = getattr(holder, "__name__", type(holder).__name__)
        names = [n for n, value in vars(holder).items() if callable(value) and n[0] != "_"]
        known = f"; it has {', '.join(sorted(names)[:8])}" if names else ""
        raise InputError(f"--network {factory}: {whose} has no {name!r}{known}") from error


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
                f"{signature}: name them with --network-args"
            ) from error
    try:
        value = target(**arguments)
    except (Exception, SystemExit) as error:
        raise _failed(f"{factory} with {dict(arguments)}", error) from error
    if not isinstance(value, nn.Module):
        raise InputError(
            f"{factory} gave a value of {type(value).__name__}, expected a torch.nn.Module: name a "
            "function or class that gives the network itself"
        )
    return value


def _failed(what: str, error: BaseException) -> InputError:
    """What went wrong in the user's own code, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "importlib" not in f.filename and f.filename != __file__]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return InputError(f"{what} failed with {type(error).__name__}: {error}{where}; mend it there")
