"""The processes that we start: a child that answers in lines of JSON, and others' tools."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import Any

from icnet_deploy.documents import parse
from icnet_deploy.errors import BackendError, InputError, UnavailableError

_ERRORS = {kind.__name__: kind for kind in (BackendError, InputError, UnavailableError)}


class Child:
    """A process of Python that answers in lines of JSON, for `contextlib.closing`.

    What it allocates is its own, and if it is killed for want of memory this one goes on. It is a
    fresh interpreter: a forked one would begin with this one's memory and threads.

    Args:
        call: Python's arguments: a file, or `-m` and a module.
        job: what it is to do, its one argument, as JSON; paths are texts in it.
        environment: variables that it has beside this process's.

    Attributes:
        begun: when it was asked for, in nanoseconds of `time.monotonic_ns`.
        pid: its number.
    """

    def __init__(
        self,
        call: Sequence[str],
        job: Mapping[str, Any],
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        # -P: the file's own folder is no place to import from.
        command = [sys.executable, "-P", *call, json.dumps(job, default=str)]
        # A pipe that nobody reads fills up.
        self._errors = TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self.begun = time.monotonic_ns()
        self._process: Any = subprocess.Popen(  # `Any`, since its pipes are there
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | environment,
        )
        self.pid = self._process.pid

    def answer(self) -> dict[str, Any]:
        """Waits for a line; where it is an error, the process is closed.

        Raises:
            InputError, UnavailableError, BackendError: it says so: `error`, and the error's `kind`.
            BackendError: it was killed, or ended and said nothing.
        """
        try:
            answer = dict(parse(self._process.stdout.readline()))
        except ValueError:
            answer = {"error": self._end(), "kind": "BackendError"}
        if "error" in answer:
            self.close()
            raise _ERRORS[answer["kind"]](answer["error"])
        return answer

    def ask(self, word: str) -> dict[str, Any]:
        """Sends it a line, and waits for one; errors as `answer`."""
        with suppress(OSError):  # it is gone: the answer says why
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """Ends the process; a second call does nothing."""
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _end(self) -> str:
        """Why it ended, that said nothing."""
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "killed by the system, which it does to a process when memory runs out"
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        how = f"by the signal {signal.Signals(-code).name}" if code < 0 else f"with {code}"
        return f"the process ended {how}" + (f": {lines[-1]}" if lines else "")


def run_tool(
    command: Sequence[str], timeout: float | None = None, cwd: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs another's program to its end.

    Args:
        command: its name or path, and its arguments.
        timeout: seconds.
        cwd: the folder that it runs in.

    Returns:
        Its exit code and what it wrote. As a shell says it, the code is 127 where there is no such
        program, and 124 where it took longer.
    """
    try:
        return subprocess.run(
            command, capture_output=True, text=True, cwd=cwd, timeout=timeout, check=False
        )
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
    except subprocess.TimeoutExpired as error:
        return subprocess.CompletedProcess(command, 124, "", str(error))
