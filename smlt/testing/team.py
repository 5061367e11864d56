"""Several processes, or threads, that run functions at the same time and hand back what they return or raise."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO, Any, Self, TypeVar

T = TypeVar("T")

_HELPER = "import sys; sys.path[:] = {path!r}; from smlt.testing import team; team.serve()"


class Team:
    """Processes of their own, kept from task to task since starting one takes a while.

    A task is a function of a module, or a `functools.partial` of one: it is pickled.
    """

    def __init__(self, size: int) -> None:
        self._members: list[_Member] = []
        self.size = size

    def start(self, function: Callable[..., object], *arguments: object, member: int) -> None:
        """Let one member begin a task."""
        while len(self._members) < self.size:
            self._members.append(_Member())
        if not self._members[member].is_alive:
            self._members[member].close()
            self._members[member] = _Member()
        self._members[member].send((function, arguments))

    def result(self, member: int) -> Any:
        """What the task of a member returned; raises what it raised, `EOFError` if its process died."""
        return self._members[member].receive()

    def run(self, function: Callable[..., T], arguments: Sequence[tuple[object, ...]]) -> list[T]:
        """Run a function in as many members as there are arguments; returns what it returned in each."""
        for member, given in enumerate(arguments):
            self.start(function, *given, member=member)
        return [self.result(member) for member in range(len(arguments))]

    def close(self) -> None:
        """End the processes."""
        for member in self._members:
            member.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Member:
    def __init__(self) -> None:
        command = [sys.executable, "-c", _HELPER.format(path=sys.path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def send(self, task: tuple[Callable[..., object], tuple[object, ...]]) -> None:
        _send(self._pipe(self._process.stdin), task)

    def receive(self) -> Any:
        try:
            succeeded, value = pickle.load(self._pipe(self._process.stdout))
        except EOFError:
            self._process.wait()
            raise
        if not succeeded:
            raise value
        return value

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._pipe(self._process.stdout).close()
        with suppress(BrokenPipeError):  # what is still in the buffer cannot be flushed to a process that died
            self._pipe(self._process.stdin).close()

    def _pipe(self, pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe


def serve() -> None:
    """The life of a member: take a task, answer, until nobody asks any more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a task prints goes elsewhere than the answers
    while True:
        try:
            function, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = (True, function(*arguments))
        except Exception as error:
            answer = (False, error)
        _send(answers, answer)


def _send(pipe: IO[bytes], message: object) -> None:
    pickle.dump(message, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def run_threads(function: Callable[..., T], arguments: Sequence[tuple[object, ...]]) -> list[T]:
    """Run a function in as many threads as there are arguments; returns what it returned in each."""
    with ThreadPoolExecutor(len(arguments)) as pool:
        return [future.result() for future in [pool.submit(function, *given) for given in arguments]]
