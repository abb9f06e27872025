"""The actor between the driver and its worker groups: tasks one way, messages and results back.

Groups take tasks from one queue and keep running between them. Every rank of a group asks for its
next task by itself and all get the same one, because the board assigns tasks to groups. A thread of
the driver hears the messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from catdog.console import plural
from catdog.runs.messages import Flush, Message, OnMessage
from catdog.runs.records import Epoch


def on_this_node() -> Any:
    """A scheduling strategy: on the driver's node, as an actor elsewhere would be lost with it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


class Listener(threading.Thread):
    """Hands the workers' messages to the driver, in order, until told to finish.

    It waits in the board's actor and does not ask again and again: on a small machine whatever
    wakes up takes a core from the training.
    """

    def __init__(self, board: Any, on_message: OnMessage) -> None:
        super().__init__(name="training-messages", daemon=True)
        self.board = board
        self.on_message = on_message
        self._flushed = threading.Semaphore(0)

    def run(self) -> None:
        import ray
        from ray.exceptions import RayError

        while True:
            try:
                message = ray.get(self.board.next_message.remote())
            except RayError:  # the cluster is gone; the training's own error says so
                return
            if message is None:
                return
            if isinstance(message, Flush):
                self._flushed.release()
                continue
            # A line of the log that the disk did not take; workers keep the epochs.
            with contextlib.suppress(OSError):
                self.on_message(message)

    def flush(self) -> None:
        """Waits until what was told until now is handed over."""
        import ray

        ray.get(self.board.tell.remote(Flush()))
        self._flushed.acquire(timeout=30)

    def finish(self) -> None:
        """What was told until now is still handed over."""
        import ray
        from ray.exceptions import RayError

        with contextlib.suppress(RayError):
            ray.get(self.board.tell.remote(None))
        self.join(timeout=30)


class AssignedTask(NamedTuple):
    """A task as a rank gets it; ``followed`` where a trial decides after each epoch."""

    ticket: int
    task: Any
    followed: bool


@dataclass
class _Entry:
    name: str
    task: Any
    followed: bool
    results: dict[int, Any] = field(default_factory=dict)
    ended: bool = False
    failure: str | None = None
    #: How often its group was lost.
    losses: int = 0
    rows: list[Epoch] = field(default_factory=list)
    #: The last epoch after which its trial wants to go on.
    wanted: int = 0
    stopped: bool = False


class Board:
    """An async actor: every method may wait without keeping the others from being served."""

    def __init__(self) -> None:
        self.entries: list[_Entry] = []
        self.waiting: list[int] = []
        self.assigned: dict[int, int] = {}
        #: Groups that run or start.
        self.up: set[int] = set()
        self.controlling: dict[int, Any] = {}
        self.resting = False
        self.over = False
        self.messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self.changed = asyncio.Condition()

    # --- for who has tasks: the driver and trials

    async def submit(self, task: Any, name: str = "", followed: bool = False) -> int:
        """Queue ``task``; returns its ticket. A named task is queued once, whoever asks again."""
        async with self.changed:
            for ticket, entry in enumerate(self.entries):
                if name and entry.name == name:
                    return ticket
            self.entries.append(_Entry(name, task, followed))
            self.waiting.append(len(self.entries) - 1)
            self.changed.notify_all()
            return len(self.entries) - 1

    async def outcome(self, ticket: int) -> tuple[list[Any], str | None]:
        """Waits for the end of a task: (results by rank, why it failed)."""
        entry = self.entries[ticket]
        async with self.changed:
            await self.changed.wait_for(lambda: entry.ended)
        return [entry.results[rank] for rank in sorted(entry.results)], entry.failure

    async def next_row(self, ticket: int, index: int) -> Epoch | None:
        """The ``index``-th epoch of a followed task; ``None`` once there will be no more."""
        entry = self.entries[ticket]
        async with self.changed:
            await self.changed.wait_for(lambda: len(entry.rows) > index or entry.ended)
        return entry.rows[index] if len(entry.rows) > index else None

    async def go_on(self, ticket: int, epoch: int) -> None:
        """The trial wants another epoch after ``epoch``."""
        async with self.changed:
            self.entries[ticket].wanted = max(epoch, self.entries[ticket].wanted)
            self.changed.notify_all()

    async def stop(self, name: str) -> None:
        """End the followed task of that name after the epoch that it is in, if it has not ended."""
        async with self.changed:
            for ticket, entry in enumerate(self.entries):
                if entry.name == name:
                    entry.stopped = True
                    if ticket in self.waiting:
                        self.waiting.remove(ticket)
                        entry.ended = True
            self.changed.notify_all()

    async def rest(self) -> None:
        """Waits until all groups have ended; the next task starts one again."""
        async with self.changed:
            self.resting = True
            self.changed.notify_all()
            await self.changed.wait_for(lambda: not self.up)
            self.resting = False

    async def is_up(self) -> bool:
        return bool(self.up)

    async def drop_waiting(self) -> None:
        """Forget the tasks that nobody has taken."""
        async with self.changed:
            for ticket in self.waiting:
                self.entries[ticket].ended = True
            self.waiting.clear()
            self.changed.notify_all()

    async def end(self) -> None:
        """No more tasks will come."""
        async with self.changed:
            self.over = self.resting = True
            self.changed.notify_all()

    # --- for the driver's thread of a group

    async def wanted(self, group: int) -> bool:
        """Waits until another group has something to do; ``False`` when no more tasks will come."""

        def lacks_one() -> bool:
            busy = {g for g, ticket in self.assigned.items() if not self.entries[ticket].ended}
            return not self.resting and len(self.waiting) > len(self.up - busy)

        async with self.changed:
            await self.changed.wait_for(lambda: lacks_one() or self.over)
            if self.over:
                return False
            self.up.add(group)
            return True

    async def group_ended(self, group: int, cause: str | None, lost: bool, max_losses: int) -> None:
        """A group has ended, with ``cause`` where it crashed; ``lost`` if one of its processes was.

        Its task goes to another group, ``max_losses`` times.
        """
        async with self.changed:
            self.up.discard(group)
            self.controlling.pop(group, None)
            ticket = self.assigned.pop(group, None)
            if ticket is None and cause is not None and self.waiting:
                ticket = self.waiting.pop(0)  # a group that never started: of the next in line
            if ticket is not None and not (entry := self.entries[ticket]).ended:
                again = (lost or not entry.followed) and entry.losses < max_losses
                if again and not entry.stopped:
                    entry.losses += 1
                    self.waiting.insert(0, ticket)
                else:
                    restarts = f" (after {plural(entry.losses, 'restart')})" if entry.losses else ""
                    entry.failure = (cause or "its workers ended") + restarts
                    entry.ended = True
            self.changed.notify_all()

    async def controlled_by(self, group: int, controller: Any) -> None:
        """The actor of Ray Train that has started the group."""
        self.controlling[group] = controller

    async def controllers(self) -> list[Any]:
        """Those of the groups that run or start."""
        return [self.controlling[group] for group in self.up if group in self.controlling]

    async def next_message(self) -> Message | None:
        return await self.messages.get()

    # --- for the ranks of a group

    async def take(self, group: int, after: int | None) -> AssignedTask | None:
        """The group's next task, the same for each of its ranks; ``None`` where there is none.

        Args:
            after: the ticket of the task that this rank has finished; ``None`` for a new process,
                which takes up what its group was at.
        """

        def found() -> bool:
            current = self.assigned.get(group)
            if current is not None:
                if not self.entries[current].ended:
                    return current != after
                del self.assigned[group]
            if not self.resting and self.waiting:
                self.assigned[group] = self.waiting.pop(0)
                self.changed.notify_all()
                return True
            return self.resting

        async with self.changed:
            await self.changed.wait_for(found)
            ticket = self.assigned.get(group)
        if ticket is None:
            return None
        return AssignedTask(ticket, self.entries[ticket].task, self.entries[ticket].followed)

    async def finished(self, ticket: int, rank: int, world_size: int, result: Any) -> None:
        """What a rank's part of a task came to; the task ends with the last of them."""
        async with self.changed:
            entry = self.entries[ticket]
            entry.results[rank] = result
            entry.ended = entry.ended or set(range(world_size)) <= entry.results.keys()
            self.changed.notify_all()

    async def failed(self, ticket: int, cause: str) -> None:
        """A task that would fail again: all of its ranks know it."""
        async with self.changed:
            self.entries[ticket].failure = self.entries[ticket].failure or cause
            self.entries[ticket].ended = True
            self.changed.notify_all()

    async def decision(self, ticket: int, epoch: int, row: Epoch | None) -> bool:
        """Whether a followed task goes on after ``epoch``; waits for its trial.

        ``row`` is what the trial hears, from rank 0. An epoch that is done again after a crash is
        heard once.
        """
        entry = self.entries[ticket]
        async with self.changed:
            if row is not None and (not entry.rows or entry.rows[-1].epoch < epoch):
                entry.rows.append(row)
                self.changed.notify_all()
            await self.changed.wait_for(lambda: entry.stopped or entry.wanted >= epoch)
        return not entry.stopped

    async def tell(self, message: Message | None) -> None:
        await self.messages.put(message)
