"""Reading images ahead of the model, in a bounded number of threads and in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
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
    computed ahead. An exception is raised where its result would have come.

    >>> list(prefetch(abs, [-3, 1, -2], workers=2))
    [3, 1, 2]
    """
    if workers < 1:
        yield from map(function, sources)
        return
    waiting = iter(sources)
    ahead: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="emit-bench-images")
    try:
        ahead.extend(pool.submit(function, source) for source in islice(waiting, 2 * workers))
        while ahead:
            result = ahead.popleft().result()
            ahead.extend(pool.submit(function, source) for source in islice(waiting, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
