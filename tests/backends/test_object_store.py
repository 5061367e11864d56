"""The object stores keep the contract; and what only a folder has to see to."""

import errno
import fcntl
import functools
import os
import signal
import uuid
from pathlib import Path

import pytest

from smlt.backends.file_staging import MOST_SPARES
from smlt.backends.file_store import UNLISTED
from smlt.backends.object_store import FileObjectStore, MemoryObjectStore
from smlt.core.errors import ConfigError, Conflict, NotFound, StorageError
from smlt.core.storage import ObjectStore, StoreSpec
from smlt.testing.object_store import LocalObjectStoreContract, ObjectStoreContract, OpenStore
from smlt.testing.team import Team

ROOM = bytes(range(250)) * 500


class TestMemory(LocalObjectStoreContract):
    @pytest.fixture
    def open_store(self) -> OpenStore:
        return functools.partial(MemoryObjectStore, StoreSpec("memory", f"memory://{uuid.uuid4()}"))

    def test_another_url_is_another_store(self, store: ObjectStore) -> None:
        store.put("object", b"1")
        assert not MemoryObjectStore(StoreSpec("memory", f"memory://{uuid.uuid4()}")).exists("object")


class TestFolder(ObjectStoreContract):
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "with blank" / "runs"

    @pytest.fixture
    def open_store(self, folder: Path) -> OpenStore:
        return functools.partial(FileObjectStore, StoreSpec("file", folder.as_uri()))

    def test_reading_makes_no_folder(self, store: ObjectStore, folder: Path) -> None:
        assert not store.exists("object")
        assert list(store.list()) == []
        store.delete("object")
        assert not folder.exists()

    def test_an_object_is_a_file_under_its_key(self, store: ObjectStore, folder: Path) -> None:
        store.put("a/b c.txt", b"1")
        assert (folder / "a" / "b c.txt").read_bytes() == b"1"

    def test_deleting_leaves_no_empty_folders(self, store: ObjectStore, folder: Path) -> None:
        store.put("a/b/c", b"1")
        store.put("a/d", b"1")
        store.delete("a/b/c")
        assert sorted(path.name for path in (folder / "a").iterdir()) == ["d"]
        store.delete("a/d")
        assert [path.name for path in folder.iterdir()] == [UNLISTED]

    def test_tags_differ_when_clock_size_and_bytes_do_not(self, folder: Path) -> None:
        store = FileObjectStore(StoreSpec("file", folder.as_uri()), clock_ns=lambda: 10**18)
        tags = [store.put("object", b"same") for _ in range(20)]
        assert len(set(tags)) == 20
        with pytest.raises(Conflict):
            store.compare_and_swap("object", b"same", tags[0])

    def test_a_key_of_its_own_folder_is_refused(self, store: ObjectStore) -> None:
        store.put("a", b"1")
        with pytest.raises(ConfigError):
            store.get(f"{UNLISTED}/lock-00")

    @pytest.mark.parametrize("url", ["/tmp/x", "s3://bucket/x", "file://host/x", "file:x", ""])
    def test_other_urls_are_refused(self, url: str) -> None:
        with pytest.raises(ConfigError, match="URL of a folder"):
            FileObjectStore(StoreSpec("file", url))

    def test_a_writer_that_dies_leaves_nothing(
        self, store: ObjectStore, open_store: OpenStore, folder: Path, team: Team
    ) -> None:
        store.put("object", b"old")
        for key in ("object", "fresh"):
            team.start(_die_before_the_rename, open_store, key, member=0)
            with pytest.raises(EOFError):
                team.result(0)
        assert [(info.key, info.size) for info in store.list()] == [("object", 3)]
        assert store.get("object") == b"old"
        assert len(list((folder / UNLISTED).glob("staged-*"))) == 1  # the second swept what the first had left
        open_store().put("object", b"new")
        assert list((folder / UNLISTED).glob("staged-*")) == []

    def test_a_write_under_way_is_not_swept(
        self, store: ObjectStore, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replace = Path.replace

        def put_another_first(path: Path, target: Path) -> Path:
            monkeypatch.setattr(Path, "replace", replace)
            open_store().put("other", b"1")  # a new client sweeps at its first write
            return replace(path, target)

        monkeypatch.setattr(Path, "replace", put_another_first)
        store.put("object", b"2")
        assert [(info.key, info.size) for info in store.list()] == [("object", 1), ("other", 1)]

    def test_a_write_survives_a_sweep_that_comes_before_its_lock(
        self, store: ObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flock = fcntl.flock

        def sweep_first(file: object, operation: int) -> None:
            monkeypatch.setattr(fcntl, "flock", flock)
            (staged,) = (folder / UNLISTED).glob("staged-*")
            staged.unlink()
            flock(file, operation)

        monkeypatch.setattr(fcntl, "flock", sweep_first)
        store.put("object", b"1")
        assert store.get("object") == b"1"

    @pytest.mark.parametrize(
        ("number", "hint"),
        [
            (errno.ENOSPC, "disk is full"),
            (errno.EDQUOT, "disk is full"),
            (errno.EACCES, "--runs-dir"),
            (errno.EROFS, "--runs-dir"),
            (errno.ENOENT, "--runs-dir"),
        ],
    )
    def test_the_medium_fails(
        self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, number: int, hint: str
    ) -> None:
        store.put("object", b"old")

        def fail(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(Path, "replace", fail)
        with pytest.raises(StorageError, match=hint):
            store.put("object", b"new")
        monkeypatch.undo()
        assert store.get("object") == b"old"
        assert [info.key for info in store.list()] == ["object"]

    def test_room_that_is_kept_is_used_again(self, store: ObjectStore, folder: Path) -> None:
        store.put("a", ROOM)
        store.put("large", 2 * ROOM)
        files = {(folder / key).stat().st_ino for key in ("a", "large")}
        for key in ("a", "large"):
            store.delete(key, keep_room=True)
        tags = {store.put("b", ROOM[:-7]), store.put("c", 2 * ROOM + b"more")}
        assert {(folder / key).stat().st_ino for key in ("b", "c")} == files
        assert (store.get("b"), store.get("c")) == (ROOM[:-7], 2 * ROOM + b"more")
        assert len(tags) == 2

    def test_room_that_somebody_looks_at_is_not_used_again(
        self, store: ObjectStore, open_store: OpenStore, folder: Path
    ) -> None:
        store.put("a", ROOM)
        file = (folder / "a").stat().st_ino
        seen = open_store().view("a", start=5, length=70_000)
        part = seen[:10]
        del seen
        store.delete("a", keep_room=True)
        store.put("b", b"x" * len(ROOM))
        assert part == ROOM[5:15]
        assert (folder / "b").stat().st_ino != file

    @pytest.mark.parametrize("next_key", ["a", "b"])
    def test_room_that_is_used_again_before_its_reader_locks_it(
        self, store: ObjectStore, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, next_key: str
    ) -> None:
        store.put("a", ROOM)
        flock = fcntl.flock

        def use_again_first(file: object, operation: int) -> None:
            monkeypatch.setattr(fcntl, "flock", flock)
            store.delete("a", keep_room=True)
            store.put(next_key, 2 * ROOM)
            flock(file, operation)

        reader = open_store()
        monkeypatch.setattr(fcntl, "flock", use_again_first)
        if next_key == "a":
            assert reader.get("a") == 2 * ROOM
        else:
            with pytest.raises(NotFound):
                reader.get("a")

    def test_a_reader_does_not_wait_for_room_that_is_kept(
        self, store: ObjectStore, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.put("a", ROOM)
        flock = fcntl.flock

        def delete_first(file: object, operation: int) -> None:
            monkeypatch.setattr(fcntl, "flock", flock)
            store.delete("a", keep_room=True)
            flock(file, operation)

        reader = open_store()
        monkeypatch.setattr(fcntl, "flock", delete_first)
        with pytest.raises(NotFound):
            reader.get("a")

    def test_a_file_with_another_name_is_not_used_again(self, store: ObjectStore, folder: Path) -> None:
        store.put("a", ROOM)
        (folder / "copy").hardlink_to(folder / "a")
        store.delete("a", keep_room=True)
        store.put("b", 2 * ROOM)
        assert store.get("copy") == ROOM

    def test_little_room_is_kept_and_only_until_the_end(
        self, store: ObjectStore, open_store: OpenStore, folder: Path
    ) -> None:
        for number in range(2 * MOST_SPARES):
            store.put(f"{number}", ROOM)
            store.put(f"small/{number}", b"1")
        for number in range(2 * MOST_SPARES):
            store.delete(f"small/{number}", keep_room=True)
            store.delete(f"{number}", keep_room=True)
        open_store().put("other", b"1")  # a new client sweeps at its first write
        assert len(list((folder / UNLISTED).glob("staged-*"))) == MOST_SPARES
        store.close()
        assert list((folder / UNLISTED).glob("staged-*")) == []

    def test_room_that_a_dead_process_kept_is_swept(
        self, store: ObjectStore, open_store: OpenStore, folder: Path, team: Team
    ) -> None:
        team.start(_keep_room_and_die, open_store, member=0)
        with pytest.raises(EOFError):
            team.result(0)
        assert len(list((folder / UNLISTED).glob("staged-*"))) == 1
        store.put("b", b"1")
        assert list((folder / UNLISTED).glob("staged-*")) == []

    def test_a_file_in_the_way_of_the_folder(self, store: ObjectStore, folder: Path) -> None:
        folder.parent.mkdir()
        folder.write_bytes(b"")
        assert not store.exists("a")
        with pytest.raises(StorageError, match="in the way"):
            store.put("a", b"1")

    def test_an_object_is_no_folder(self, store: ObjectStore) -> None:
        store.put("a/b", b"1")
        for key in ("a", "a/b/c"):
            with pytest.raises(StorageError, match="in the way"):
                store.put(key, b"1")
        assert [info.key for info in store.list()] == ["a/b"]

    def test_a_name_too_long_for_a_file(self, store: ObjectStore) -> None:
        with pytest.raises(StorageError, match="255"):
            store.put("x" * 300, b"1")


def _keep_room_and_die(open_store: OpenStore) -> None:
    store = open_store()
    store.put("a", ROOM)
    store.delete("a", keep_room=True)
    os.kill(os.getpid(), signal.SIGKILL)


def _die_before_the_rename(open_store: OpenStore, key: str) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    Path.replace = die  # type: ignore[method-assign,assignment]
    open_store().put(key, b"half written")
