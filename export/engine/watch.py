"""What TensorRT calls back while it builds: its log, and its progress with the power to stop it.

The classes are made for the module at hand, since TensorRT and TensorRT-RTX each have their own
base. What such a method raises is printed and swallowed by TensorRT, so none may.
"""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

from tqdm import tqdm


def make_log(trt: ModuleType) -> Any:
    """A logger that keeps warnings and errors as (severity, text) in `lines`."""

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, msg: str) -> None:
            """Called from any thread."""
            if severity.name in ("INTERNAL_ERROR", "ERROR", "WARNING"):
                self.lines.append((severity.name, msg))

    return Log()


def errors_of(log: Any) -> str:
    """What went wrong, in TensorRT's words, for an error's message."""
    lines = [text.strip() for severity, text in log.lines if severity.endswith("ERROR")]
    return "; ".join(dict.fromkeys(lines)) or "TensorRT gave no reason"


def make_monitor(trt: ModuleType, quiet: bool | None) -> Any:
    """A progress monitor: a bar for the build's phases, and `stop`, an event that cancels it.

    Args:
        trt: the module.
        quiet: True: no bar; None: a bar on a terminal.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.stop = threading.Event()
            self.bar: Any = None
            self.outermost = ""

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """A phase begins; the one without a parent is the build."""
            if parent_phase is None and self.bar is None:
                self.outermost = phase_name
                self.bar = tqdm(desc=phase_name, total=num_steps, unit="step", disable=quiet)
            elif self.bar is not None:
                self.bar.set_postfix_str(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """A step ends; False stops the build."""
            if self.bar is not None and phase_name == self.outermost:
                self.bar.update(step + 1 - self.bar.n)
            return not self.stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            """A phase ends, also when the build is stopped."""
            if self.bar is not None and phase_name == self.outermost:
                self.bar.close()
                self.bar = None

    return Monitor()
