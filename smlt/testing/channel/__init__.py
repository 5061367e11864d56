"""The contract of `smlt.core.storage.Channel` as tests: subclass, give two fixtures, inherit.

class TestMyChannel(ChannelContract):
    @pytest.fixture
    def open_channel(self, tmp_path):
        return functools.partial(MyChannel, ChannelSpec("mine", f"mine://localhost/{tmp_path.name}"))

    @pytest.fixture
    def open_elsewhere(self, tmp_path):
        return functools.partial(MyChannel, ChannelSpec("mine", f"mine://localhost/{tmp_path.name}-2"))

Where others can write to the medium inherit `StrangerContract` as well, and where a server stands between the ranks
`ServedChannelContract`.
"""

from __future__ import annotations

from smlt.testing.channel.concurrency import ConcurrencyContract
from smlt.testing.channel.keys import KeyContract
from smlt.testing.channel.large import LargeValueContract
from smlt.testing.channel.leaving import LeavingContract
from smlt.testing.channel.memory import MemoryContract
from smlt.testing.channel.processes import ProcessContract
from smlt.testing.channel.served import Served, ServedChannelContract
from smlt.testing.channel.strangers import Scribble, StrangerContract
from smlt.testing.channel.suite import MEMBERS, PATIENCE_S, Connect, OpenChannel, key_of
from smlt.testing.channel.values import ValueContract
from smlt.testing.channel.waiting import WaitingContract

__all__ = [
    "MEMBERS",
    "PATIENCE_S",
    "ChannelContract",
    "Connect",
    "OpenChannel",
    "Scribble",
    "Served",
    "ServedChannelContract",
    "StrangerContract",
    "key_of",
]


class ChannelContract(
    ValueContract,
    LargeValueContract,
    KeyContract,
    WaitingContract,
    ConcurrencyContract,
    MemoryContract,
    LeavingContract,
    ProcessContract,
):
    """What holds of every channel.

    Attributes:
        large_value_bytes: size of the largest value; lower it for a slow store.
        steps: of the tests in which processes exchange values.
    """
