"""The ranks of one setting as processes: started together, told what to do in step, and gone afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Pipe, wait
from os import getpid
from pathlib import Path
from typing import Any, TypeVar

from smlt.backends.function_process import how_it_ended, kill_group
from smlt.backends.served_launcher import thread_environment
from smlt.bench.messages import Failure, Go, Leave, Line, Ready, Seating, Timing, Turn
from smlt.core.errors import JobFailed

RANK = "smlt.bench.rank"
STALL_S = 600.0
"""So long without a word of any rank is no slow machine."""

LEAVE_S = 30.0
TAIL = 2000

T = TypeVar("T")


@contextmanager
def seated(seatings: Sequence[Seating], folder: Path) -> Iterator[Team]:
    """Processes that have opened all variants; none is left afterwards, however this is left."""
    team = Team(folder)
    try:
        for seating in seatings:
            team.start(seating)
        team.gather(Ready, "opening its channels")
        yield team
        team.leave()
    finally:
        team.kill()


class Team:
    """See `seated`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: list[Line] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def pids(self) -> list[int]:
        """Of the ranks' processes, in rank order."""
        return [process.pid for process in self._processes]

    def start(self, seating: Seating) -> None:
        """Start the next rank."""
        ours, theirs = Pipe()
        self._lines.append(Line(ours))
        with theirs, self._log(seating.rank).open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", RANK, str(theirs.fileno()), str(getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=thread_environment(1),
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C is for the one who measures, who ends the ranks
                )
            )
        with suppress(OSError):
            self._lines[-1].send(seating)

    def reduce(self, turn: Turn) -> list[Timing]:
        """One reduction by all ranks, who start together; in rank order."""
        self._tell(turn)
        self.gather(Ready, f"{turn.variant}, before a reduction")
        self._tell(Go())
        return self.gather(Timing, turn.variant)

    def gather(self, kind: type[T], doing: str) -> list[T]:
        """A message of every rank.

        Raises:
            JobFailed: a rank failed or died instead, or none said anything for long.
        """
        found: dict[int, T] = {}
        while len(found) < len(self._lines):
            waiting = [rank for rank in range(len(self._lines)) if rank not in found]
            heard = wait([self._lines[rank].connection for rank in waiting], STALL_S)
            if not heard:
                raise JobFailed(f"no rank got on for {STALL_S:g} s ({doing})", "does its server still run?")
            messages = [(rank, self._receive(rank)) for rank in waiting if self._lines[rank].connection in heard]
            # Who died without a word comes first: what the others say may follow from it.
            for rank, message in sorted(messages, key=lambda said: said[1] is not None):
                if not isinstance(message, kind):
                    raise self._failed(rank, message, doing)
                found[rank] = message
        return [found[rank] for rank in range(len(self._lines))]

    def leave(self) -> None:
        """Let the ranks close what they have open."""
        self._tell(Leave())
        for rank in range(len(self._processes)):
            if self._exit_code(rank) != 0:
                raise self._failed(rank, None, "closing its channels")

    def kill(self) -> None:
        """End the ranks at once, those that have not left."""
        for process in self._processes:
            if process.poll() is None:
                kill_group(process.pid)
        for process in self._processes:
            process.wait()
        for line in self._lines:
            line.connection.close()

    def _tell(self, message: Any) -> None:
        for line in self._lines:
            with suppress(OSError):  # it is gone: `gather` says why
                line.send(message)

    def _receive(self, rank: int) -> Any:
        try:
            return self._lines[rank].receive()
        except (EOFError, OSError):
            return None

    def _exit_code(self, rank: int) -> int:
        try:
            return self._processes[rank].wait(LEAVE_S)
        except subprocess.TimeoutExpired as error:
            raise JobFailed(f"rank {rank} did not end within {LEAVE_S:g} s") from error

    def _failed(self, rank: int, message: Failure | None, doing: str) -> JobFailed:
        if message is not None:  # what a rank says may follow from the death of another, of which nothing came in yet
            dead = (other for other, process in enumerate(self._processes) if other != rank and process.poll())
            if (other := next(dead, None)) is not None:
                rank, message = other, None
        if message is None:
            how = how_it_ended(self._exit_code(rank))
            tail = self._log(rank).read_text(encoding="utf-8", errors="replace")[-TAIL:].strip()
            return JobFailed(f"rank {rank} is gone: {how} ({doing})" + (f": {tail}" if tail else ""))
        error = JobFailed(f"rank {rank} failed ({doing}): {message.kind}: {message.message}", message.hint)
        error.add_note(message.traceback)
        return error

    def _log(self, rank: int) -> Path:
        return self._folder / f"rank{rank}.txt"
