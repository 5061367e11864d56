"""An object channel's reads that are under way before they are waited for: stores with latency answer many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from smlt.core.errors import NotFound

Read = tuple[str, int, int | None]
"""What a read wants: an object's key, where it begins and how many bytes; None for all of them."""


class ReadAhead:
    """Expected reads, asked for in threads while another one is waited for; nothing is asked while nobody waits.

    Args:
        read: one request to the store; raises `NotFound` where the object is not there yet.
        concurrency: how many of them are under way at once; with 1 nothing is asked for ahead.
    """

    def __init__(self, read: Callable[[str, int, int | None], memoryview], concurrency: int) -> None:
        self._read, self._concurrency = read, concurrency
        self._expected: dict[Read, Future[memoryview] | None] = {}
        self._pool: ThreadPoolExecutor | None = None

    def expect(self, reads: Iterable[Read]) -> None:
        """These will be read next, in this order and once each."""
        if self._concurrency > 1:
            self._expected |= dict.fromkeys(reads)

    def take(self, read: Read) -> memoryview:
        """What there is to read; raises `NotFound` where there is nothing, and may be called again then."""
        if read not in self._expected:
            return self._read(*read)
        asked = self._expected.pop(read)
        self._ask()
        try:
            return self._read(*read) if asked is None or _was_too_early(asked) else asked.result()
        except NotFound:
            self._expected[read] = None
            raise

    def close(self) -> None:
        """Ask for nothing more, and wait for what is under way."""
        self._expected.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _ask(self) -> None:
        for read, asked in list(islice(self._expected.items(), self._concurrency - 1)):
            if asked is None or _was_too_early(asked):
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(self._concurrency - 1, "object-channel")
                self._expected[read] = self._pool.submit(self._read, *read)


def _was_too_early(asked: Future[memoryview]) -> bool:
    return asked.done() and isinstance(asked.exception(), NotFound)
