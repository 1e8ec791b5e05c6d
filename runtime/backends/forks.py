"""What a forked child must leave alone: models that were opened before the fork.

A child has their memory and none of the runtime's threads. It can predict with them, since the
thread that asks does all the work itself; but to free one, or ONNX Runtime itself when the process
ends, is to wait for those threads for ever. So in a child they are never freed, and it ends without
the runtimes' own exit handlers, as the children of `multiprocessing` do.
"""

import ctypes
import os
import weakref
from contextlib import suppress
from typing import Any

_OPEN: weakref.WeakSet[Any] = weakref.WeakSet()

_C: Any = None
with suppress(OSError, TypeError, AttributeError):  # only the GNU C library has `on_exit`
    _C = ctypes.CDLL(None)
    _C.on_exit.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    _EXIT, _CLOSE_FILES = (ctypes.cast(each, ctypes.c_void_p) for each in (_C._exit, _C.fcloseall))


def outlive_forks(backend: Any) -> None:
    """Keeps what a backend holds from being freed in a child that is forked while it is open.

    Args:
        backend: an object whose attributes hold what the runtime made.
    """
    _OPEN.add(backend)


def _leave_alone() -> None:
    """In a child: holds what was open for ever, so that `close` frees nothing either."""
    backends = list(_OPEN)
    for backend in backends:
        for held in (backend, *vars(backend).values()):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))
    if backends and _C is not None:
        # The last that is registered is called first, and before those of the runtimes: files of C
        # are written, and the process ends.
        _C.on_exit(_EXIT, None)
        _C.on_exit(_CLOSE_FILES, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_alone)
