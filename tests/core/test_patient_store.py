"""A store that outlasts outages: with a clock and a store that the test commands, no seconds pass."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlt.core.errors import AccessDenied, AlreadyExists, Conflict, NotFound, StorageError
from smlt.core.patient_store import DENIED_S, PatientStore
from smlt.testing import ObjectStoreContract
from tests.support.clocks import FakeClock
from tests.support.faulty_store import FaultyStore
from tests.support.stores import DictStore

Request = Callable[[PatientStore], object]

REQUESTS: dict[str, Request] = {
    "put": lambda store: store.put("key", b"new"),
    "put in parts": lambda store: store.put("key", b"n", b"ew"),
    "put_if_absent": lambda store: store.put_if_absent("absent", b"new"),
    "get": lambda store: store.get("key"),
    "view": lambda store: bytes(store.view("key", start=1)),
    "get_versioned": lambda store: store.get_versioned("key"),
    "list": lambda store: list(store.list()),
    "delete": lambda store: store.delete("key"),
    "exists": lambda store: store.exists("key"),
    "persist": lambda store: store.persist(lambda: store._store.get("key")),
}


class Scene:
    """A store with one object, and patience of 60 s with it."""

    def __init__(self, **fields: object) -> None:
        self.inner, self.clock = DictStore(), FakeClock()
        self.inner.put("key", b"old")
        self.store = PatientStore(
            self.inner,
            **{
                "patience_s": 60.0,
                "clock": self.clock,
                "sleep": self.clock.sleep,
                "random": Random(1).random,
                **fields,
            },
        )
        self.tries = 0

    def fail(self, error: StorageError, *, until_s: float = float("inf"), after: bool = False) -> None:
        """Each request fails, before or after it takes effect, until so many seconds have passed."""

        def hook(operation: str, key: str) -> None:
            self.tries += 1
            if self.clock.now < until_s:
                raise error

        if after:
            self.inner.after = hook
        else:
            self.inner.before = hook


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_a_request_outlasts_an_outage(request_: Request) -> None:
    undisturbed = request_(Scene().store)
    scene = Scene()
    scene.fail(StorageError("503"), until_s=50.0)
    assert request_(scene.store) == undisturbed
    assert 50.0 <= scene.clock.now <= 55.0


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_patience_ends(request_: Request) -> None:
    scene = Scene()
    scene.fail(StorageError("503"))
    with pytest.raises(StorageError, match="503"):
        request_(scene.store)
    assert 55.0 <= scene.clock.now <= 60.0
    assert scene.tries < 60


def test_access_that_is_denied_is_tried_again_for_a_short_while() -> None:
    scene = Scene()
    scene.fail(AccessDenied("403"))
    with pytest.raises(AccessDenied):
        scene.store.get("key")
    assert DENIED_S / 2 <= scene.clock.now <= DENIED_S
    scene = Scene()
    scene.fail(AccessDenied("403"), until_s=2.0)
    assert scene.store.get("key") == b"old"


def test_who_is_not_waited_for_gives_up() -> None:
    scene = Scene(is_over=lambda: scene.clock.now >= 7.0)
    scene.fail(StorageError("503"))
    with pytest.raises(StorageError):
        scene.store.get("key")
    assert 7.0 <= scene.clock.now <= 12.0


def test_waits_grow_to_the_longest_and_are_random() -> None:
    waits: list[float] = []
    for seed in (1, 2):
        scene = Scene(random=Random(seed).random, longest_s=2.0)
        scene.store._sleep = lambda seconds, scene=scene: (waits.append(seconds), scene.clock.advance(seconds))
        scene.fail(StorageError("503"), until_s=20.0)
        scene.store.get("key")
    assert 0.025 <= waits[0] <= 0.05
    assert 1.0 <= max(waits) <= 2.0
    assert len(set(waits)) == len(waits)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (lambda store: store.get("absent"), NotFound),
        (lambda store: store.get_versioned("absent"), NotFound),
        (lambda store: store.put_if_absent("key", b"new"), AlreadyExists),
        (lambda store: store.put_if_absent("key", b"old"), AlreadyExists),
        (lambda store: store.compare_and_swap("key", b"new", "99"), Conflict),
        (lambda store: store.compare_and_swap("key", b"old", "99"), Conflict),
        (lambda store: store.compare_and_swap("absent", b"new", "1"), NotFound),
    ],
)
def test_an_answer_is_told_at_once(request_: Request, error: type[StorageError]) -> None:
    scene = Scene()
    with pytest.raises(error):
        request_(scene.store)
    assert scene.clock.now == 0.0


def test_a_write_that_took_effect_before_it_failed_is_not_taken_for_another_s() -> None:
    scene = Scene()
    scene.fail(StorageError("timeout"), until_s=0.01, after=True)
    version = scene.store.put_if_absent("absent", b"mine")
    assert scene.inner.get_versioned("absent") == (b"mine", version)
    scene.fail(StorageError("timeout"), until_s=scene.clock.now + 0.01, after=True)
    version = scene.store.compare_and_swap("absent", b"mine again", version)
    assert scene.inner.get_versioned("absent") == (b"mine again", version)


@pytest.mark.parametrize(
    ("key", "request_", "error"),
    [
        ("absent", lambda store, version: store.put_if_absent("absent", b"mine"), AlreadyExists),
        ("key", lambda store, version: store.compare_and_swap("key", b"mine", version), Conflict),
    ],
)
def test_a_write_that_failed_is_refused_where_another_one_was_faster(
    key: str, request_: Callable[[PatientStore, str], object], error: type[StorageError]
) -> None:
    scene = Scene()
    version = scene.inner.get_versioned("key")[1]
    scene.fail(StorageError("timeout"), until_s=0.01)
    scene.clock.on_sleep = lambda: scene.inner._write(key, b"theirs")
    with pytest.raises(error):
        request_(scene.store, version)
    assert scene.inner.objects[key] == b"theirs"


def test_a_listing_that_breaks_off_goes_on_where_it_was() -> None:
    scene = Scene()
    for number in range(20):
        scene.inner.put(f"many/{number:02}", b"")
    faulty = FaultyStore(scene.inner, Random(3), rate=0.0)
    faulty.breaks_off_after = 7
    store = PatientStore(faulty, clock=scene.clock, sleep=scene.clock.sleep)
    assert [info.key for info in store.list("many/")] == [f"many/{number:02}" for number in range(20)]


@given(st.integers(0, 2**32), st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), max_size=30))
def test_among_faults_the_store_keeps_its_promises(seed: int, history: list[tuple[str, int]]) -> None:
    """What a model of the store says is what comes out, whatever fails on the way."""
    inner, clock = DictStore(), FakeClock()
    store = PatientStore(
        FaultyStore(inner, Random(seed), rate=0.4), clock=clock, sleep=clock.sleep, random=Random(seed).random
    )
    model: dict[str, bytes] = {}
    for number, (key, what) in enumerate(history):
        data = f"{number}".encode()
        if what == 0:
            store.put(key, data)
            model[key] = data
        elif what == 1:
            try:
                store.put_if_absent(key, data)
                assert key not in model
                model[key] = data
            except AlreadyExists:
                assert key in model
        elif what == 2 and key in model:
            assert store.compare_and_swap(key, data, inner.get_versioned(key)[1]) == inner.get_versioned(key)[1]
            model[key] = data
        else:
            store.delete(key)
            model.pop(key, None)
        assert {info.key: store.get(info.key) for info in store.list()} == model


class TestContract(ObjectStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path):
        from smlt.backends.file_store import FileObjectStore
        from smlt.core.storage import StoreSpec

        spec = StoreSpec("file", (tmp_path / "store").as_uri())
        return _Opening(spec, FileObjectStore)


class _Opening:
    """Opens the store in whatever process."""

    def __init__(self, spec, kind) -> None:
        self.spec, self.kind = spec, kind

    def __call__(self) -> PatientStore:
        return PatientStore(self.kind(self.spec), patience_s=0.0)
