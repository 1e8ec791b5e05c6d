"""Targets of the fuzz whose reader has a fault of each kind, to see that it is found."""

import os
from pathlib import Path

from icnet_deploy.errors import BackendError, InputError
from tools.fuzz.target import Target

HELD = []


def prepare(folder: Path):
    def run(data: bytes):
        yield "begun"
        if data == b"wrong":
            raise InputError("the input is 'wrong'; expected another: give another")
        if data == b"failed":
            raise BackendError("the runtime failed on 'failed'")
        if data == b"error":
            raise KeyError("nothing of ours")
        if data == b"terse":
            raise InputError("no")
        if data == b"crash":
            os.abort()
        if data == b"hang":
            while True:
                pass
        if data == b"wait":
            os.mkfifo(folder / "pipe")
            (folder / "pipe").read_bytes()
        if data == b"memory":
            HELD[:] = [b"a" * (200 << 20)]
        if data == b"half":
            (folder / ".icnet-0123456789abcdef.tmp").write_bytes(b"a")
        yield "done"

    return run


def _target(*inputs: bytes, **options) -> Target:
    name = inputs[-1].decode()
    return Target(
        name,
        name,
        lambda: list(inputs),
        lambda data, rng: b"good",
        prepare,
        100,
        seconds=1,
        megabytes=100,
        **options,
    )


_NAMES = (
    *(b"good", b"wrong", b"error", b"terse", b"failed"),
    *(b"crash", b"hang", b"wait", b"memory", b"half"),
)
TARGETS = {one.name: one for one in (_target(b"good", name) for name in _NAMES)}
