"""Work over many images that goes on where it was stopped, and that the processes of one launch share.

Images come in batches. Which process does which batch follows from the list of batches alone, not from what is done
already: a run that was killed, or is shared by several processes (torchrun), ends with the same bits. An image is done
when its files say so: they are written atomically, the one that says it last.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from typing import Any, Generic, TypeVar

from relevit.errors import UserError
from relevit.processes import Processes

Item = TypeVar("Item")

_AHEAD = 2  # batches that are read while this process is busy with another


@dataclass(frozen=True)
class Steps(Generic[Item]):
    """What is done with each image.

    Attributes:
        is_done: whether an image's files are there, by its item.
        write: makes and writes an image's files, in the pool, from its item and its result; for a pool of processes it
            must be picklable.
        read: reads an image, in the pool. Of a batch in which any image is not done, all are read.
        compute: from what was read of a batch to a result for each of its images, in this process (a model's place).
            None: there is no such step, and `write` gets None.
    """

    is_done: Callable[[Item], bool]
    write: Callable[[Item, Any], object]
    read: Callable[[Item], Any] | None = None
    compute: Callable[[list[Any]], list[Any]] | None = None


def map_images(
    batches: Sequence[Sequence[Item]],
    steps: Steps[Item],
    pool: Executor,
    processes: Processes,
    *,
    waiting: int = 64,
    start: Callable[[int], object] = lambda total: None,
    advance: Callable[[int], object] = lambda count: None,
) -> int:
    """Do this process's share of what is not done, and wait for the other processes.

    Args:
        batches: all images, the same in every process.
        steps: what is done with each.
        pool: where images are read and written; see `workers`.
        processes: those that share the batches.
        waiting: results that may wait to be written.
        start: called with the number of images to do in this process.
        advance: called with a number of them that are done.

    Returns:
        How many images were done now, by all processes.
    """
    mine = [list(batch) for batch in batches[processes.rank :: processes.count]]
    missing = [[not steps.is_done(item) for item in batch] for batch in mine]
    count = sum(map(sum, missing))
    start(count)
    pending: set[Future] = set()
    todo = [(batch, marks) for batch, marks in zip(mine, missing, strict=True) if any(marks)]
    for batch, marks, results in _results(todo, steps, pool):
        pending |= {
            pool.submit(steps.write, item, result)
            for item, mark, result in zip(batch, marks, results, strict=True)
            if mark
        }
        pending = _settle(pending, waiting, advance)
    _settle(pending, 0, advance)
    return sum(processes.gathered([count]))  # this waits for all


def in_batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """The items in their order, `size` in a batch, the last of what is left."""
    return [items[start : start + size] for start in range(0, len(items), size)]


@contextmanager
def threads(count: int) -> Iterator[Executor]:
    """A context with a pool of threads, or of none: for work that frees the interpreter, as decoding pictures does. When it
    ends by an exception, what waits is not begun."""
    pool = ThreadPoolExecutor(count) if count > 1 else _Here()
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def worker_processes(count: int, begin: Callable[[], object] = bool) -> Iterator[Executor]:
    """As `threads`, with processes, each of which calls `begin` first (picklable; bool does nothing). Raises UserError when a
    worker was killed."""
    pool: Executor = _Here()
    if count:
        pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(begin,))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise UserError(
            "A worker process ended unexpectedly, probably for want of memory: give fewer --workers. "
            "The same command goes on where it was."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


class _Here(Executor):
    """Does everything at once, in this process."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        future.set_result(function(*args, **kwargs))
        return future


def _start_worker(begin: Callable[[], object]) -> None:
    """What a worker process does first: Ctrl-C is left to the main process, and it ends when that one ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:  # a pool's workers outlive a parent that was killed

        def watch(sentinel: int = parent.sentinel) -> None:
            connection.wait([sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
    begin()


def _results(
    todo: Sequence[tuple[list[Item], list[bool]]], steps: Steps[Item], pool: Executor
) -> Iterator[tuple[list[Item], list[bool], list[Any]]]:
    """Every batch with a result for each of its images; the next batches are read meanwhile."""
    if steps.read is None or steps.compute is None:
        for batch, marks in todo:
            yield batch, marks, [None] * len(batch)
        return
    queue: deque[tuple[list[Item], list[bool], list[Future]]] = deque()
    for number in range(len(todo) + _AHEAD):
        if number < len(todo):
            batch, marks = todo[number]
            queue.append((batch, marks, [pool.submit(steps.read, item) for item in batch]))
        if queue and number >= _AHEAD:
            batch, marks, views = queue.popleft()
            yield batch, marks, steps.compute([view.result() for view in views])


def _settle(pending: set[Future], most: int, advance: Callable[[int], object]) -> set[Future]:
    """Wait until at most `most` are left; raises what one of those that are done has raised."""
    while True:
        done, pending = wait(pending, timeout=0 if len(pending) <= most else None, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
        advance(len(done))
        if len(pending) <= most:
            return pending
