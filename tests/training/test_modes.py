"""Ways of synchronising, in whole runs: which give the same bits as which, and that a hand-over changes none."""

from __future__ import annotations

from pathlib import Path

import pytest

import smlt
from smlt.core.errors import ConfigError

TASK = f"{Path(__file__).parent / 'tasks' / 'spirals.py'}:Spirals"
LOCAL = {"sync.mode": "local_sgd", "sync.period": 6, "sync.fragments": 2}


def train(
    runs_dir: Path, workers: int = 2, epochs: int = 3, params: dict | None = None, **settings: object
) -> smlt.Result:
    return smlt.train(
        TASK,
        workers=workers,
        epochs=epochs,
        global_batch=32,
        seed=5,
        params=params,
        runs_dir=runs_dir,
        settings={"backend.worker_threads": 1, **settings},
    )


@pytest.mark.parametrize("workers", [2, 3])
def test_every_exact_channel_gives_the_same_bits(tmp_path: Path, workers: int) -> None:
    runs = [train(tmp_path, workers, **{"sync.channel": name}) for name in ("shared_memory", "reducing", "object")]
    assert len({(run.weights_sha256, run.summary.state_sha256) for run in runs}) == 1


@pytest.mark.parametrize("codec", ["bf16", "fp16", "int8", "topk"])
def test_lossy_codecs_come_close_and_repeat_their_bits(tmp_path: Path, codec: str) -> None:
    exact = train(tmp_path)
    first, second = (
        train(tmp_path, **{"sync.codec": codec, "sync.channel": channel}) for channel in ("reducing", "object")
    )
    assert first.weights_sha256 == second.weights_sha256 != exact.weights_sha256
    assert first.summary.state_sha256 == second.summary.state_sha256
    assert first.metrics["loss"] == pytest.approx(exact.metrics["loss"], rel=0.5 if codec == "topk" else 0.02)
    assert first.summary.allocation["sync"]["codec"] == codec


@pytest.mark.parametrize(
    "settings", [{"sync.codec": "int8"}, {**LOCAL, "sync.codec": "int8"}], ids=["int8", "local_sgd"]
)
def test_functions_that_hand_over_change_no_bit(tmp_path: Path, settings: dict[str, object]) -> None:
    """What each rank has of its own is handed over: residuals, inner weights, inner optimizer."""
    at_once = train(tmp_path, epochs=40, **settings)
    handed_over = train(
        tmp_path, epochs=40, params={"pause_s": 0.02}, **settings, **{"backend.function_time_limit": "4s"}
    )
    assert handed_over.summary.generations > at_once.summary.generations == 1
    assert handed_over.summary.state_sha256 == at_once.summary.state_sha256


def test_local_sgd_learns_and_its_ranks_agree_in_the_end(tmp_path: Path) -> None:
    exact, local = train(tmp_path, epochs=12), train(tmp_path, epochs=12, **LOCAL)
    assert local.metrics["loss"] == pytest.approx(exact.metrics["loss"], rel=0.3)
    again = train(tmp_path, epochs=12, **LOCAL)
    assert again.summary.state_sha256 == local.summary.state_sha256


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sync.period": 7}, "period need"),
        ({"sync.period": 50, "sync.mode": "every_step"}, "period need"),
        ({"sync.mode": "local_sgd", "sync.period": 7, "sync.fragments": 2}, "no multiple of fragments"),
        ({"sync.codec": "int4"}, "int4"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, **settings)
