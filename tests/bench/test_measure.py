"""Real ranks over real servers, with tiny vectors: sums, counts, and what is in a report."""

from __future__ import annotations

from pathlib import Path

import pytest

from smlt.bench.chart import check_chart, draw_chart
from smlt.bench.measure import measure
from smlt.bench.plan import plan_for
from smlt.bench.report import Report
from smlt.bench.request import PEERS, parse
from smlt.bench.servers import offered_channels
from smlt.core.errors import ChannelError, ConfigError, StorageError
from smlt.core.plugins import load_registry
from tests.support.valkey import Valkey, valkey

ELEMENTS = 5000
MEGABYTES = ELEMENTS * 4 / 1e6


def run(**asked: str) -> Report:
    registry = load_registry()
    offered = offered_channels(registry)
    request = parse(offered, **{"rounds": "2", "megabytes": str(MEGABYTES), "workers": "2", **asked})
    return measure(request, plan_for(request, offered), registry)


@pytest.fixture
def server(tmp_path: Path):
    with valkey(tmp_path) as server:
        yield server


@pytest.mark.parametrize("workers", [2, 3])
def test_every_peer_and_channel_gives_the_exact_sum(workers):
    """A rank that finds another sum than the exact one ends the measurement; see test_ranks."""
    report = run(workers=str(workers), peers=",".join(PEERS))
    rows = {row.variant: row for row in report.rows}
    assert set(rows) == {*PEERS, *offered_channels(load_registry())}
    assert {row.variant for row in report.rows if row.kind == "peer"} == set(PEERS)
    assert rows["gloo"].ratio_to_gloo == 1
    for row in report.rows:
        assert (row.workers, row.megabytes, row.rounds) == (workers, MEGABYTES, 2)
        assert 0 < row.fastest_ms <= row.median_ms <= row.slowest_ms
        assert row.ratio_to_gloo == pytest.approx(row.median_ms / rows["gloo"].median_ms)
        assert row.worker_cpu_ms > 0
        assert row.worker_cpu_ns_per_byte == pytest.approx(row.worker_cpu_ms * 1e6 / (workers * ELEMENTS * 4))


def test_vectors_of_fewer_elements_than_ranks_are_summed_too():
    peers = "lambdaml,lambdaml-hiredis,lambdaml-hscan,redis-py"
    report = run(workers="3", megabytes="0.000004", peers=peers, rounds="1")
    assert len(report.rows) == 4 + len(offered_channels(load_registry()))
    assert all(row.ratio_to_gloo is None for row in report.rows)


@pytest.mark.parametrize("workers", [2, 3])
def test_scatter_reduce_takes_as_many_requests_and_bytes_as_its_pattern_says(workers):
    report = run(workers=str(workers), channels="", peers="lambdaml,redis-py")
    for row in report.rows:
        counts = row.requests_per_step
        assert counts["put"] == workers * workers
        assert counts["get"] == 2 * workers * (workers - 1)
        assert row.bytes_up_per_step == workers * ELEMENTS * 4
        assert row.bytes_down_per_step == 2 * (workers - 1) * ELEMENTS * 4
    assert report.rows[0].requests_per_step["delete"] == workers * (workers - 1)


def test_channels_count_their_requests_and_gloo_does_not():
    gloo, *reducing = run(channels="reducing,reducing-tcp", peers="gloo").rows
    assert gloo.requests_per_step is gloo.bytes_up_per_step is gloo.bytes_down_per_step is None
    for row in reducing:
        assert row.requests_per_step == {"reduce": 2}
        assert row.bytes_up_per_step >= 2 * ELEMENTS * 4


def test_a_server_that_is_named_is_used_and_nothing_is_left_on_it(server: Valkey):
    before = server.info("stats")["total_connections_received"]
    report = run(channels="redis", peers="lambdaml,lambdaml-hscan,redis-py", redis_url=server.url)
    assert report.machine["redis_server"] == server.url
    assert int(server.info("stats")["total_connections_received"]) > int(before) + 2
    assert server.ask("DBSIZE") == 0


def test_a_servers_password_comes_from_the_environment_and_is_not_in_the_report(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("CACHE_PASSWORD", "sesame")
    with valkey(tmp_path, "--requirepass", "sesame") as server:
        asked = {"redis_url": server.url, "redis_password_from": "CACHE_PASSWORD"}
        report = run(channels="redis", peers="lambdaml,lambdaml-hscan,redis-py", **asked)
        assert server.ask("DBSIZE", password="sesame") == 0
    assert len(report.rows) == 4
    assert "sesame" not in str(report.document())


def test_a_password_that_the_environment_lacks_is_an_error(server: Valkey, monkeypatch):
    monkeypatch.delenv("CACHE_PASSWORD", raising=False)
    with pytest.raises(ConfigError, match="CACHE_PASSWORD is not set"):
        run(channels="", peers="redis-py", redis_url=server.url, redis_password_from="CACHE_PASSWORD")


def test_a_server_of_its_own_says_what_it_is(folders):
    report = run(channels="redis,object", peers="")
    assert report.machine["redis_server"].startswith("Valkey ")
    assert len(folders) == 1


def test_a_server_that_cannot_be_reached_is_an_error(server: Valkey):
    server.kill()
    with pytest.raises(ChannelError, match="cannot reach redis"):
        run(channels="redis", peers="", redis_url=server.url)


def test_vectors_for_which_there_is_no_room_are_an_error(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1 << 20}))
    with pytest.raises(StorageError, match="needed for 2 ranks"):
        run(channels="object", peers="")


def test_each_setting_is_told_when_its_ranks_are_there_and_has_rows_of_its_own():
    registry = load_registry()
    request = parse(["object"], channels="object", peers="", workers="2,3", megabytes="0.001,0.002", rounds="1")
    said: list[str] = []
    report = measure(request, plan_for(request, ["object"]), registry, say=said.append, clock=lambda: 0.0)
    assert [line.partition(":")[0] for line in said] == [
        "2 ranks, 0.001 MB", "2 ranks, 0.002 MB", "3 ranks, 0.001 MB", "3 ranks, 0.002 MB",
    ]  # fmt: skip
    assert [(row.workers, row.megabytes) for row in report.rows] == [(2, 0.001), (2, 0.002), (3, 0.001), (3, 0.002)]
    assert report.date == "1970-01-01T00:00:00+00:00"


def test_a_chart_has_a_bar_for_each_ratio(tmp_path: Path):
    from matplotlib import image

    report = run(workers="2,3", channels="object,shared_memory", peers="gloo,lambdaml", rounds="1")
    path = tmp_path / "ratios.png"
    check_chart(path, ["gloo"])
    draw_chart(report, path)
    picture = image.imread(path)
    height, width, _ = picture.shape
    assert width > height > 300
    assert len({tuple(colour) for colour in picture[:, :, :3].reshape(-1, 3)[::7].tolist()}) > 4


@pytest.mark.parametrize(
    ("name", "peers"), [("ratios.jpg", ["gloo"]), ("nowhere/ratios.png", ["gloo"]), ("ratios.png", ["lambdaml"])]
)
def test_a_chart_that_could_not_be_drawn_is_refused_before_anything_is_measured(tmp_path: Path, name, peers):
    with pytest.raises(ConfigError, match="--png"):
        check_chart(tmp_path / name, peers)
