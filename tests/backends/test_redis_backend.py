"""The local backend offers a Redis server as a channel; what it is told of it keeps no password."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from smlt.backends.channels.redis_address import RedisAddress, RedisPlace, addresses_of
from smlt.backends.local.backend import LocalBackend, LocalOptions
from smlt.core.backend import RunPlace
from smlt.core.errors import ConfigError
from smlt.core.layers import read_layers
from smlt.core.plugins import load_registry
from smlt.core.settings import resolve
from smlt.core.storage import ChannelSpec
from smlt.testing.channel import PATIENCE_S, key_of
from tests.support.engines import Runs
from tests.support.places import fresh_folder
from tests.support.valkey import HOST, Valkey, free_port, valkey

SECRET = "xyzzy-4711"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey(tmp_path_factory.mktemp("valkey"), "--requirepass", SECRET) as server:
        yield server


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", SECRET)


@pytest.fixture
def place(tmp_path: Path) -> RunPlace:
    return RunPlace("digits", tmp_path / "runs")


def backend_with(**options: Any) -> LocalBackend:
    return LocalBackend("local", LocalOptions.model_validate(options))


def keys_in(server: Valkey) -> object:
    return server.ask("DBSIZE", password=SECRET)


# Whole runs


def test_a_run_over_redis_learns_the_same_and_leaves_neither_keys_nor_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Valkey
) -> None:
    runs = Runs(fresh_folder(tmp_path, monkeypatch))
    backend = {"name": "local", "redis_url": server.url, "redis_password_from": "REDIS_PASSWORD"}
    over_redis = runs.train(job={"name": "wired"}, backend=backend, sync={"channel": "redis"}, workers={"count": 3})
    in_memory = runs.train(job={"name": "shared"}, workers={"count": 3})
    assert (over_redis.status, over_redis.error) == ("succeeded", {})
    assert over_redis.weights_sha256 == in_memory.weights_sha256
    assert over_redis.state_sha256 == in_memory.state_sha256
    assert keys_in(server) == 0
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 20
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]


# What is offered


def test_redis_is_offered_where_a_server_is_named(place: RunPlace) -> None:
    assert "redis" not in backend_with().channels(place)
    backend = backend_with(redis_url="redis://worker@cache:6380/2", redis_password_from="REDIS_PASSWORD")
    assert backend.channel("auto", place)[0] == "shared_memory"
    name, spec = backend.channel("redis", place)
    assert (name, spec.kind, spec.url) == ("redis", "redis", "redis://worker@cache:6380/2")
    assert spec.options["password_from"] == "REDIS_PASSWORD"
    assert SECRET not in repr(spec)
    assert RedisPlace.of(spec).password == SECRET
    assert SECRET not in repr(RedisPlace.of(spec))


def test_runs_do_not_meet(tmp_path: Path) -> None:
    backend = backend_with(redis_url="redis://cache")
    places = [RunPlace(run, tmp_path / folder) for run in ("a", "b") for folder in ("1", "2")]
    assert len({str(backend.channel("redis", place)[1]) for place in places}) == 4


def test_certificates_travel_in_the_spec(tmp_path: Path, place: RunPlace) -> None:
    (tmp_path / "ca.pem").write_text("certificates")
    backend = backend_with(redis_url="rediss://cache", redis_ca_file=str(tmp_path / "ca.pem"))
    assert backend.channel("redis", place)[1].options["ca_pem"] == "certificates"
    with pytest.raises(ConfigError, match="cannot be read"):
        backend_with(redis_url="rediss://cache", redis_ca_file=str(tmp_path / "none.pem")).channels(place)


def test_a_password_in_the_url_is_refused_and_not_repeated(tmp_path: Path) -> None:
    url = f"redis://worker:{SECRET}@cache:6379"
    with pytest.raises(ValidationError) as caught:
        backend_with(redis_url=url)
    assert SECRET not in str(caught.value)
    layers = read_layers(cwd=tmp_path, env={}, keyed={"backend.redis_url": url})
    with pytest.raises(ConfigError, match="redis_url") as told:
        resolve(layers, load_registry(), task_required=False)
    assert "environment variable" in str(told.value)
    assert SECRET not in str(told.value)


# Checking and cleaning


def test_check_says_whether_the_server_answers(server: Valkey) -> None:
    def result(**options: str) -> Any:
        return next(item for item in backend_with(**options).check() if item.name == "redis")

    assert result(redis_url=server.url, redis_password_from="REDIS_PASSWORD").status == "pass"
    locked = result(redis_url=server.url)
    assert (locked.status, "NOAUTH" in locked.detail) == ("fail", True)
    assert locked.mend
    assert result(redis_url=f"redis://{HOST}:{free_port()}").status == "fail"
    assert "redis" not in [item.name for item in backend_with().check()]


def test_cleaning_removes_keys_and_needs_no_server(server: Valkey, place: RunPlace) -> None:
    backend = backend_with(redis_url=server.url, redis_password_from="REDIS_PASSWORD")
    spec = backend.channel("redis", place)[1]
    with load_registry().open_channel(spec, generation=0, round_number=0, rank=0) as channel:
        for step in range(3000):
            channel.put(key_of(0, step), [b"1"])
        assert channel.get(key_of(0, 2999), timeout_s=PATIENCE_S) == b"1"
    assert len(backend.clean(place)) == 6000
    assert list(backend.clean(place)) == []
    assert keys_in(server) == 0
    assert list(backend_with(redis_url=f"redis://{HOST}:{free_port()}").clean(place)) == []


# Addresses


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", RedisAddress("cache", 6379)),
        ("redis://cache:7000/3", RedisAddress("cache", 7000, database=3)),
        ("rediss://us%40er@cache.example", RedisAddress("cache.example", 6379, tls=True, user="us@er")),
        ("redis://[::1]:6380", RedisAddress("::1", 6380)),
        ("unix:///run/redis.sock", RedisAddress("", 0, "/run/redis.sock")),
        ("unix:///run/redis%20server.sock?db=4", RedisAddress("", 0, "/run/redis server.sock", database=4)),
    ],
)
def test_addresses(url: str, expected: RedisAddress) -> None:
    assert RedisAddress.parse(url) == expected
    assert addresses_of(f"redis://first, {url}") == (RedisAddress("first", 6379), expected)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cache:6379",
        "http://cache",
        "redis://",
        "redis://cache:port",
        "redis://cache:99999",
        "redis://cache/one",
        "unix://run/redis.sock",
        "unix:///run/redis.sock?db=x",
        "redis://first,",
    ],
)
def test_no_addresses(url: str) -> None:
    with pytest.raises(ConfigError, match="not the URL of a Redis server") as caught:
        addresses_of(url)
    assert "redis://host:6379" in caught.value.hint


@pytest.mark.parametrize("ttl_s", [0, -1, 1.5, "600", True])
def test_a_time_to_live_is_whole_seconds(ttl_s: object) -> None:
    with pytest.raises(ConfigError, match="ttl_s"):
        RedisPlace.of(ChannelSpec("redis", "redis://cache", {"ttl_s": ttl_s}))
