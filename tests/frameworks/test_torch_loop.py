"""A loop of the user's own: the same step as a transaction, whoever writes the loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fleet import Fleet, raw, whole
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch_models import Gan, Normed, Regression

from smlt.core.errors import TaskError
from smlt.core.task import StepLoss, seed_of
from smlt.frameworks.torch import LoopContext, TorchTask
from smlt.frameworks.torch.seeding import seed_everything


class Hooks(Regression):
    """The same regression by hooks."""

    loop = TorchTask.loop

    def training_step(self, model: nn.Module, batch: Any) -> Tensor:
        return mse_loss(model(batch[0]).squeeze(1), batch[1].float())


@pytest.fixture(autouse=True)
def no_thread_is_left(request: pytest.FixtureRequest) -> Any:
    """Loops run in threads; closing a task ends its."""
    before = set(threading.enumerate())
    fleets: list[Fleet] = []
    yield fleets.append
    for fleet in fleets:
        fleet.close()
    assert set(threading.enumerate()) <= before


@pytest.fixture
def launch(no_thread_is_left: Callable[[Fleet], None]) -> Callable[..., Fleet]:
    """Make fleets whose loops end with the test."""

    def make(*arguments: Any, **options: Any) -> Fleet:
        fleet = Fleet(*arguments, **options)
        no_thread_is_left(fleet)
        return fleet

    return make


@pytest.mark.parametrize("ranks", [1, 2, 4])  # with 3, weighing by 3/8 rounds: after backward here, before it there
def test_a_loop_gives_the_bits_of_the_same_task_by_hooks(launch: Callable[..., Fleet], ranks: int) -> None:
    mine, hooks = launch(Regression, ranks, clip_norm=0.5).run(), launch(Hooks, ranks, clip_norm=0.5).run()
    assert raw(mine.ranks[0].parameters()) == raw(hooks.ranks[0].parameters())
    assert [loss.mean for loss in mine.losses] == [loss.mean for loss in hooks.losses]


def test_a_gan_in_one_worker_is_its_plain_loop_bit_for_bit(launch: Callable[..., Fleet]) -> None:
    fleet = launch(Gan, batch=6, steps=10).run()

    class Plain(LoopContext):
        """The same context without smlt behind it."""

        def batches(self) -> Any:
            for step in range(10):
                order = fleet.ranks[0].order(step // 4)
                rows = order[step % 4 * 6 : step % 4 * 6 + 6]
                seed_everything(seed_of(3, step, 0, 0))
                yield [data.tensors[0][torch.from_numpy(rows)]]

        def sync(self, model: nn.Module, loss: Any = 0.0) -> None:
            """One worker's gradients are the mean."""

    task = Gan()
    data = task.train_data()
    torch.manual_seed(3)
    model = task.build_model()
    context = Plain.__new__(Plain)
    context.model, context.optimizers = model, task.build_optimizer(model)
    task.loop(context)
    assert raw(fleet.ranks[0].parameters()) == raw({n: p.detach().numpy() for n, p in model.named_parameters()})


def test_a_gans_ranks_agree_and_its_state_goes_on_bit_for_bit(launch: Callable[..., Fleet]) -> None:
    through = launch(Gan, 2, batch=6).run()
    assert whole(through, 0) == whole(through, 1)
    arrays = through.ranks[0].shared_state().arrays
    assert {"optimizer.g/g.weight/exp_avg", "optimizer.d/d.0.weight/momentum_buffer"} <= set(arrays)
    before = launch(Gan, 2, batch=6).run(5)
    after = launch(Gan, 2, batch=6).run(2).go_on_from(before)
    assert whole(after.run()) == whole(through)


def test_a_step_given_up_starts_the_loop_anew_with_the_same_bits(launch: Callable[..., Fleet]) -> None:
    starts: list[int] = []
    unwound: list[int] = []

    class Counting(Regression):
        def loop(self, ctx: LoopContext) -> None:
            starts.append(ctx.step)
            try:
                super().loop(ctx)
            except Exception:
                raise AssertionError("unwinding is no Exception") from None
            finally:
                unwound.append(ctx.step)

    through, fleet = launch(Regression).run(), launch(Counting)
    fleet.run(3)
    before = whole(fleet)
    fleet.compute()
    fleet.ranks[0].forget()
    assert whole(fleet) == before
    assert whole(fleet.run()) == whole(through)
    assert (len(starts), unwound) == (2, [3])
    fleet.close()
    assert unwound == [3, 11]


def test_closing_lets_the_loop_return(launch: Callable[..., Fleet]) -> None:
    after: list[str] = []

    class Polite(Regression):
        def loop(self, ctx: LoopContext) -> None:
            super().loop(ctx)
            after.append("done")

    fleet = launch(Polite, 2).run(2)
    fleet.close()
    fleet.close()
    assert after == ["done", "done"]


def test_the_context_has_what_a_loop_needs(launch: Callable[..., Fleet]) -> None:
    places: list[tuple[int, int]] = []

    class Curious(Regression):
        def loop(self, ctx: LoopContext) -> None:
            assert ctx.model is self.model
            assert list(ctx.optimizers) == [""]
            noise = torch.randn(2)
            for x, y in ctx.batches():
                places.append((ctx.step, ctx.epoch))
                with ctx.autocast():
                    output = ctx.model(x)
                assert output.dtype == torch.bfloat16
                ctx.optimizer.zero_grad()
                mse_loss(output.float().squeeze(1), y.float() + noise.sum()).backward()
                ctx.sync(ctx.model)
                ctx.optimizer.step()

    fleet = launch(Curious, batch=20, precision="bf16").run(3)
    assert places == [(0, 0), (1, 0), (2, 1)]
    assert fleet.losses == [StepLoss(0.0, 20.0), StepLoss(0.0, 17.0), StepLoss(0.0, 20.0)]  # nothing reported


def test_buffers_are_averaged_in_a_loop_too(launch: Callable[..., Fleet]) -> None:
    class Loops(Normed):
        def loop(self, ctx: LoopContext) -> None:
            for batch in ctx.batches():
                ctx.optimizer.zero_grad()
                loss = self.training_step(ctx.model, batch)
                assert isinstance(loss, Tensor)
                loss.backward()  # type: ignore[no-untyped-call]
                ctx.sync(ctx.model, loss)
                ctx.optimizer.step()

    fleet = launch(Loops, 2, steps=4).run()
    assert whole(fleet, 0) == whole(fleet, 1) == whole(launch(Normed, 2, steps=4).run())


def nothing(task: Regression, ctx: LoopContext) -> None:
    """Returns at once."""


def no_sync(task: Regression, ctx: LoopContext) -> None:
    for _ in ctx.batches():
        pass


def two_syncs(task: Regression, ctx: LoopContext) -> None:
    for _ in ctx.batches():
        ctx.sync(ctx.model)
        ctx.sync(ctx.model)


def sync_first(task: Regression, ctx: LoopContext) -> None:
    ctx.sync(ctx.model)


def one_batch(task: Regression, ctx: LoopContext) -> None:
    for _ in ctx.batches():
        ctx.sync(ctx.model)
        break


def breaks(task: Regression, ctx: LoopContext) -> None:
    for _ in ctx.batches():
        break


def early_step(task: Regression, ctx: LoopContext) -> None:
    for x, _ in ctx.batches():
        ctx.model(x).sum().backward()
        ctx.optimizer.step()
        ctx.sync(ctx.model)


def own_start(task: Regression, ctx: LoopContext) -> None:
    for parameter in ctx.model.parameters():
        nn.init.zeros_(parameter)
    two_syncs(task, ctx)


def other_model(task: Regression, ctx: LoopContext) -> None:
    for _ in ctx.batches():
        ctx.sync(nn.Linear(1, 1))


def raises(task: Regression, ctx: LoopContext) -> None:
    for _ in ctx.batches():
        raise ValueError("too hot")


def raises_late(task: Regression, ctx: LoopContext) -> None:
    for _ in ctx.batches():
        ctx.sync(ctx.model)
        raise ValueError("too cold")


def exits(task: Regression, ctx: LoopContext) -> None:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        (nothing, "loop returned before step 0"),
        (no_sync, r"there was no ctx\.sync \(step 0\)"),
        (two_syncs, "called twice"),
        (sync_first, "before the first"),
        (one_batch, "loop returned before step 1"),
        (breaks, "in the middle of step 0"),
        (early_step, r"changed parameters before ctx\.sync"),
        (own_start, r"changed parameters before ctx\.sync"),
        (other_model, "something else than the task's model"),
        (raises, r"loop raised ValueError: too hot \(test_torch_loop\.py:\d+\)"),
        (raises_late, r"loop raised ValueError: too cold \(test_torch_loop\.py:\d+\)"),
        (exits, "loop was left by SystemExit"),
    ],
)
def test_a_loop_that_breaks_the_rule_is_told_so(
    launch: Callable[..., Fleet], loop: Callable[..., None], message: str
) -> None:
    task = type("Broken", (Regression,), {"loop": loop})
    with pytest.raises(TaskError, match=message):
        launch(task).run(2)


def test_a_loop_needs_examples_on_every_rank_and_no_micro_batches(launch: Callable[..., Fleet]) -> None:
    with pytest.raises(TaskError, match="rank 1 has no examples in step 0"):
        launch(Regression, 2, batch=1).run(1)
    with pytest.raises(TaskError, match="micro_batch"):
        launch(Regression, micro_batch=2)


def test_several_optimizers_have_no_only_one(launch: Callable[..., Fleet]) -> None:
    class Asks(Gan):
        def loop(self, ctx: LoopContext) -> None:
            ctx.optimizer.step()

    with pytest.raises(TaskError, match="the task has several"):
        launch(Asks).run(1)
