"""The contract of a backend as a pytest suite: a third party subclasses it, says how to make the parts, and knows.

    class TestMyCloud(BackendContract):
        def make_backend(self):
            return MyCloud("mycloud", MyCloud.Options())

        def make_launcher(self, backend, place, entry):
            return MyLauncher(place, entry=entry)

Every launcher has the name of what its functions run somewhere; here it must be `entry`, not `smlt.core.function:work`.
Where functions run, pytest must be installed too.
"""

# ruff: noqa: D102  (a test's name is the sentence of the contract that it tests)

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from smlt._version import __version__
from smlt.core import wire
from smlt.core.backend import Backend, CheckResult, FunctionState, Launcher, Phase, RankSpec, RunPlace
from smlt.core.errors import ConfigError, SmltError
from smlt.core.plugins import Registry, load_registry
from smlt.core.storage import ChannelSpec, ObjectStore, StoreSpec
from smlt.testing.functions import ENTRY, said

NewSpec = Callable[..., RankSpec]
OVER = (Phase.ENDED, Phase.LOST)


def eventually(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait until the condition holds; fails the test, saying `what` was waited for, if it does not in time."""
    last = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > last:
            pytest.fail(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.005)


class BackendContract:
    """What each backend promises. Class attributes say what this one is slow at or cannot do."""

    start_s: float = 60.0
    """A function runs so long after its launch at the latest."""

    keeps_logs: bool = True
    """Whether `Launcher.logs` gives back what a function printed."""

    @abstractmethod
    def make_backend(self) -> Backend[Any]:
        """The backend, with options that suit a test."""

    @abstractmethod
    def make_launcher(self, backend: Backend[Any], place: RunPlace, entry: str) -> Launcher:
        """A launcher of this backend whose functions run `entry` ("module:function") with their spec."""

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend[Any]:
        """The backend under test."""
        return cls().make_backend()

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, tmp_path_factory: pytest.TempPathFactory) -> RunPlace:
        """One run for all tests of the class."""
        return RunPlace("contract", tmp_path_factory.mktemp("runs"))

    @pytest.fixture(scope="class")
    @classmethod
    def registry(cls) -> Registry:
        """Every plugin that is installed."""
        return load_registry()

    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, backend: Backend[Any], place: RunPlace, registry: Registry) -> ObjectStore:
        """The run's object store, through which tests and functions speak."""
        return registry.open_store(backend.object_store(place))

    @pytest.fixture(scope="class")
    @classmethod
    def launcher(cls, backend: Backend[Any], place: RunPlace) -> Iterator[Launcher]:
        """One launcher for all tests of the class that do not close it."""
        launcher = cls().make_launcher(backend, place, ENTRY)
        yield launcher
        launcher.close()

    @pytest.fixture(scope="class")
    @classmethod
    def new_spec(cls, backend: Backend[Any], place: RunPlace) -> NewSpec:
        """`new_spec(act, **changes)`: the spec of a function that nobody launched before."""
        count = iter(range(1 << 30))
        return lambda act, **changes: replace(spec_for(backend, place, act), incarnation=next(count), **changes)

    # What the launcher promises

    def test_a_function_gets_the_spec_it_was_launched_with(
        self, launcher: Launcher, store: ObjectStore, new_spec: NewSpec
    ) -> None:
        spec = new_spec("return", scratch="/a folder", job={"act": "return", "deep": {"list": [1, 2.5]}})
        self.wait_for(launcher, launcher.launch(spec), Phase.ENDED)
        assert wire.unpack(store.get(said(spec, "spec")), RankSpec) == spec

    def test_what_nobody_launched_is_not_adopted(self, backend: Backend[Any], tmp_path: Path) -> None:
        launcher = self.make_launcher(backend, RunPlace("adopting", tmp_path), ENTRY)
        try:
            handles = launcher.adopt(["9.9.9"])
            assert all(state.phase is Phase.LOST for state in launcher.poll(list(handles.values())).values())
        finally:
            launcher.close()

    def test_launch_does_not_wait_for_the_function(
        self, launcher: Launcher, store: ObjectStore, new_spec: NewSpec
    ) -> None:
        spec = new_spec("wait")
        handle = launcher.launch(spec)
        assert launcher.poll([handle])[handle].phase in (Phase.PENDING, Phase.RUNNING)
        store.put(said(spec, "go"), b"")
        self.wait_for(launcher, handle, Phase.ENDED)

    def test_a_function_runs_until_it_returns(self, launcher: Launcher, store: ObjectStore, new_spec: NewSpec) -> None:
        spec = new_spec("wait")
        handle = launcher.launch(spec)
        self.wait_for(launcher, handle, Phase.RUNNING)
        store.put(said(spec, "go"), b"")
        assert self.wait_for(launcher, handle, Phase.ENDED).detail == ""

    def test_functions_run_side_by_side_under_handles_of_their_own(
        self, launcher: Launcher, store: ObjectStore, new_spec: NewSpec
    ) -> None:
        specs = [new_spec("wait", rank=rank) for rank in range(3)]
        handles = [launcher.launch(spec) for spec in specs]
        assert len(set(handles)) == 3
        for spec in specs:
            self.wait_for_key(store, said(spec, "spec"))
        for spec in specs:
            store.put(said(spec, "go"), b"")
        for handle in handles:
            self.wait_for(launcher, handle, Phase.ENDED)

    def test_poll_reports_every_handle_asked_for_and_no_other(
        self, launcher: Launcher, store: ObjectStore, new_spec: NewSpec
    ) -> None:
        specs = [new_spec("return"), new_spec("wait"), new_spec("return")]
        handles = [launcher.launch(spec) for spec in specs]
        assert set(launcher.poll(handles[:2])) == set(handles[:2])
        assert launcher.poll([]) == {}
        store.put(said(specs[1], "go"), b"")
        for handle in handles:
            self.wait_for(launcher, handle, Phase.ENDED)
        assert {state.phase for state in launcher.poll(handles).values()} == {Phase.ENDED}

    @pytest.mark.parametrize("act", ["raise", "exit", "die"])
    def test_a_function_that_does_not_return_is_lost_and_the_state_says_how(
        self, launcher: Launcher, new_spec: NewSpec, act: str
    ) -> None:
        state = self.wait_for(launcher, launcher.launch(new_spec(act)), Phase.LOST)
        assert state.detail

    def test_stop_ends_a_function_now(self, launcher: Launcher, store: ObjectStore, new_spec: NewSpec) -> None:
        spec = new_spec("beat")
        handle = launcher.launch(spec)
        self.wait_for_key(store, said(spec, "beat"))
        launcher.stop(handle)
        assert self.wait_for(launcher, handle, Phase.LOST).detail
        self.assert_silent(launcher, store, [spec], new_spec("beat"))

    def test_a_function_stopped_before_it_started_does_not_run(
        self, launcher: Launcher, store: ObjectStore, new_spec: NewSpec
    ) -> None:
        spec = new_spec("beat")
        handle = launcher.launch(spec)
        launcher.stop(handle)
        self.wait_for(launcher, handle, Phase.LOST)
        self.assert_silent(launcher, store, [spec], new_spec("beat"))

    def test_stopping_an_ended_function_is_no_error_and_changes_nothing(
        self, launcher: Launcher, new_spec: NewSpec
    ) -> None:
        handle = launcher.launch(new_spec("return"))
        state = self.wait_for(launcher, handle, Phase.ENDED)
        launcher.stop(handle)
        assert launcher.poll([handle])[handle] == state

    def test_after_close_no_function_is_left(
        self, backend: Backend[Any], place: RunPlace, launcher: Launcher, store: ObjectStore, new_spec: NewSpec
    ) -> None:
        closing = self.make_launcher(backend, place, ENTRY)
        specs = [new_spec("beat"), new_spec("beat")]
        for spec in specs:
            closing.launch(spec)
        for spec in specs:
            self.wait_for_key(store, said(spec, "beat"))
        closing.close()
        self.assert_silent(launcher, store, specs, new_spec("beat"))

    def test_a_closed_launcher_refuses_with_an_error_of_ours(
        self, backend: Backend[Any], place: RunPlace, new_spec: NewSpec
    ) -> None:
        launcher = self.make_launcher(backend, place, ENTRY)
        launcher.close()
        with pytest.raises(SmltError):
            launcher.launch(new_spec("return"))

    def test_logs_are_what_the_function_printed(self, launcher: Launcher, new_spec: NewSpec) -> None:
        spec = new_spec("return")
        handle = launcher.launch(spec)
        self.wait_for(launcher, handle, Phase.ENDED)
        assert (f"printed by {spec.label}" in launcher.logs(handle)) is self.keeps_logs

    def test_logs_hold_the_traceback_of_what_was_raised(self, launcher: Launcher, new_spec: NewSpec) -> None:
        spec = new_spec("raise")
        handle = launcher.launch(spec)
        self.wait_for(launcher, handle, Phase.LOST)
        assert (f"raised by {spec.label}" in launcher.logs(handle)) is self.keeps_logs

    # What the backend promises

    def test_limits_make_sense(self, backend: Backend[Any]) -> None:
        limits = backend.limits
        assert limits.max_workers >= 1
        assert limits.memory_choices_mib
        assert list(limits.memory_choices_mib) == sorted(set(limits.memory_choices_mib))
        assert limits.function_time_limit_s is None or limits.function_time_limit_s > 0
        assert 0 < limits.beat_s < limits.orphan_grace_s
        assert limits.start_deadline_s > 0

    def test_prices_have_a_source_and_a_date(self, backend: Backend[Any]) -> None:
        catalog = backend.catalog
        assert catalog.provider
        assert catalog.source
        assert date.fromisoformat(catalog.as_of) <= date.today()
        assert min(catalog.function.usd_per_gib_s, catalog.function.usd_per_request) >= 0

    def test_options_are_described_and_strict(self, backend: Backend[Any]) -> None:
        for name, field in type(backend.options).model_fields.items():
            assert field.description, name
        with pytest.raises(ValidationError):
            type(backend.options).model_validate({"no_such_option": 1})

    def test_the_store_travels_and_opens(self, backend: Backend[Any], place: RunPlace, store: ObjectStore) -> None:
        spec = backend.object_store(place)
        assert wire.unpack(wire.pack(spec), StoreSpec) == spec
        store.put("contract/object", b"bytes")
        assert store.get("contract/object") == b"bytes"

    def test_channels_travel_and_open(self, backend: Backend[Any], place: RunPlace, registry: Registry) -> None:
        channels = backend.channels(place)
        assert channels
        for spec in channels.values():
            assert wire.unpack(wire.pack(spec), ChannelSpec) == spec
            with registry.open_channel(spec, generation=0, round_number=0, rank=0):
                pass

    def test_auto_is_the_channel_named_first(self, backend: Backend[Any], place: RunPlace) -> None:
        channels = backend.channels(place)
        first = next(iter(channels))
        assert backend.channel("auto", place) == (first, channels[first]) == backend.channel(first, place)

    def test_an_unknown_channel_is_named_with_the_known_ones(self, backend: Backend[Any], place: RunPlace) -> None:
        with pytest.raises(ConfigError, match="no_such_channel") as caught:
            backend.channel("no_such_channel", place)
        assert next(iter(backend.channels(place))) in caught.value.hint

    def test_runs_do_not_share_store_or_channel(self, backend: Backend[Any], place: RunPlace) -> None:
        other = replace(place, run="another")
        assert backend.object_store(other) != backend.object_store(place)
        for name, spec in backend.channels(place).items():
            assert backend.channels(other)[name] != spec

    def test_a_worker_has_a_thread_at_least(self, backend: Backend[Any]) -> None:
        assert backend.threads_for(backend.limits.max_workers) >= 1

    def test_check_says_what_passes_and_how_to_mend_what_does_not(self, backend: Backend[Any]) -> None:
        for result in backend.check():
            assert isinstance(result, CheckResult)
            assert result.status in ("pass", "fail", "skipped")
            assert result.mend or result.status == "pass", result.name

    def test_cleaning_twice_finds_nothing_the_second_time(self, backend: Backend[Any], place: RunPlace) -> None:
        other = replace(place, run="cleaned")
        backend.clean(other)
        assert list(backend.clean(other)) == []

    # Helpers

    def wait_for(self, launcher: Launcher, handle: str, phase: Phase) -> FunctionState:
        """Wait until a function is in this phase; fails at once if it ended in another way."""
        seen: list[FunctionState] = []

        def arrived() -> bool:
            seen[:] = [launcher.poll([handle])[handle]]
            if seen[0].phase in OVER and seen[0].phase is not phase:
                pytest.fail(f"{handle} is {seen[0]}, not {phase}; it printed: {launcher.logs(handle)}")
            return seen[0].phase is phase

        eventually(arrived, self.start_s, f"{handle} is {phase}")
        return seen[0]

    def wait_for_key(self, store: ObjectStore, key: str) -> None:
        """Wait until a function has written this object."""
        eventually(lambda: store.exists(key), self.start_s, f"a function wrote {key}")

    def assert_silent(
        self, launcher: Launcher, store: ObjectStore, specs: Sequence[RankSpec], witness: RankSpec
    ) -> None:
        """None of these writes while a witness, launched now, writes many times."""
        keys = [said(spec, "beat") for spec in specs]
        before = [store.get(key) if store.exists(key) else None for key in keys]
        handle = launcher.launch(witness)
        self.wait_for_key(store, said(witness, "beat"))
        eventually(lambda: int(store.get(said(witness, "beat"))) >= 20, self.start_s, "the witness writes")
        store.put(said(witness, "go"), b"")
        self.wait_for(launcher, handle, Phase.ENDED)
        assert [store.get(key) if store.exists(key) else None for key in keys] == before


class TimeLimitContract(BackendContract):
    """For a backend whose functions can be given a time limit of seconds: the platform keeps it, not the function."""

    time_limit_s: float = 1.0

    def test_a_function_is_ended_at_its_time_limit_and_the_state_says_so(
        self, launcher: Launcher, store: ObjectStore, new_spec: NewSpec
    ) -> None:
        spec = new_spec("beat", time_limit_s=self.time_limit_s)
        state = self.wait_for(launcher, launcher.launch(spec), Phase.LOST)
        assert "time limit" in state.detail
        self.assert_silent(launcher, store, [spec], new_spec("beat"))


def spec_for(backend: Backend[Any], place: RunPlace, act: str) -> RankSpec:
    """The spec of a function that does `act`, in a run of one rank."""
    limits = backend.limits
    return RankSpec(
        run=place.run,
        generation=0,
        rank=0,
        world_size=1,
        incarnation=0,
        controller_epoch=1,
        smlt_version=__version__,
        store=backend.object_store(place),
        channel=backend.channel("auto", place)[1],
        job={"act": act},
        bundle_sha256="",
        task_module="",
        task_class="",
        task_payload=b"",
        scratch=str(place.runs_dir / place.run / "scratch"),
        threads=1,
        beat_s=limits.beat_s,
        orphan_grace_s=limits.orphan_grace_s,
        lease_s=2 * limits.orphan_grace_s + 0.5,
        time_limit_s=None,
        memory_mib=limits.memory_choices_mib[0],
    )
