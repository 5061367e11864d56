"""What local SGD averages, whatever the framework: flat weights, and steps that a rank takes by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from fleet import Fleet, whole

from smlt.core.planner import Sync
from smlt.core.stepping import LocalSgd
from smlt.core.sync.header import Header
from smlt.core.task import Array, UserTask


def weights_of(fleet: Fleet, rank: int = 0) -> list[Array]:
    memory = [region.zeros() for region in fleet.shapes[rank].weights]
    fleet.ranks[rank].read_weights(memory)
    return memory


class Averaging:
    """Tests of a framework's tasks.

    Attributes:
        classifier: a model without buffers.
        normed: one with batch statistics, and with what counts the batches.
    """

    classifier: ClassVar[type[UserTask]]
    normed: ClassVar[type[UserTask]]

    def test_what_is_written_is_read_and_is_the_model_s(self) -> None:
        fleet = Fleet(self.normed, ranks=2, steps=3).run()
        before = whole(fleet, 0)
        memory = weights_of(fleet)
        assert [region.tolerant for region in fleet.shapes[0].weights][:2] == [True, False]
        fleet.ranks[0].write_weights(memory)
        assert whole(fleet, 0) == before
        doubled = [2 * array for array in memory]
        fleet.ranks[0].write_weights(doubled)
        assert [array.tobytes() for array in weights_of(fleet)] == [array.tobytes() for array in doubled]
        assert whole(fleet, 0) != before
        sums = [np.abs(array).sum(dtype=np.float64) for array in fleet.ranks[0].parameters().values()]
        np.testing.assert_allclose(sum(sums), np.abs(doubled[0]).sum(dtype=np.float64), rtol=1e-6)

    def test_a_step_by_itself_is_that_of_a_rank_alone(self) -> None:
        """Bit for bit, batch statistics and what counts the batches included."""
        for task in (self.classifier, self.normed):
            alone, among = Fleet(task, ranks=1, steps=4), Fleet(task, ranks=2, steps=4)
            for _ in range(3):
                work = alone.next_work()[0]
                for fleet in (alone, among):
                    contribution = fleet.contributions()[0]
                    loss = fleet.ranks[0].compute(replace(work, alone=fleet is among), contribution)
                    fleet.ranks[0].commit(contribution, loss)
                alone.step += 1
                among.step += 1
            assert whole(alone, 0) == whole(among, 0)

    def test_a_step_given_up_after_its_exchange_leaves_the_state_of_the_last_commit(self) -> None:
        """Bit for bit, with an optimizer that makes its state at the first step, and with what counts steps."""
        for task in (self.classifier, self.normed):
            fleet, undisturbed = Fleet(task, ranks=1, steps=4), Fleet(task, ranks=1, steps=4)
            for each in (fleet, undisturbed):
                stepping = LocalSgd(each.ranks[0], each.shapes[0], Sync("local_sgd", period=1))
                stepping.join(None)
                for _ in range(3):
                    work = each.next_work()[0]
                    if each is fleet:
                        before = whole(fleet)
                        loss = stepping.compute(work)
                        stepping.exchange(Header(work.step, loss_sum=loss.sum, weight=loss.weight), last=False)
                        assert whole(fleet) != before
                        stepping.forget()
                        assert whole(fleet) == before
                    loss = stepping.compute(work)
                    stepping.exchange(Header(work.step, loss_sum=loss.sum, weight=loss.weight), last=False)
                    stepping.commit(work.step, loss)
                    each.step += 1
            assert whole(fleet) == whole(undisturbed)
