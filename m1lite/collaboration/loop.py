"""Collaborative Policy Planning: plan, then execute and communicate in rounds, then answer; for all episodes together.

Every agent of every episode is a coroutine that waits for its own replies and results, and for the agents that it
reads, and for nobody else; scheduler.py drives them. In round n an agent reads what the agents visible to it wrote in
rounds before n, and their tool results of rounds up to n, so what it reads does not depend on who was faster. Agents
without a step left wait; what they missed they read with their next turn. Rewards and Lightning are not known here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from m1lite.collaboration.aggregate import Aggregate, vote
from m1lite.collaboration.memory import Memory
from m1lite.collaboration.scheduler import Calls, Reached, Scheduler, Task, Tools, Until, Waits
from m1lite.collaboration.topology import Topology, Visible, complete
from m1lite.records import Episode, Message, MessageKind, Status, TurnKind

if TYPE_CHECKING:
    from m1lite.agents.agent import AgentState, Player
    from m1lite.engines.base import Sampler
    from m1lite.records import MediaRef, Sample, ToolCall, ToolResult


@dataclass(kw_only=True, slots=True, eq=False)
class _Seat:
    """One agent in one episode."""

    agent: Player
    state: AgentState
    memory: Memory
    base_seed: int
    """Of the episode."""
    last: int
    """The round that stands for the end: one after the last that may be played."""
    max_calls: int
    peers: list[_Seat]
    """Whom it reads."""
    task: Task
    rounds: int = 0
    """The last round in which it was to speak."""
    answer: Message | None = None
    """What it said when it was asked for its answer."""


@dataclass(kw_only=True, slots=True)
class _Table:
    """One episode that is under way."""

    episode: Episode
    memory: Memory
    seats: list[_Seat]


def derive_seed(*parts: object) -> int:
    """Hash parts to a seed in ``[0, 2**63)``, equal in every process and on every machine.

    Example:
        >>> derive_seed(0, "clip7-when", 1, "ada", 0)
        3740384184414426086
    """
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def run(
    samples: Sequence[Sample],
    agents: Sequence[Player],
    sampler: Sampler,
    tools: Tools,
    *,
    episodes: int,
    seed: int,
    topology: Topology = complete,
    aggregate: Aggregate = vote,
    max_rounds: int = 5,
    max_calls: int = 5,
) -> list[Episode]:
    """Run the team on samples.

    Args:
        samples: with distinct ids.
        agents: the team, in its order.
        sampler: draws the replies: an engine, a group of them, or a ``BatchSampler``; with nothing queued.
        tools: runs calls: a ``Toolbox``, or ``DirectTools``.
        episodes: K, of each sample.
        seed: everything drawn comes from it, so that the same seed gives the same episodes however samples are batched
            and whatever is faster.
        topology: who reads whom, drawn once per sample and shared by its K episodes.
        aggregate: the team's answer.
        max_rounds: of execution and communication.
        max_calls: of each agent; further calls are dropped and recorded as results of status CALL_LIMIT.

    Returns:
        K episodes of the first sample, then of the second, and so on.

    Raises:
        ValueError: if sample ids or agent names repeat, or a count is out of range.
        EngineError: if a request is refused or an engine fails.
    """
    _check(samples, agents, episodes=episodes, max_rounds=max_rounds, max_calls=max_calls)
    tables: list[_Table] = []
    for sample in samples:
        visible = topology([agent.name for agent in agents], Random(derive_seed(seed, sample.id, "topology")))
        tables += [
            _seat(sample, index, agents, visible, seed=seed, last=max_rounds + 1, max_calls=max_calls)
            for index in range(episodes)
        ]
    Scheduler(sampler, tools).run([seat.task for table in tables for seat in table.seats])
    return [_finish(table, aggregate) for table in tables]


def _seat(
    sample: Sample,
    index: int,
    agents: Sequence[Player],
    visible: Visible,
    *,
    seed: int,
    last: int,
    max_calls: int,
) -> _Table:
    """Begin an episode: every agent takes its seat."""
    base_seed, memory = derive_seed(seed, sample.id, index), Memory(visible)
    episode = Episode(sample=sample, index=index, seed=base_seed, visible=visible)
    seats: dict[str, _Seat] = {}
    for agent in agents:
        seat = seats[agent.name] = _Seat(
            agent=agent,
            state=agent.start(sample),
            memory=memory,
            base_seed=base_seed,
            last=last,
            max_calls=max_calls,
            peers=[],
            task=Task(),
        )
        seat.task.coroutine = _play(seat)
        episode.trajectories[agent.name] = seat.state.trajectory
    for name, seat in seats.items():
        seat.peers += [seats[peer] for peer in visible[name]]
    return _Table(episode=episode, memory=memory, seats=list(seats.values()))


def _play(seat: _Seat) -> Waits:
    """Play one agent's part of an episode."""
    state = seat.state
    yield from _speak(seat, TurnKind.PLAN, 0)
    for number in range(1, seat.last):
        if state.answered:
            break
        ran = (yield from _execute(seat, number)) if state.steps else False
        if not ran and not state.problem:
            break
        yield Reached(number)
        for peer in seat.peers:
            yield Until(peer.task, number)
        seat.rounds = number
        yield from _speak(seat, TurnKind.COMMUNICATE, number)
    yield Reached(seat.last)
    if state.answered:
        return
    for peer in seat.peers:
        yield Until(peer.task, seat.last)
    yield from _speak(seat, TurnKind.ANSWER, seat.last)


def _speak(seat: _Seat, kind: TurnKind, number: int) -> Waits:
    """Take one turn."""
    state, name = seat.state, seat.agent.name
    state.calls_left = 0 if number >= seat.last - 1 else seat.max_calls - len(state.trajectory.calls)
    own, peers = seat.memory.read(name, number)
    turn_seed = derive_seed(seat.base_seed, name, len(state.trajectory.turns))
    request = seat.agent.ask(state, kind, number, own, peers, turn_seed)
    if request is not None:
        message = seat.agent.read(state, (yield request))
        seat.memory.add(message)
        if kind is TurnKind.ANSWER:
            seat.answer = message


def _execute(seat: _Seat, number: int) -> Generator[Calls, list[ToolResult], bool]:
    """Run the next step; calls beyond the limit are dropped. Returns whether anything ran."""
    state, trajectory = seat.state, seat.state.trajectory
    left = seat.max_calls - len(trajectory.calls)
    if left > 0:
        step = state.steps.pop(0)
        calls, dropped = step[:left], step[left:]
    else:
        calls, dropped = (), tuple(call for step in state.steps for call in step)
        state.steps.clear()
    if calls:
        results = yield Calls(sample=state.sample, calls=calls)
        for call, result in zip(calls, results, strict=True):
            trajectory.calls.append(call)
            trajectory.results.append(result)
            text = result.text if result.error is None else result.error
            seat.memory.add(_result(seat, number, call, text, result.status, result.media))
    for call in dropped:
        text = f"dropped: an agent may run at most {seat.max_calls} calls"
        seat.memory.add(_result(seat, number, call, text, Status.CALL_LIMIT))
    return bool(calls)


def _result(
    seat: _Seat, number: int, call: ToolCall, text: str, status: Status, media: tuple[MediaRef, ...] = ()
) -> Message:
    return Message(
        author=seat.agent.name,
        round=number,
        kind=MessageKind.RESULT,
        text=text,
        call=call,
        status=status,
        media=media,
    )


def _finish(table: _Table, aggregate: Aggregate) -> Episode:
    """Close an episode: the answers belong to the round after the last in which anybody was to speak."""
    episode = table.episode
    end = max(seat.rounds for seat in table.seats) + 1
    for seat in table.seats:
        turns = seat.state.trajectory.turns
        if turns and turns[-1].kind is TurnKind.ANSWER:
            turns[-1].round = end
        if seat.answer is not None:
            seat.answer.round = end
    episode.messages = table.memory.in_order()
    episode.answer = aggregate(episode.trajectories)
    return episode


def _check(samples: Sequence[Sample], agents: Sequence[Player], **counts: int) -> None:
    for what, names in (("sample ids", [s.id for s in samples]), ("agent names", [a.name for a in agents])):
        repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if repeated:
            raise ValueError(
                f"The {what} {repeated} come more than once; seeds are derived from them, make them unique."
            )
    if not agents:
        raise ValueError("`agents` is empty; a team needs at least one agent.")
    for name, least in (("episodes", 1), ("max_rounds", 0), ("max_calls", 0)):
        if counts[name] < least:
            raise ValueError(f"`{name}` is {counts[name]}; it must be at least {least}.")
