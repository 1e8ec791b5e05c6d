"""A stand-in for PyCUDA on the fake driver: names and arguments that PyCUDA 2026.1 has, no more.

From its documentation and `src/wrapper/wrap_cudadrv.cpp`. PyCUDA comes as source that wants the
CUDA toolkit, so a test cannot count on it; where it is installed, driven.py takes the real one.
"""

import ctypes
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np


class Error(Exception):
    """`pycuda.driver.Error`."""


class MemoryError(Error):  # noqa: A001 - PyCUDA's name
    """`pycuda.driver.MemoryError`, below Error there, too."""


class LogicError(Error):
    """`pycuda.driver.LogicError`."""


class _Api:
    """Calls the driver; an error code becomes an exception, as PyCUDA's are."""

    def __init__(self, library):
        self.library = ctypes.CDLL(library)

    def __call__(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code:
            raise (MemoryError if code == 2 else LogicError)(f"{name} failed: {code}")

    def new(self, name, *arguments, kind=ctypes.c_uint64):
        """What a call writes to its first argument, a handle or an address."""
        written = kind()
        self(name, ctypes.byref(written), *arguments)
        return written.value

    def pair(self, kind, name, *arguments):
        """What a call writes to its first two arguments."""
        first, second = kind(), kind()
        self(name, ctypes.byref(first), ctypes.byref(second), *arguments)
        return first.value, second.value


def _address(value):
    """Boost.Python takes Python's own integers and allocations, and no NumPy scalar."""
    if type(value) is not int and not isinstance(value, Freed):
        raise TypeError(f"Python argument types did not match C++ signature: {type(value)}")
    return ctypes.c_uint64(int(value))


def _host(array):
    """Where an array of the host lies, and its bytes."""
    view = memoryview(array)
    assert view.contiguous
    return ctypes.c_uint64(np.asarray(array).ctypes.data), ctypes.c_size_t(view.nbytes)


def _handle(stream):
    return ctypes.c_uint64(stream.handle if stream is not None else 0)


class Freed:
    """DeviceAllocation, PagelockedHostAllocation: freed by hand or when dropped."""

    def __init__(self, api, free, value):
        self._api, self._free, self._value = api, free, value

    def __int__(self):
        return self._value

    def free(self):
        if self._value is None:
            raise LogicError("freed twice")
        value, self._value = self._value, None
        self._api(self._free, ctypes.c_uint64(value))

    def __del__(self):
        if self._value is not None:
            self.free()


def _classes(api):
    class Stream:
        def __init__(self, flags=0):
            self.handle = api.new("cuStreamCreate", ctypes.c_uint(flags))

        def synchronize(self):
            api("cuStreamSynchronize", _handle(self))

        def __del__(self):
            api("cuStreamDestroy_v2", _handle(self))

    class Event:
        def __init__(self, flags=0):
            self._handle = ctypes.c_uint64(api.new("cuEventCreate", ctypes.c_uint(flags)))

        def record(self, stream=None):
            api("cuEventRecord", self._handle, _handle(stream))
            return self

        def time_since(self, event):
            handles = (event._handle, self._handle)
            return api.new("cuEventElapsedTime", *handles, kind=ctypes.c_float)

        def __del__(self):
            api("cuEventDestroy_v2", self._handle)

    class Context:
        def __init__(self, handle):
            self._handle = ctypes.c_uint64(handle)

        def push(self):
            api("cuCtxPushCurrent_v2", self._handle)

        @staticmethod
        def pop():
            api("cuCtxPopCurrent_v2", None)

        @staticmethod
        def synchronize():
            api("cuCtxSynchronize")

    class Device:
        def __init__(self, number):
            self._number = number

        def name(self):
            text = ctypes.create_string_buffer(100)
            api("cuDeviceGetName", text, 100, self._number)
            return text.value.decode()

        def compute_capability(self):
            return api.pair(ctypes.c_int, "cuDeviceComputeCapability", 0)

        def retain_primary_context(self):
            return Context(api.new("cuDevicePrimaryCtxRetain", self._number))

    class Function:
        def __init__(self, handle):
            self._handle = ctypes.c_uint64(handle)

        def __call__(self, *args, block, grid=(1, 1), stream=None, shared=0):
            if len(block) != 3 or len(grid) not in (2, 3):
                raise ValueError("block must be a 3-tuple, grid of two or three")
            if not all(isinstance(argument, np.number | Freed) for argument in args):
                raise TypeError("an argument is a NumPy scalar, an allocation or an array")
            kept = [np.array(argument) for argument in args]
            pointers = (ctypes.c_void_p * len(kept))(*(one.ctypes.data for one in kept))
            sides = [*grid, 1][:3] + list(block)
            where = _handle(stream)
            api("cuLaunchKernel", self._handle, *sides, shared, where, pointers, None)

    return Stream, Event, Context, Device, Function


def _functions(api, driver, function):
    def mem_alloc(bytes):  # noqa: A002 - PyCUDA's name
        return Freed(api, "cuMemFree_v2", api.new("cuMemAlloc_v2", ctypes.c_size_t(bytes)))

    def pagelocked_empty(shape, dtype, order="C", mem_flags=0):
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = api.new("cuMemHostAlloc", ctypes.c_size_t(count), ctypes.c_uint(mem_flags))
        base = Freed(api, "cuMemFreeHost", address)
        interface = {"shape": (count,), "typestr": "|u1", "data": (address, False), "version": 3}
        base.__array_interface__ = interface
        array = np.asarray(base)
        assert array.base is base
        return array if array.dtype == dtype else array.view(dtype).reshape(shape)

    def memcpy_htod_async(dest, src, stream=None):
        api("cuMemcpyHtoDAsync_v2", _address(dest), *_host(src), _handle(stream))

    def memcpy_dtoh_async(dest, src, stream=None):
        assert not memoryview(dest).readonly
        target, size = _host(dest)
        api("cuMemcpyDtoHAsync_v2", target, _address(src), size, _handle(stream))

    def memcpy_dtod_async(dest, src, size, stream=None):
        count = ctypes.c_size_t(size)
        api("cuMemcpyDtoDAsync_v2", _address(dest), _address(src), count, _handle(stream))

    def mem_get_info():
        return api.pair(ctypes.c_size_t, "cuMemGetInfo_v2")

    def module_from_buffer(buffer):
        module = ModuleType("Module")
        handle = ctypes.c_uint64(api.new("cuModuleLoadDataEx", buffer, 0, None, None))

        def get_function(name):
            return function(api.new("cuModuleGetFunction", handle, name.encode()))

        module.get_function = get_function
        return module

    for one in list(locals().values()):
        if callable(one) and hasattr(one, "__name__"):
            setattr(driver, one.__name__, one)


def make_fake(library):
    """The modules of a fake PyCUDA on a driver's library, by name."""
    api = _Api(library)
    package, driver = ModuleType("pycuda"), ModuleType("pycuda.driver")
    package.__spec__ = ModuleSpec("pycuda", None)  # for who asks whether it is installed
    primary, compiler = ModuleType("pycuda.autoprimaryctx"), ModuleType("pycuda.compiler")
    package.VERSION_TEXT = "2026.1"
    package.__path__ = []
    Stream, Event, Context, Device, Function = _classes(api)  # noqa: N806 - PyCUDA's names
    for one in (Error, MemoryError, LogicError, Stream, Event, Context, Device):
        setattr(driver, one.__name__, one)
    _functions(api, driver, Function)
    primary.device = Device(0)
    primary.context = primary.device.retain_primary_context()
    primary.context.push()  # as the real one does when it is imported
    compiler.SourceModule = None  # driven.py puts one there
    package.driver, package.autoprimaryctx, package.compiler = driver, primary, compiler
    return {one.__name__: one for one in (package, driver, primary, compiler)}
