"""A server between the ranks may die, start again, stop in the middle of a word, and be asked by the wrong ones."""

# ruff: noqa: D102  a test's name says what it shows

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from itertools import count

import pytest

from smlt.core.errors import ChannelError, PeerLost
from smlt.core.storage import Channel, ChannelKey
from smlt.testing.channel.relay import Relay
from smlt.testing.channel.suite import PATIENCE_S, ChannelSuite, key_of

WORD = b"the value of a conversation"


class Served(ABC):
    """A server, and the channel on it, that one test has for itself.

    Attributes:
        address: its host and port; clients reach it over TCP.
        password: without which nobody is served.
    """

    address: tuple[str, int]
    password: str

    @abstractmethod
    def open_channel(self, generation: int, round_number: int, rank: int, *, port: int | None = None) -> Channel:
        """A client; of another port of 127.0.0.1 where one is given, behind which the server is reached."""

    @abstractmethod
    def open_uninvited(self, password: str) -> Channel:
        """A client, rank 0 of the first round, with this password; without one if it is empty."""

    @abstractmethod
    def kill(self) -> None:
        """End the server, which cannot say goodbye; return when it is gone."""

    @abstractmethod
    def start(self) -> None:
        """Start it again at the same address; return when it listens."""

    @abstractmethod
    def impatient(self) -> AbstractContextManager[None]:
        """Within it clients wait 0.05 s, and not longer, for a server that stands still."""


class ServedChannelContract(ChannelSuite):
    """What holds, beside `ChannelContract`, of a channel with a server."""

    @pytest.fixture
    def served(self, request: pytest.FixtureRequest) -> Served:
        """Give this: a server that the test may kill and start again."""
        pytest.fail(f"{request.cls.__name__} lacks the fixture served")

    @pytest.fixture
    def pair(self, served: Served) -> Iterator[tuple[Channel, Channel]]:
        """A writer, rank 0, and a reader, rank 1, which have met."""
        with served.open_channel(0, 0, 0) as writer, served.open_channel(0, 0, 1) as reader:
            writer.put(key_of(0), [b"1"])
            assert reader.get(key_of(0), timeout_s=PATIENCE_S) == b"1"
            yield writer, reader

    # A server that dies

    @pytest.mark.parametrize("comes_back", [False, True])
    def test_a_server_that_dies_while_a_value_is_waited_for(
        self, served: Served, pair: tuple[Channel, Channel], comes_back: bool
    ) -> None:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(pair[1].get, key_of(0, 1), timeout_s=PATIENCE_S)
            served.kill()
            if comes_back:
                served.start()
            assert is_of_the_channel(waiting.exception())

    @pytest.mark.parametrize("comes_back", [False, True])
    def test_a_server_that_died_is_not_talked_to_again(
        self, served: Served, pair: tuple[Channel, Channel], comes_back: bool
    ) -> None:
        served.kill()
        if comes_back:
            served.start()
        for client in pair:
            for timeout_s in (0, 0.05):
                with pytest.raises(ChannelError) as caught:
                    client.get(key_of(0), timeout_s=timeout_s)
                assert is_of_the_channel(caught.value)
                assert caught.value.hint
        with pytest.raises(ChannelError):
            pair[0].put(key_of(0, 1), [b"2"])

    def test_a_new_round_goes_on_with_a_server_that_was_restarted(
        self, served: Served, pair: tuple[Channel, Channel]
    ) -> None:
        served.kill()
        served.start()
        with served.open_channel(0, 1, 0) as writer, served.open_channel(0, 1, 1) as reader:
            for old in (key_of(0), key_of(0, round_number=1)):
                with pytest.raises(PeerLost):
                    reader.get(old, timeout_s=0)
            writer.put(key_of(0, round_number=1), [b"new"])
            assert reader.get(key_of(0, round_number=1), timeout_s=PATIENCE_S) == b"new"
            for client in pair:  # those of the old round are still about
                with pytest.raises(ChannelError):
                    client.get(key_of(0, round_number=1), timeout_s=0)

    # Who may come in

    @pytest.mark.parametrize("guess", ["", "guess", "{password}x", "{password}{password}"])
    def test_a_wrong_password(self, served: Served, guess: str) -> None:
        password = guess.format(password=served.password)
        with pytest.raises(ChannelError) as caught, served.open_uninvited(password) as stranger:
            stranger.put(key_of(0), [b"of a stranger"])
        assert is_of_the_channel(caught.value)
        assert caught.value.hint
        assert served.password not in str(caught.value)
        assert not password or password not in str(caught.value)
        with served.open_channel(0, 0, 1) as reader, pytest.raises(PeerLost):
            reader.get(key_of(0), timeout_s=0)

    # Where a conversation ends

    @pytest.mark.parametrize("way", ["up", "down"])
    def test_a_conversation_that_is_cut_anywhere(self, served: Served, way: str) -> None:
        conversation = _Conversation(served)
        for connection, length in enumerate(conversation.lengths(way)):
            for cut in range(0, length, 1 if way == "down" else 3):
                conversation.hold(way, connection, cut, hangs_up=True)

    @pytest.mark.parametrize("way", ["up", "down"])
    def test_a_conversation_that_does_not_go_on_anywhere(self, served: Served, way: str) -> None:
        conversation = _Conversation(served)
        lengths = conversation.lengths(way)
        with served.impatient():
            for connection, length in enumerate(lengths):
                for cut in range(0, length, 1 + length // 6):
                    conversation.hold(way, connection, cut, hangs_up=False)


class _Conversation:
    """A rank that publishes a value and reads it, in a new round every time."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._rounds = count()

    def lengths(self, way: str) -> list[int]:
        """How many bytes go up, or down, over each of its connections."""
        with Relay(self._served.address) as line:
            assert self._speak(next(self._rounds), line.port) == WORD
            passed = line.passed
        return [each[way == "down"] for each in passed]

    def hold(self, way: str, connection: int, cut: int, *, hangs_up: bool) -> None:
        """Let one connection end after so many bytes: the word is heard whole by its speaker and by others, or not."""
        limits = [None] * connection + [cut]
        ends = {"up": limits} if way == "up" else {"down": limits}
        number = next(self._rounds)
        with Relay(self._served.address, **ends, hangs_up=hangs_up) as line, suppress(ChannelError):
            assert self._speak(number, line.port) == WORD
        with self._served.open_channel(0, number, 1) as reader, suppress(PeerLost):
            assert reader.get(_word_of(number), timeout_s=0) == WORD

    def _speak(self, number: int, port: int) -> bytes:
        with self._served.open_channel(0, number, 0, port=port) as channel:
            channel.put(_word_of(number), [WORD])
            return channel.get(_word_of(number), timeout_s=0.05)


def _word_of(number: int) -> ChannelKey:
    return key_of(0, round_number=number)


def is_of_the_channel(error: BaseException | None) -> bool:
    """Whether an error says that the channel failed, and not that a peer did."""
    return isinstance(error, ChannelError) and not isinstance(error, PeerLost)
