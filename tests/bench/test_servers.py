"""The store that `reducing-tcp` measures: the real program, over TCP, for those who know its token."""

from __future__ import annotations

import pytest

from smlt.backends.channels.reducing import probe
from smlt.bench.channel_server import channel_server
from smlt.bench.plan import Plan
from smlt.bench.request import Request, Setting
from smlt.bench.servers import REDUCING_TCP, serving
from smlt.core.errors import ChannelError
from smlt.core.plugins import load_registry
from smlt.core.storage import ChannelSpec


def test_a_store_over_tcp_stands_beside_the_runs_own():
    plan = Plan(("reducing", REDUCING_TCP), ())
    with serving(Request(), plan, Setting(2, 0.001), load_registry()) as served:
        over_tcp = served.channels[REDUCING_TCP]
        assert over_tcp.kind == "reducing"
        assert over_tcp.url.startswith("tcp://127.0.0.1:")
        for spec in served.channels.values():
            probe(spec)


def test_it_is_gone_afterwards(tmp_path):
    with channel_server(tmp_path, 64) as store:
        spec = ChannelSpec("reducing", store.url, {"token_file": str(store.token_file)})
        probe(spec)
    with pytest.raises(ChannelError, match="is lost"):
        probe(spec)


def test_who_does_not_know_the_token_is_turned_away(tmp_path):
    (tmp_path / "other").write_text("another token", encoding="ascii")
    with channel_server(tmp_path, 64) as store:
        assert store.token_file.stat().st_mode & 0o077 == 0
        with pytest.raises(ChannelError, match="token"):
            probe(ChannelSpec("reducing", store.url, {"token_file": str(tmp_path / "other")}))


def test_a_store_that_does_not_start_says_why(tmp_path):
    with pytest.raises(ChannelError, match=r"does not start: .*memory"), channel_server(tmp_path, 0):
        pass
