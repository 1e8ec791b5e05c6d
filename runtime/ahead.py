"""Doing the next items' work in one worker thread while the caller is busy with this one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

__all__ = ["DEPTH", "ahead"]

In = TypeVar("In")
Out = TypeVar("Out")

DEPTH = 2
"""How many items the worker may be ahead of the one that the caller holds."""


@contextmanager
def ahead(items: Iterable[In], work: Callable[[In], Out]) -> Iterator[Iterator[Out]]:
    """Yields an iterator of `work(item)` in order, computed ahead in a worker thread.

    What `items` or `work` raises is raised where its result would have been, and ends the
    iterator. Leaving the block ends the thread, once the item that it is at is done.
    """
    results: SimpleQueue[tuple[bool, Out | BaseException | None]] = SimpleQueue()
    room = threading.Semaphore(DEPTH)
    stop = threading.Event()

    def worker() -> None:
        try:
            iterator = iter(items)
            while True:
                # Before an item is drawn, not after: a camera's frame should not lie waiting.
                room.acquire()
                if stop.is_set():
                    return
                try:
                    item = next(iterator)
                except StopIteration:
                    break
                results.put((True, work(item)))
            results.put((False, None))
        except BaseException as error:  # carried to the caller's thread
            results.put((False, error))

    def drawn() -> Iterator[Out]:
        while True:
            more, value = results.get()
            if not more:
                if isinstance(value, BaseException):
                    raise value
                return
            room.release()
            yield value  # type: ignore[misc]  # an Out, since `more`

    thread = threading.Thread(target=worker, name="icnet-ahead", daemon=True)
    thread.start()
    try:
        yield drawn()
    finally:
        stop.set()
        room.release()
        thread.join()
