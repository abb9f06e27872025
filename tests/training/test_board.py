"""Which group and rank gets which task, without Ray: the board's coroutines in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from catdog.runs.records import Epoch
from catdog.training.board import Board


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 10))


def test_all_ranks_of_a_group_get_the_same_tasks_in_order() -> None:
    async def story() -> None:
        board = Board()
        first, second = await board.submit("a"), await board.submit("b")
        taken = [await board.take(0, None) for _ in range(2)]
        assert [(one.ticket, one.task) for one in taken if one] == [(first, "a")] * 2
        await board.finished(first, 0, 2, "zero")
        # Rank 0 is ahead and waits for rank 1.
        waiting = asyncio.create_task(board.take(0, first))
        await asyncio.sleep(0)
        assert not waiting.done()
        await board.finished(first, 1, 2, "one")
        assert await board.outcome(first) == (["zero", "one"], None)
        one, other = await waiting, await board.take(0, first)
        assert one is not None
        assert (one.ticket, one.task) == (second, "b")
        assert other == one

    run(story())


def test_two_groups_share_the_queue() -> None:
    async def story() -> None:
        board = Board()
        for task in "abc":
            await board.submit(task)
        tasks = [taken.task for group in (0, 1) if (taken := await board.take(group, None))]
        assert tasks == ["a", "b"]

    run(story())


def test_no_more_groups_are_started_than_tasks_wait() -> None:
    async def story() -> None:
        board = Board()
        starts = [asyncio.create_task(board.wanted(group)) for group in range(3)]
        await asyncio.sleep(0.01)
        assert not any(start.done() for start in starts)
        await board.submit("a")
        await asyncio.sleep(0.01)
        assert sum(start.done() for start in starts) == 1
        await board.submit("b")
        await asyncio.sleep(0.01)
        assert sum(start.done() for start in starts) == 2
        await board.end()
        assert sorted([await start for start in starts]) == [False, True, True]

    run(story())


@pytest.mark.parametrize(
    "lost, followed, tries",
    [(True, False, 3), (True, True, 3), (False, False, 3), (False, True, 1)],
)
def test_a_crashed_group_s_task_is_tried_again_unless_a_trial_raised(
    lost: bool, followed: bool, tries: int
) -> None:
    async def story() -> None:
        board = Board()
        ticket = await board.submit("a", followed=followed)
        for _ in range(tries):
            assert await board.wanted(0)
            assert await board.take(0, None) is not None
            await board.group_ended(0, "boom", lost, 2)
        _, failure = await board.outcome(ticket)
        assert failure == "boom" + (" (after 2 restarts)" if tries == 3 else "")

    run(story())


def test_a_restarted_process_takes_up_what_its_group_was_at() -> None:
    async def story() -> None:
        board = Board()
        first, second = await board.submit("a"), await board.submit("b")
        assert await board.take(0, None) is not None
        await board.finished(first, 0, 1, None)
        for after in (first, None, None):
            taken = await board.take(0, after)
            assert taken is not None
            assert taken.ticket == second

    run(story())


def test_a_trial_decides_after_every_epoch_and_hears_each_once() -> None:
    async def story() -> None:
        board = Board()
        ticket = await board.submit("a", "trial", followed=True)
        assert await board.submit("a", "trial", followed=True) == ticket, "asked for again"
        ranks = [
            asyncio.create_task(board.decision(ticket, 1, Epoch(epoch=1) if rank == 0 else None))
            for rank in (1, 0)
        ]
        assert await board.next_row(ticket, 0) == Epoch(epoch=1)
        assert not any(rank.done() for rank in ranks)
        await board.go_on(ticket, 1)
        assert [await rank for rank in ranks] == [True, True]
        assert await board.decision(ticket, 1, Epoch(epoch=1)), "once more after a crash"
        stopped = asyncio.create_task(board.decision(ticket, 2, Epoch(epoch=2)))
        assert await board.next_row(ticket, 1) == Epoch(epoch=2)
        await board.stop("trial")
        assert await stopped is False

    run(story())


def test_resting_waits_for_what_runs_and_keeps_what_waits() -> None:
    async def story() -> None:
        board = Board()
        first = await board.submit("a")
        assert await board.wanted(0)
        assert await board.take(0, None) is not None
        rest = asyncio.create_task(board.rest())
        await asyncio.sleep(0)
        second = await board.submit("b")
        await board.finished(first, 0, 1, None)
        assert await board.take(0, first) is None
        assert not rest.done()
        await board.group_ended(0, None, False, 0)
        await rest
        assert await board.wanted(0)
        taken = await board.take(0, None)
        assert taken is not None
        assert taken.ticket == second

    run(story())
