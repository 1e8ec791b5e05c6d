"""Doing the next items' work in other threads while the caller is busy with this one."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

_PATIENCE = 1.0  # seconds


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
