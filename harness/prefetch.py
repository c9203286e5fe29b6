"""Working ahead of a slower consumer, in a bounded number of threads and in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Source = TypeVar("Source")
Result = TypeVar("Result")


def prefetch(
    function: Callable[[Source], Result], sources: Iterable[Source], workers: int
) -> Generator[Result, None, None]:
    """``map(function, sources)``, computed up to ``2 * workers`` ahead of the consumer.

    The order of results is that of the sources whatever the number of workers; with none, nothing is
    computed ahead. An exception is raised where its result would have come. Sources are drawn in the
    consumer's own thread.

    >>> list(prefetch(abs, [-3, 1, -2], workers=2))
    [3, 1, 2]
    """
    if workers < 1:
        yield from map(function, sources)
        return
    waiting = iter(sources)
    ahead: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="emit-bench-ahead")
    try:
        ahead.extend(pool.submit(function, source) for source in islice(waiting, 2 * workers))
        while ahead:
            result = ahead.popleft().result()
            ahead.extend(pool.submit(function, source) for source in islice(waiting, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def prefetch_within(
    function: Callable[[Source], Result], units: Iterable[Sequence[Source]], workers: int
) -> Generator[tuple[Result, ...], None, None]:
    """``function`` over every member of every unit, ahead as :func:`prefetch` does, a unit at a time.

    A unit is given out when its own members are done, and with workers the next source is drawn.

    >>> list(prefetch_within(abs, [(-3, 1), (), (-2,)], workers=2))
    [(3, 1), (), (2,)]
    """
    sizes: deque[int] = deque()

    def members() -> Iterator[Source]:
        for unit in units:
            sizes.append(len(unit))
            yield from unit

    done: list[Result] = []
    ahead = prefetch(function, members(), workers)
    try:
        for result in ahead:
            while sizes[0] == 0:
                sizes.popleft()
                yield ()
            done.append(result)
            if len(done) == sizes[0]:
                sizes.popleft()
                yield tuple(done)
                done.clear()
        yield from (() for _ in sizes)
    finally:
        ahead.close()
