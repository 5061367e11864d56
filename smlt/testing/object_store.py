"""The contract of `smlt.core.storage.ObjectStore` as tests: subclass, give the fixture `open_store`, inherit.

class TestMyStore(ObjectStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path):
        return functools.partial(MyStore, StoreSpec("mine", f"mine://{tmp_path.name}"))
"""

# ruff: noqa: D102  a test's name says what it shows

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from smlt.core.errors import AlreadyExists, ConfigError, Conflict, CorruptObject, NotFound
from smlt.core.storage import ObjectInfo, ObjectStore
from smlt.testing.team import Team, run_threads

OpenStore = Callable[[], ObjectStore]

BAD_KEYS = ("", "/", "/a", "a/", "a//b", ".", "a/./b", "..", "../a", "a/..")
ODD_KEYS = (
    "a b",
    "a#1",
    "a%20b",
    "a+b=c&d?e",
    "a~(b)'!",
    "..a",
    ".hidden",
    "a..b/c.",
    "é/ü/漢字/😀",
    "@:;,$",
    "-",
    "x" * 200 + "/" + "y" * 200,
)
MEMBERS = 4


def _pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


class LocalObjectStoreContract:
    """What holds of every store, one that lives in a single process included."""

    @pytest.fixture
    def open_store(self, request: pytest.FixtureRequest) -> OpenStore:
        """Give this: opens a new client of one store, empty at the start of each test. Must be picklable."""
        pytest.fail(f"{request.cls.__name__} lacks the fixture open_store")

    @pytest.fixture
    def store(self, open_store: OpenStore) -> Iterator[ObjectStore]:
        """A client."""
        with closing(open_store()) as store:
            yield store

    @pytest.mark.parametrize("size", [0, 1, 4096, 5 * 2**20 + 1])
    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_a_put_is_read_back(self, store: ObjectStore, size: int, kind: Callable[[bytes], bytes]) -> None:
        data = _pattern(size)
        store.put("folder/object", kind(data))
        found = store.get("folder/object")
        assert isinstance(found, bytes)
        assert found == data

    def test_a_buffer_of_any_format_is_its_bytes(self, store: ObjectStore) -> None:
        store.put("numbers", memoryview(bytes(range(64))).cast("I"))
        assert store.get("numbers") == bytes(range(64))

    @pytest.mark.parametrize("parts", [[], [b""], [b"a", b"", b"bc"], [_pattern(70_000), _pattern(3), _pattern(1000)]])
    def test_parts_are_put_one_behind_the_other(self, store: ObjectStore, parts: list[bytes]) -> None:
        tag = store.put("object", *(memoryview(part) for part in parts))
        assert store.get_versioned("object") == (b"".join(parts), tag)

    def test_parts_of_any_format_are_their_bytes(self, store: ObjectStore) -> None:
        numbers = memoryview(bytes(range(64))).cast("I")
        store.put("numbers", b"head", numbers, numbers.cast("B").cast("I", (4, 4)))
        assert store.get("numbers") == b"head" + 2 * bytes(range(64))

    def test_a_buffer_may_change_once_it_is_put(self, store: ObjectStore) -> None:
        data = bytearray(b"before")
        store.put("object", data)
        store.put("parts", data, data)
        data[:] = b"behind"
        assert store.get("object") == b"before"
        assert store.get("parts") == b"beforebefore"

    def test_another_client_sees_it(self, store: ObjectStore, open_store: OpenStore) -> None:
        other = open_store()
        with pytest.raises(NotFound):
            other.get("object")
        store.put("object", b"1")
        assert other.get("object") == b"1"
        store.put("object", b"22")
        assert other.get("object") == b"22"
        store.delete("object")
        with pytest.raises(NotFound):
            other.get("object")

    def test_every_write_has_a_tag_of_its_own(self, store: ObjectStore) -> None:
        tags = [store.put("object", b"%03d" % number) for number in range(50)]
        assert len(set(tags)) == len(tags)
        assert store.get_versioned("object") == (b"049", tags[-1])

    def test_put_if_absent_creates_once(self, store: ObjectStore) -> None:
        tag = store.put_if_absent("claims/1", b"mine")
        with pytest.raises(AlreadyExists):
            store.put_if_absent("claims/1", b"theirs")
        assert store.get_versioned("claims/1") == (b"mine", tag)
        store.delete("claims/1")
        store.put_if_absent("claims/1", b"again")
        assert store.get("claims/1") == b"again"

    def test_compare_and_swap_wants_the_version_that_is_there(self, store: ObjectStore) -> None:
        first = store.put("object", b"1")
        second = store.compare_and_swap("object", b"2", first)
        with pytest.raises(Conflict):
            store.compare_and_swap("object", b"3", first)
        assert store.get_versioned("object") == (b"2", second)
        store.compare_and_swap("object", b"4", second)
        store.put("object", b"5")
        with pytest.raises(Conflict):
            store.compare_and_swap("object", b"6", second)
        assert store.get("object") == b"5"

    def test_compare_and_swap_of_nothing(self, store: ObjectStore) -> None:
        tag = store.put("object", b"1")
        store.delete("object")
        with pytest.raises(NotFound):
            store.compare_and_swap("object", b"2", tag)
        assert not store.exists("object")

    @pytest.mark.parametrize(
        ("start", "length", "expected"),
        [
            (0, None, b"0123456789"),
            (3, None, b"3456789"),
            (0, 4, b"0123"),
            (3, 4, b"3456"),
            (9, 1, b"9"),
            (3, 0, b""),
            (8, 5, b"89"),
            (0, 2**40, b"0123456789"),
            (10, 1, b""),
            (10, None, b""),
            (99, 7, b""),
        ],
    )
    def test_ranges(self, store: ObjectStore, start: int, length: int | None, expected: bytes) -> None:
        store.put("object", b"0123456789")
        assert store.get("object", start=start, length=length) == expected
        seen = store.view("object", start=start, length=length)
        assert seen.readonly
        assert seen == expected

    def test_a_view_begins_anywhere(self, store: ObjectStore) -> None:
        data = _pattern(200_000)
        store.put("object", data)
        for start in (0, 1, 4095, 4096, 4097, 70_001, 199_999):
            assert store.view("object", start=start) == data[start:]
            assert store.view("object", start=start, length=50_000) == data[start : start + 50_000]

    def test_ranges_of_an_empty_object(self, store: ObjectStore) -> None:
        store.put("object", b"")
        assert store.get("object", start=0, length=3) == b""
        assert store.get("object", start=3) == b""
        assert bytes(store.view("object")) == bytes(store.view("object", start=3, length=4)) == b""
        assert store.exists("object")

    @pytest.mark.parametrize(("start", "length"), [(-1, None), (0, -1)])
    def test_negative_ranges_are_refused(self, store: ObjectStore, start: int, length: int | None) -> None:
        store.put("object", b"0123")
        for read in (store.get, store.view):
            with pytest.raises(ValueError):
                read("object", start=start, length=length)

    def test_a_missing_object_is_not_found(self, store: ObjectStore) -> None:
        store.put("folder/object", b"1")
        for key in ("nothing", "folder", "folder/nothing", "other/nothing"):
            assert not store.exists(key)
            with pytest.raises(NotFound):
                store.get(key)
            with pytest.raises(NotFound):
                store.get(key, start=3, length=4)
            with pytest.raises(NotFound):
                store.get(key, length=0)
            with pytest.raises(NotFound):
                store.view(key, start=3, length=4)
            with pytest.raises(NotFound):
                store.get_versioned(key)
            with pytest.raises(NotFound):
                store.compare_and_swap(key, b"", "1")

    def test_deleting(self, store: ObjectStore) -> None:
        store.put("folder/a", b"1")
        store.put("folder/b", b"2")
        store.delete("folder/a")
        store.delete("folder/a")
        store.delete("folder")
        store.delete("nothing/at/all")
        assert not store.exists("folder/a")
        assert [info.key for info in store.list()] == ["folder/b"]

    def test_room_may_be_kept(self, store: ObjectStore, open_store: OpenStore) -> None:
        store.delete("nothing/at/all", keep_room=True)
        for size in (300_000, 100_000, 400_000, 7, 0, 200_000):
            store.put("object", _pattern(size))
            assert open_store().get("object") == _pattern(size)
            store.put("another", b"still", b" here")
            store.delete("object", keep_room=True)
            assert not store.exists("object")
            assert [(info.key, info.size) for info in store.list()] == [("another", 10)]
        assert open_store().get("another") == b"still here"

    def test_a_closed_client_can_be_used_again(self, store: ObjectStore) -> None:
        for number in range(3):
            store.put("object", _uniform(number))
            store.delete("object", keep_room=True)
            store.close()
            assert list(store.list()) == []
        store.close()
        store.put("object", b"1")
        assert store.get("object") == b"1"

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_bad_keys_are_refused(self, store: ObjectStore, key: str) -> None:
        calls: list[Callable[[], object]] = [
            lambda: store.put(key, b""),
            lambda: store.put_if_absent(key, b""),
            lambda: store.compare_and_swap(key, b"", "1"),
            lambda: store.get(key),
            lambda: store.view(key),
            lambda: store.get_versioned(key),
            lambda: store.exists(key),
            lambda: store.delete(key),
        ]
        for call in calls:
            with pytest.raises(ConfigError):
                call()
        assert list(store.list()) == []

    def test_odd_keys_stay_what_they_are(self, store: ObjectStore) -> None:
        for key in ODD_KEYS:
            store.put(key, key.encode())
        assert [info.key for info in store.list()] == sorted(ODD_KEYS)
        assert all(store.get(key) == key.encode() for key in ODD_KEYS)

    def test_get_verified(self, store: ObjectStore) -> None:
        store.put("object", b"right")
        assert store.get_verified("object", hashlib.sha256(b"right").hexdigest()) == b"right"
        with pytest.raises(CorruptObject):
            store.get_verified("object", hashlib.sha256(b"wrong").hexdigest())

    def test_a_listing_tells_key_size_and_version(self, store: ObjectStore) -> None:
        expected = [
            ObjectInfo(key, len(data), store.put(key, data))
            for key, data in (("a", b""), ("b/c", b"12"), ("d", b"345"))
        ]
        assert list(store.list()) == expected

    def test_a_listing_of_nothing(self, store: ObjectStore) -> None:
        assert list(store.list()) == []
        store.put("a/b", b"")
        assert list(store.list("c")) == []
        assert list(store.list("a/b/c")) == []

    def test_a_prefix_is_any_string(self, store: ObjectStore) -> None:
        for key in ("log/0001", "log/0002", "log/0010", "logs/0001", "lo", "m", "k"):
            store.put(key, b"")
        listed = {prefix: [info.key for info in store.list(prefix)] for prefix in ("log/000", "log/", "log", "lo", "l")}
        assert listed["log/000"] == ["log/0001", "log/0002"]
        assert listed["log/"] == ["log/0001", "log/0002", "log/0010"]
        assert listed["log"] == [*listed["log/"], "logs/0001"]
        assert listed["lo"] == listed["l"] == ["lo", *listed["log"]]
        assert [info.key for info in store.list("log/0001")] == ["log/0001"]

    def test_a_listing_is_in_the_order_of_whole_keys(self, store: ObjectStore) -> None:
        keys = ["B", "a-b", "a/b-c/d", "a/b/c", "a/b0", "a0/1", "b/1-", "b/1/2/3"]
        for key in reversed(keys):
            store.put(key, b"")
        assert [info.key for info in store.list()] == keys

    def test_a_listing_goes_beyond_a_page(self, store: ObjectStore) -> None:
        keys = [f"many/{number:04}" for number in range(1234)]
        run_threads(_put_all, [(store, keys[start::8]) for start in range(8)])
        store.put("another", b"")
        assert [info.key for info in store.list("many/")] == keys
        assert [info.key for info in store.list("many/1")] == keys[1000:]

    @pytest.mark.parametrize("prefix", ["/", "/a", "../", "a//b", "a/../b"])
    def test_a_prefix_stays_inside_the_store(self, store: ObjectStore, prefix: str) -> None:
        with pytest.raises(ConfigError):
            list(store.list(prefix))

    def test_what_was_refused_leaves_nothing(self, store: ObjectStore) -> None:
        tag = store.put("a", b"1")
        store.put("a", b"2")
        with pytest.raises(Conflict):
            store.compare_and_swap("a", b"3", tag)
        with pytest.raises(AlreadyExists):
            store.put_if_absent("a", b"3")
        assert [(info.key, info.size) for info in store.list()] == [("a", 1)]

    def test_one_of_several_threads_creates(self, store: ObjectStore) -> None:
        _check_claims(run_threads(_claim, [(store, member) for member in range(MEMBERS)]), store)

    def test_no_swap_of_several_threads_is_lost(self, store: ObjectStore) -> None:
        store.put("counter", b"0")
        run_threads(_count_up, [(store, 25)] * MEMBERS)
        assert store.get("counter") == b"100"

    def test_threads_see_whole_values(self, store: ObjectStore) -> None:
        store.put("object", _uniform(0))
        written, *torn = run_threads(_write_or_read, [(store, True), (store, False), (store, False)])
        assert written == torn[0] == torn[1] == []


class ObjectStoreContract(LocalObjectStoreContract):
    """All of the contract, between processes too."""

    @pytest.fixture(scope="class")
    @classmethod
    def team(cls) -> Iterator[Team]:
        """Processes that share the store."""
        with Team(MEMBERS) as team:
            yield team

    def test_other_processes_see_it(self, store: ObjectStore, open_store: OpenStore, team: Team) -> None:
        for data in (b"1", b"22"):
            tag = store.put("object", data)
            assert team.run(_read_elsewhere, [(open_store,)] * 2) == [(data, tag)] * 2

    def test_one_of_several_processes_creates(self, store: ObjectStore, open_store: OpenStore, team: Team) -> None:
        _check_claims(team.run(_claim_elsewhere, [(open_store, member) for member in range(MEMBERS)]), store)

    def test_no_swap_of_several_processes_is_lost(self, store: ObjectStore, open_store: OpenStore, team: Team) -> None:
        store.put("counter", b"0")
        team.run(_count_up_elsewhere, [(open_store, 25)] * MEMBERS)
        assert store.get("counter") == b"100"

    def test_processes_see_whole_values(self, store: ObjectStore, open_store: OpenStore, team: Team) -> None:
        store.put("object", _uniform(0))
        assert team.run(_write_or_read_elsewhere, [(open_store, True), (open_store, False), (open_store, False)]) == [
            [],
            [],
            [],
        ]


def _put_all(store: ObjectStore, keys: list[str]) -> None:
    for key in keys:
        store.put(key, b"")


def _claim(store: ObjectStore, member: int) -> list[int]:
    """The numbers of the claims that this member won."""
    won = []
    for number in range(40):
        try:
            store.put_if_absent(f"claims/{number}", b"%d" % member)
        except AlreadyExists:
            continue
        won.append(number)
    return won


def _check_claims(won: list[list[int]], store: ObjectStore) -> None:
    assert sorted(number for numbers in won for number in numbers) == list(range(40))
    for member, numbers in enumerate(won):
        assert all(store.get(f"claims/{number}") == b"%d" % member for number in numbers)


def _count_up(store: ObjectStore, times: int) -> None:
    while times:
        data, tag = store.get_versioned("counter")
        try:
            store.compare_and_swap("counter", b"%d" % (int(data) + 1), tag)
        except Conflict:
            continue
        times -= 1


def _uniform(number: int) -> bytes:
    return bytes([number % 256]) * (300_000 + 7 * (number % 3))


def _write_or_read(store: ObjectStore, writes: bool) -> list[int]:
    """The lengths of values that were read and are no whole value of the writer's, nor none where one is."""
    torn = []
    for number in range(60):
        if writes:
            store.put("object", _uniform(number))
            store.put("fleeting", _uniform(number + 1))
            store.delete("fleeting", keep_room=number % 4 > 0)
            continue
        for key in ("object", "fleeting"):
            try:
                found = store.get(key)
            except NotFound:
                if key == "object":
                    torn.append(0)
                continue
            if found != bytes([found[0]]) * (300_000 + 7 * (found[0] % 3)):
                torn.append(len(found))
    store.close()
    return torn


def _read_elsewhere(open_store: OpenStore) -> tuple[bytes, str]:
    return open_store().get_versioned("object")


def _claim_elsewhere(open_store: OpenStore, member: int) -> list[int]:
    return _claim(open_store(), member)


def _count_up_elsewhere(open_store: OpenStore, times: int) -> None:
    _count_up(open_store(), times)


def _write_or_read_elsewhere(open_store: OpenStore, writes: bool) -> list[int]:
    return _write_or_read(open_store(), writes)
