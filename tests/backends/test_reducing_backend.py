"""The local backend offers a reducing store as a channel: one of the run's own, or one that runs already."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from smlt.backends.channels import reducing_service
from smlt.backends.channels.reducing import ReducingChannel, probe
from smlt.backends.local.backend import LocalBackend, LocalOptions
from smlt.core.backend import RunPlace
from smlt.core.errors import ChannelError
from smlt.testing.channel import PATIENCE_S, key_of
from tests.support.engines import Runs, nothing_left
from tests.support.places import fresh_folder
from tests.support.reducing import TOKEN, ServedStore, served_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStore]:
    with served_store(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture
def place(tmp_path: Path) -> RunPlace:
    return RunPlace("digits", tmp_path / "runs")


def backend_with(**options: Any) -> LocalBackend:
    return LocalBackend("local", LocalOptions.model_validate(options))


def at(store: ServedStore) -> dict[str, str]:
    return {"reducing_url": store.url, "reducing_token_file": str(store.token_file)}


# Whole runs


def test_runs_with_a_store_of_their_own_and_with_another_learn_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: ServedStore
) -> None:
    runs = Runs(fresh_folder(tmp_path, monkeypatch))
    sync = {"channel": "reducing"}
    with nothing_left(runs):
        own = runs.train(job={"name": "own"}, sync=sync, workers={"count": 3})
    backend = {"name": "local", **at(store)}
    other = runs.train(job={"name": "other"}, backend=backend, sync=sync, workers={"count": 3})
    in_memory = runs.train(job={"name": "shared"}, workers={"count": 3})
    assert (own.status, other.status, in_memory.status) == ("succeeded",) * 3
    assert own.weights_sha256 == other.weights_sha256 == in_memory.weights_sha256
    assert own.state_sha256 == other.state_sha256 == in_memory.state_sha256
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 20
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    assert not reducing_service.folder_for(RunPlace("own", runs.runs_dir)).exists()


def test_a_run_whose_store_is_killed_goes_on_with_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(fresh_folder(tmp_path, monkeypatch))
    killed: list[psutil.Process] = []

    def kill(event: Any) -> None:
        if event.kind == "steps" and event.data["items"][-1]["step"] >= 5 * (1 + len(killed)) and len(killed) < 2:
            killed.append(next(item for item in psutil.Process().children() if is_store(item)))
            killed[-1].kill()

    def is_store(process: psutil.Process) -> bool:
        words = process.cmdline()
        return reducing_service.SERVER in words and str(runs.runs_dir) in " ".join(words)

    job = {"epochs": 20, "params": {"slow_s": 0.02}}
    with nothing_left(runs):
        summary = runs.train(job={"name": "killed", **job}, sync={"channel": "reducing"}, on=kill)
    undisturbed = runs.train(job={"name": "undisturbed", **job})
    assert (summary.status, summary.replacements, len(killed)) == ("succeeded", 0, 2)
    assert summary.state_sha256 == undisturbed.state_sha256


# The run's own store


def test_a_store_is_there_while_it_is_served(place: RunPlace) -> None:
    spec = backend_with().channel("reducing", place)[1]
    with backend_with().serving("reducing", place):
        assert probe(spec).clients == 2  # one attends until the workers come, so that it is never idle
        with ReducingChannel(spec, 0, 0, 0) as channel:
            channel.put(key_of(0), [b"1"])
    with pytest.raises(ChannelError, match="is lost"):
        probe(spec)
    backend_with().clean(place)
    with pytest.raises(ChannelError, match="left its address"):
        probe(spec)


def test_nobody_else_can_read_its_token(place: RunPlace) -> None:
    with backend_with().serving("reducing", place):
        token = reducing_service.folder_for(place) / "token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert len(token.read_text()) == 64


def test_a_second_driver_takes_over_with_a_store_of_its_own(place: RunPlace) -> None:
    spec = backend_with().channel("reducing", place)[1]
    with backend_with().serving("reducing", place), ReducingChannel(spec, 0, 0, 0) as old:
        old.put(key_of(0), [b"old"])
        with backend_with().serving("reducing", place), ReducingChannel(spec, 1, 0, 0) as new:
            with pytest.raises(ChannelError):
                new.get(key_of(0), timeout_s=0)
            assert old.get(key_of(0), timeout_s=PATIENCE_S) == b"old"


def test_a_store_that_cannot_start_says_where_to_look(place: RunPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reducing_service, "SERVER", "smlt.no_such_module")
    with pytest.raises(ChannelError, match="does not start") as caught, backend_with().serving("reducing", place):
        pass
    log = Path(caught.value.hint.removeprefix("see "))
    assert "no_such_module" in log.read_text()


def test_other_channels_need_no_store(place: RunPlace, store: ServedStore) -> None:
    for backend, channel in ((backend_with(), "shared_memory"), (backend_with(**at(store)), "reducing")):
        with backend.serving(channel, place):
            assert not place.runs_dir.exists()


# What is offered


def test_runs_do_not_meet_in_one_store(tmp_path: Path, store: ServedStore) -> None:
    backend = backend_with(**at(store))
    places = [RunPlace(run, tmp_path / folder) for run in ("a", "b") for folder in ("1", "2")]
    for place in places:
        with ReducingChannel(backend.channel("reducing", place)[1], 0, 0, 0) as channel:
            channel.put(key_of(0), [b"would be written already"])


@pytest.mark.parametrize("url", ["somewhere", "tcp://host", "host:99999", "http://host:80/x", "unix:"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="not an address"):
        backend_with(reducing_url=url)


def test_check_says_whether_the_store_answers(tmp_path: Path, store: ServedStore) -> None:
    def result(**options: str) -> Any:
        return next(item for item in backend_with(**options).check() if item.name == "reducing store")

    assert result(**at(store)).status == "pass"
    (tmp_path / "wrong").write_text("another")
    for wrong in (
        result(reducing_url=store.url, reducing_token_file=str(tmp_path / "wrong")),
        result(reducing_url=store.url, reducing_token_file=str(tmp_path / "none")),
        result(reducing_url=f"unix:{tmp_path}/none"),
    ):
        assert wrong.status == "fail"
        assert wrong.mend
    assert "reducing store" not in [item.name for item in backend_with().check()]
    assert TOKEN not in repr(backend_with(**at(store)).channel("reducing", RunPlace("a", tmp_path)))
