"""Work in other threads: on the next items while the caller is busy with this one, or shared.

And how it ends where the interpreter does.
"""

import atexit
import functools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")
Given = ParamSpec("Given")

_PATIENCE = 1.0  # seconds
_LAST_PATIENCE = 10.0  # seconds, for what runs when the interpreter ends


@contextmanager
def ahead(
    items: Iterable[In], work: Callable[[In], Out], workers: int = 2
) -> Iterator[Iterator[Out]]:
    """Yields an iterator of `work(item)` in order, computed ahead in other threads.

    One thread draws from `items`, `workers` do the work, and as many items as there are workers
    are ahead of the one that the caller holds.

    What `items` or `work` raises is raised where its result would have been, and ends the
    iterator. Leaving the block ends the threads, once the items that they are at are done. One
    that waits for `items`, as for a camera that has stopped, is left behind after a second: it
    ends with the next item, which is lost.
    """
    results: SimpleQueue[Future[Out] | BaseException | None] = SimpleQueue()
    room = threading.Semaphore(workers)
    stop = threading.Event()

    def draw() -> None:
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
                if stop.is_set():
                    return
                results.put(pool.submit(work, item))
            results.put(None)
        except BaseException as error:  # carried to the caller's thread
            results.put(error)

    def drawn() -> Iterator[Out]:
        while (result := results.get()) is not None:
            if isinstance(result, BaseException):
                raise result
            value = result.result()
            del result  # a future holds its value: as long as this one waits, a whole image
            room.release()
            yield value

    thread = threading.Thread(target=draw, name="icnet-ahead", daemon=True)
    with ThreadPoolExecutor(workers, thread_name_prefix="icnet-ahead") as pool:
        thread.start()
        try:
            yield drawn()
        finally:
            stop.set()
            room.release()
            thread.join(_PATIENCE)
            pool.shutdown(wait=True, cancel_futures=True)


def helped(
    work: Callable[[], Out], helpers: int, pool: Callable[[], ThreadPoolExecutor]
) -> list[Out]:
    """Does some work, which takes its parts from a common store, in this thread and in others.

    This one waits for none that has not begun by the time that it is done: it may be busy with
    somebody else's. Where no thread can be had, as where the interpreter ends or at the system's
    limit, it works alone.

    Args:
        work: raises nothing.
        helpers: how many others are asked.
        pool: gives the pool that they are in.

    Returns:
        What it returned, in each thread that did some.
    """
    asked = [_Helper(work) for _ in range(helpers)]
    with suppress(RuntimeError):
        for helper in asked:
            pool().submit(helper.begin)
    own = work()
    return [own, *(value for helper in asked for value in helper.finish())]


class _Helper:
    """One thread's part in some work, until it is taken back.

    One that was taken back may lie in the pool's queue for long, and holds nothing of the work.
    """

    def __init__(self, work: Callable[[], Out]) -> None:
        self._work = [work]  # whose `pop` one thread wins
        self._done = threading.Event()
        self._found: list[Any] = []

    def begin(self) -> None:
        """Does it, unless it was taken back."""
        with suppress(IndexError):
            work = self._work.pop()
            try:
                self._found.append(work())
            finally:
                self._done.set()

    def finish(self) -> list[Any]:
        """Takes it back, or waits until it is done; what came of it."""
        try:
            self._work.pop()
        except IndexError:
            self._done.wait()
        return self._found


class _Ending:
    """Waits, where the interpreter ends, for daemon threads that are in a library's code.

    Python ends such a thread where it comes back from there, and if that is code in C++, the
    whole process is aborted ("terminate called without an active exception").
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: Counter[int] = Counter()
        self._ender: int | None = None
        atexit.register(self.end)

    def __enter__(self) -> None:
        own = threading.get_ident()
        with self._changed:
            goes_on = self._ender in (None, own) or own in self._inside
            if goes_on:
                self._inside[own] += 1
        while not goes_on:  # the interpreter is gone before this thread is
            time.sleep(3600)

    def __exit__(self, *_: object) -> None:
        own = threading.get_ident()
        with self._changed:
            self._inside[own] -= 1
            if not self._inside[own]:
                del self._inside[own]
            if self._ender is not None:
                self._changed.notify_all()

    def end(self) -> None:
        """Lets no thread in but this one, and waits for those that are."""
        with self._changed:
            self._ender = own = threading.get_ident()
            self._changed.wait_for(lambda: self._inside.keys() <= {own}, _LAST_PATIENCE)

    def after_fork(self) -> None:
        """A child has none of the threads that were inside."""
        self._changed = threading.Condition()
        self._inside.clear()


_ENDING = _Ending()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ENDING.after_fork)


def ends_first(work: Callable[Given, Out]) -> Callable[Given, Out]:
    """Makes the interpreter's end wait until a daemon thread is through some work, or has not
    begun it."""

    @functools.wraps(work)
    def guarded(*args: Given.args, **kwargs: Given.kwargs) -> Out:
        with _ENDING:
            return work(*args, **kwargs)

    return guarded
