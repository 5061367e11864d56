"""The shared-memory channel keeps the contract; and what only memory has to see to."""

import errno
import functools
import os
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from smlt.backends.channels import doorbell, segment, shared_memory
from smlt.backends.channels.segment_files import new_stem
from smlt.backends.channels.shared_memory import SPILL, SharedMemoryChannel, spec_for, sweep
from smlt.core.backend import RunPlace
from smlt.core.errors import ChannelError
from smlt.core.storage import ChannelKey, ChannelSpec
from smlt.testing.channel import PATIENCE_S, ChannelContract, Connect, OpenChannel, Scribble, StrangerContract, key_of
from smlt.testing.team import Team


class SharedMemoryContract(ChannelContract):
    """In /dev/shm where there is one."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[RunPlace]:
        place = RunPlace("test", tmp_path / "runs")
        yield place
        sweep(place)

    @pytest.fixture
    def spec(self, place: RunPlace) -> ChannelSpec:
        return spec_for(place)

    @pytest.fixture
    def open_channel(self, spec: ChannelSpec) -> OpenChannel:
        return functools.partial(SharedMemoryChannel, spec)

    @pytest.fixture
    def open_elsewhere(self, place: RunPlace) -> Iterator[OpenChannel]:
        elsewhere = replace(place, run="another")
        yield functools.partial(SharedMemoryChannel, spec_for(elsewhere))
        sweep(elsewhere)


class TestSharedMemory(SharedMemoryContract, StrangerContract):
    @pytest.fixture
    def scribble(self, spec: ChannelSpec) -> Scribble:
        def scribble(key: ChannelKey, data: bytes) -> None:
            _folder(spec).mkdir(exist_ok=True)
            (_folder(spec) / f"{new_stem((key.generation, key.round, key.rank))}.0").write_bytes(data)

        return scribble

    def test_allocated_values_are_not_copied(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        memory = writer.allocate(1000)
        writer.put(key_of(0), [memory[100:]])
        seen = reader.view(key_of(0), timeout_s=PATIENCE_S)
        memory[100] = 42  # a caller may not; here it shows whose memory is seen
        assert seen is not None
        assert seen[0] == 42

    def test_a_put_wakes_who_waits(self, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
        writer, reader = connect(0), connect(1)
        writer.put(key_of(0), [b"0"])
        reader.get(key_of(0), timeout_s=PATIENCE_S)
        waits, waiting, wait = [], threading.Event(), doorbell.Doorbell.wait

        def watched(bell: doorbell.Doorbell, seen: int, timeout_s: float) -> None:
            waiting.set()
            wait(bell, seen, timeout_s)
            waits.append(bell.read() != seen)

        monkeypatch.setattr(doorbell.Doorbell, "wait", watched)
        monkeypatch.setattr(shared_memory, "LOOK_AGAIN_S", PATIENCE_S)
        with ThreadPoolExecutor(1) as pool:
            value = pool.submit(reader.get, key_of(0, 1), timeout_s=PATIENCE_S)
            assert waiting.wait(PATIENCE_S)
            writer.put(key_of(0, 1), [b"1"])
            assert value.result() == b"1"
        assert any(waits)

    def test_more_values_than_a_table_has_entries(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        memory = writer.allocate(segment.ENTRIES + 10)
        memory[:] = bytes(number % 251 for number in range(memory.nbytes))
        for number in range(memory.nbytes):
            writer.put(key_of(0, number), [memory[number : number + 1]])
        assert all(reader.get(key_of(0, number), timeout_s=0)[0] == number % 251 for number in range(memory.nbytes))

    def test_a_steady_state_needs_no_more_memory(self, connect: Connect, spec: ChannelSpec) -> None:
        writer = connect(0)
        writer.reserve(3_000_000)
        memories = [writer.allocate(1_000_000) for _ in range(2)]
        for step in range(200):
            for piece in ("lent", "copied"):
                writer.discard(key_of(0, step - 2, piece))
            writer.put(key_of(0, step, "lent"), [memories[step % 2]])
            writer.put(key_of(0, step, "copied"), [bytes(400_000 + step)])
        assert len(_files(spec)) == 1

    def test_only_own_keys_are_written(self, connect: Connect) -> None:
        writer = connect(0)
        for key in (key_of(1), key_of(0, round_number=1), key_of(0, generation=1)):
            with pytest.raises(ChannelError, match="rank 0"):
                writer.put(key, [b""])

    def test_no_room_is_said_when_it_is_reserved(self, connect: Connect, spec: ChannelSpec) -> None:
        writer = connect(0)
        with pytest.raises(ChannelError, match="shm-size"):
            writer.reserve(2**50)
        assert _files(spec) == []
        writer.put(key_of(0), [b"1"])
        assert connect(1).get(key_of(0), timeout_s=PATIENCE_S) == b"1"

    def test_what_dev_shm_cannot_hold_is_in_the_folder(
        self, connect: Connect, place: RunPlace, spec: ChannelSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create, other = segment.OwnSegment.create, str(place.runs_dir)

        def no_room_for_large(path: Path, size: int) -> segment.OwnSegment:
            if size > 5_000_000 and not str(path).startswith(other):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return create(path, size)

        monkeypatch.setattr(segment.OwnSegment, "create", no_room_for_large)
        writer, reader = connect(0), connect(1)
        writer.put(key_of(0), [b"small"])
        writer.reserve(6_000_000)
        memory = writer.allocate(6_000_000)
        memory[-1] = 7
        writer.put(key_of(0, 1), [memory])
        assert reader.get(key_of(0), timeout_s=PATIENCE_S) == b"small"
        assert reader.get(key_of(0, 1), timeout_s=PATIENCE_S) == bytes(5_999_999) + b"\x07"
        assert len(_files(spec)) == 2

    def test_a_value_discarded_while_it_is_copied(self, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
        writer, reader = connect(0), connect(1)
        writer.put(key_of(0), [b"x" * 1000])
        view = segment.Segment.view

        def discard_first(found: segment.Segment, place: segment.Place) -> memoryview:
            writer.discard(key_of(0))
            writer.put(key_of(0, 1), [b"y" * 1000])
            return view(found, place)

        monkeypatch.setattr(segment.Segment, "view", discard_first)
        with pytest.raises(ChannelError, match="discarded by rank 0 while rank 1 read it"):
            reader.get(key_of(0), timeout_s=PATIENCE_S)

    def test_a_successor_at_the_same_address_is_found(self, connect: Connect) -> None:
        first, reader = connect(0), connect(1)
        first.put(key_of(0), [b"1"])
        assert reader.get(key_of(0), timeout_s=PATIENCE_S) == b"1"
        second = connect(0)
        second.put(key_of(0, 1), [b"2"])
        assert reader.get(key_of(0, 1), timeout_s=PATIENCE_S) == b"2"

    def test_close_leaves_nothing(self, open_channel: OpenChannel, spec: ChannelSpec) -> None:
        with open_channel(0, 0, 0) as writer, open_channel(0, 0, 1) as reader:
            writer.put(key_of(0), [bytes(3_000_000)])
            kept = reader.view(key_of(0), timeout_s=PATIENCE_S)
        assert kept is not None
        assert not _folder(spec).exists()
        mapping = weakref.ref(kept.obj)
        assert kept.tobytes() == bytes(3_000_000)
        del kept
        assert mapping() is None

    def test_a_folder_that_goes_away_is_made_again(
        self, connect: Connect, spec: ChannelSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create = segment.OwnSegment.create

        def leave_first(path: Path, size: int) -> segment.OwnSegment:
            monkeypatch.setattr(segment.OwnSegment, "create", create)
            path.parent.rmdir()
            return create(path, size)

        monkeypatch.setattr(segment.OwnSegment, "create", leave_first)
        connect(0).put(key_of(0), [b"1"])
        assert len(_files(spec)) == 1

    def test_a_new_incarnation_removes_what_a_dead_one_left(
        self, connect: Connect, open_channel: OpenChannel, spec: ChannelSpec, team: Team
    ) -> None:
        team.run(_write_and_leave, [(open_channel, generation, rank) for generation, rank in ((0, 0), (1, 0), (0, 1))])
        assert len(_files(spec)) == 3
        connect(0, generation=1).put(key_of(0, generation=1), [b""])  # the last generation may still be at work
        assert len(_files(spec)) == 4
        connect(0, 1, generation=1).put(key_of(0, round_number=1, generation=1), [b""])  # a round before is over
        assert sorted(name[:6] for name in _files(spec)) == ["0.0.0.", "0.0.1.", "1.1.0."]
        connect(0, generation=2).put(key_of(0, generation=2), [b""])
        assert sorted(name[:6] for name in _files(spec)) == ["0.0.1.", "1.1.0.", "2.0.0."]

    def test_a_sweep_removes_what_a_run_left(self, open_channel: OpenChannel, place: RunPlace, team: Team) -> None:
        team.run(_write_and_leave, [(open_channel, 0, 0), (open_channel, 0, 1)])
        (folder,) = sweep(place)
        assert not Path(folder).exists()
        assert sweep(place) == []

    def test_runs_of_one_name_do_not_meet(self, tmp_path: Path) -> None:
        specs = [spec_for(RunPlace(run, tmp_path / folder)) for run in ("a", "b") for folder in ("1", "2")]
        assert len({spec.url for spec in specs}) == 4

    def test_the_folder_of_another_user_is_not_used(
        self, connect: Connect, spec: ChannelSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _folder(spec).mkdir()
        monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
        with pytest.raises(ChannelError, match="another user"):
            connect(0).put(key_of(0), [b""])

    def test_other_users_cannot_read(self, connect: Connect, spec: ChannelSpec) -> None:
        connect(0).put(key_of(0), [b""])
        modes = [path.stat().st_mode & 0o777 for path in (_folder(spec), *_folder(spec).iterdir())]
        assert modes == [0o700, 0o600]


class TestWithoutDevShm(SharedMemoryContract):
    """As on macOS: a folder on disk, no `posix_fallocate`, no futex."""

    large_value_bytes = 20 * 2**20

    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPlace:
        monkeypatch.setattr(shared_memory, "SHARED_MEMORY", tmp_path / "none")
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
        monkeypatch.setattr(segment, "futex", lambda: None)
        return RunPlace("test", tmp_path / "runs")

    @pytest.fixture
    def open_channel(self, spec: ChannelSpec) -> OpenChannel:
        return functools.partial(_open_without_futex, spec)

    def test_it_is_in_the_folder_of_the_run(self, connect: Connect, place: RunPlace, spec: ChannelSpec) -> None:
        connect(0).put(key_of(0), [b""])
        assert _folder(spec).is_relative_to(place.runs_dir / "test")
        assert SPILL not in spec.options
        assert len(_files(spec)) == 1


def _open_without_futex(spec: ChannelSpec, generation: int, round_number: int, rank: int) -> SharedMemoryChannel:
    segment.futex = lambda: None  # type: ignore[attr-defined]  in the processes of a team
    return SharedMemoryChannel(spec, generation, round_number, rank)


def _write_and_leave(open_channel: OpenChannel, generation: int, rank: int) -> None:
    _left.append(open_channel(generation, 0, rank))
    _left[-1].put(key_of(rank, generation=generation), [b"1"])


_left: list[SharedMemoryChannel] = []


def _folder(spec: ChannelSpec) -> Path:
    return Path(spec.url.removeprefix("file://"))


def _files(spec: ChannelSpec) -> list[str]:
    urls = [spec.url, spec.options.get(SPILL, spec.url)]
    folders = {Path(url.removeprefix("file://")) for url in urls}
    return sorted(path.name for folder in folders if folder.is_dir() for path in folder.iterdir())
