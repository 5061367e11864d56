"""Waiting, without burning the processor that the awaited peer needs, for a word in shared memory to change.

On 64-bit Linux the kernel's futex: 9 us from ring to wake-up and no work while waiting, where each look between sleeps
took 25 us of processor time. Elsewhere short sleeps, growing to 1 ms. Both survive a peer that dies at any time.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FUTEX_CALLS = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}
"""Number of the futex call by machine (Linux, arch/*/syscalls)."""

_WAIT, _WAKE, _EVERYONE = 0, 1, 2**31 - 1
SHORTEST_SLEEP_S, LONGEST_SLEEP_S = 20e-6, 1e-3


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Doorbell:
    """A counter in shared memory that its owner advances and others wait for.

    Args:
        word: one element of a mapping, which may be read-only for those who wait.
        futex: the system call; None to sleep and look.
    """

    def __init__(self, word: NDArray[np.uint32], futex: Callable[..., int] | None) -> None:
        self._word, self._futex = word, futex
        self._address: int = word.__array_interface__["data"][0]

    def read(self) -> int:
        """How often it was rung; look at it before looking for what one waits for."""
        return int(self._word[0])

    def ring(self) -> None:
        """Wake whoever waits."""
        self._word[0] = (self.read() + 1) % 2**32
        if self._futex is not None:
            self._futex(self._address, _WAKE, _EVERYONE, None, None, 0)

    def wait(self, seen: int, timeout_s: float) -> None:
        """Return when the bell was rung since it read `seen`, or after `timeout_s`, or sooner for no reason."""
        if self._futex is None:
            wait_until(lambda: self.read() != seen, timeout_s)
            return
        seconds = int(timeout_s)
        left = _Timespec(seconds, int((timeout_s - seconds) * 1e9))
        self._futex(self._address, _WAIT, seen, ctypes.byref(left), None, 0)


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Sleep, shortly at first, until the condition holds or the time is over; whether it holds."""
    deadline, pause_s = time.monotonic() + timeout_s, SHORTEST_SLEEP_S
    while not condition():
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return False
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, LONGEST_SLEEP_S)
    return True


@functools.cache
def futex() -> Callable[..., int] | None:
    """`futex(address, operation, value, timespec, None, 0)` of this kernel, or None where it has none we know."""
    number = FUTEX_CALLS.get(platform.machine())
    if sys.platform != "linux" or number is None or sys.maxsize < 2**32:
        return None
    call = ctypes.CDLL(None).syscall
    call.restype = ctypes.c_long
    call.argtypes = [
        ctypes.c_long,
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_uint32,
        ctypes.POINTER(_Timespec),
        ctypes.c_void_p,
        ctypes.c_uint32,
    ]
    return functools.partial(call, number)
