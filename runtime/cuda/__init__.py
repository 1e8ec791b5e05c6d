"""The little of CUDA that serving a model takes, over cuda-python, PyCUDA or host memory.

`open_cuda` finds the adapter; `base.Cuda` is what each of them gives. Nothing of CUDA is imported
before it is called.
"""

from importlib import import_module
from importlib.util import find_spec

from icnet_deploy.errors import InputError, MissingPackage, UnavailableError, pip_install
from icnet_deploy.runtime.cuda.base import Cuda

__all__ = ["ADAPTERS", "open_cuda"]

ADAPTERS = {"cuda-python": ("cuda.core", "cuda_python"), "pycuda": ("pycuda", "py_cuda")}
"""Adapter -> (the package that it drives, its module here), the preferred one first."""


def open_cuda(adapter: str = "auto") -> Cuda:
    """Opens the first GPU's primary context, which other libraries of this process share.

    Args:
        adapter: `cuda-python`, `pycuda`, or `auto`: the first of them that is installed.

    Raises:
        InputError: no adapter has that name.
        MissingPackage: its package, or for `auto` every one, is not installed.
        DeviceError: there is no driver or no GPU.
        UnavailableError: the package is broken.
    """
    if adapter != "auto" and adapter not in ADAPTERS:
        raise InputError(f"unknown CUDA adapter {adapter!r}; known: auto, {', '.join(ADAPTERS)}")
    wanted = ADAPTERS if adapter == "auto" else (adapter,)
    name = next((name for name in wanted if installed(ADAPTERS[name][0])), None)
    if name is None:
        package = ADAPTERS[next(iter(wanted))][0]
        raise MissingPackage(
            package, extra="tensorrt", purpose="a TensorRT engine or an image on the GPU"
        )
    package, module = ADAPTERS[name]
    try:
        opened: Cuda = import_module(f"icnet_deploy.runtime.cuda.{module}").open_device()
    except ImportError as error:
        raise UnavailableError(
            f"{name} is installed but {package!r} does not import ({error}): "
            f"{pip_install('tensorrt', '--force-reinstall')}"
        ) from error
    return opened


def installed(package: str) -> bool:
    """Whether a package can be found; it is not imported."""
    try:
        return find_spec(package) is not None
    except ImportError:  # the parent is missing, or an import hook forbids it
        return False
