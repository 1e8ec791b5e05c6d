"""A stand-in for `tensorrt`, generated from the recorded surface of a release.

    from fake_tensorrt import make_fake

    trt = make_fake("10.16")                      # or "11.4"
    monkeypatch.setitem(sys.modules, "tensorrt", trt)

The module has exactly the release's names, classes, methods, properties and enum integers; a
method binds its arguments as the recorded signatures say (TypeError otherwise), an unknown
attribute is an AttributeError, and a method whose work is not modelled raises NotImplementedError.
Failures are values (None, False, -1) with a line to the logger, as in the real one.

A plan carries the ONNX file that it was built from, and an execution context computes it with
ONNX Runtime on host memory: a tensor address is that of memory of this process.
"""

from fake_tensorrt.generate import make_fake
from fake_tensorrt.machine import Fault, Machine
from fake_tensorrt.surface import RELEASES, load_surface

__all__ = ["RELEASES", "Fault", "Machine", "load_surface", "make_fake"]
