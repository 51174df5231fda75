"""Collaborative Policy Planning: plan, then execute and communicate in rounds, then answer; for all episodes together.

Pure orchestration: replies and tool results come from the two functions passed in, and it knows neither rewards nor
Lightning. In round n an agent reads what the agents visible to it wrote in rounds before n, and their tool results of
rounds up to n. Agents without a step left wait; what they missed they read with their next turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from m1lite.collaboration.aggregate import Aggregate, vote
from m1lite.collaboration.memory import Memory
from m1lite.collaboration.topology import Topology, Visible, complete
from m1lite.records import Episode, Message, MessageKind, Status, TurnKind

if TYPE_CHECKING:
    from m1lite.agents.agent import AgentState, Player
    from m1lite.engines.base import Generation, Request
    from m1lite.records import Sample, ToolCall, ToolResult

Generate = Callable[[Sequence["Request"]], "list[Generation]"]
RunTools = Callable[[Sequence[tuple["Sample", "ToolCall"]]], "list[ToolResult]"]


@dataclass(kw_only=True, slots=True)
class _Seat:
    """One agent in one episode."""

    agent: Player
    state: AgentState
    table: _Table
    last_run: int = 0
    """The last round in which it ran a step."""


@dataclass(kw_only=True, slots=True)
class _Table:
    """One episode that is under way."""

    episode: Episode
    memory: Memory
    seats: list[_Seat]
    base_seed: int
    rounds: int = 0
    """The last round in which anything happened."""


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
    generate: Generate,
    run_tools: RunTools,
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
        generate: draws one reply for each request, in the order given; called once per phase.
        run_tools: runs calls, one result for each; called once per round.
        episodes: K, of each sample.
        seed: everything drawn comes from it, so that the same seed gives the same episodes however samples are batched.
        topology: who reads whom, drawn once per sample and shared by its K episodes.
        aggregate: the team's answer.
        max_rounds: of execution and communication.
        max_calls: of each agent; further steps are dropped and recorded as results of status CALL_LIMIT.

    Returns:
        K episodes of the first sample, then of the second, and so on.

    Raises:
        ValueError: if sample ids or agent names repeat, or a count is out of range.
    """
    _check(samples, agents, episodes=episodes, max_rounds=max_rounds, max_calls=max_calls)
    tables: list[_Table] = []
    for sample in samples:
        visible = topology([agent.name for agent in agents], Random(derive_seed(seed, sample.id, "topology")))
        tables += [_seat(sample, index, agents, seed, visible) for index in range(episodes)]
    seats = [seat for table in tables for seat in table.seats]
    for seat in seats:
        seat.state.calls_left = max_calls if max_rounds else 0
    _speak(seats, TurnKind.PLAN, generate)
    for number in range(1, max_rounds + 1):
        _execute(seats, number, run_tools, max_calls)
        speakers = [
            seat for seat in seats if not seat.state.answered and (seat.last_run == number or seat.state.problem)
        ]
        if not speakers:
            break
        for seat in speakers:
            seat.table.rounds = number
            seat.state.calls_left = 0 if number == max_rounds else max_calls - len(seat.state.trajectory.calls)
        _speak(speakers, TurnKind.COMMUNICATE, generate)
    for table in tables:
        table.rounds += 1
    for seat in seats:
        seat.state.calls_left = 0
    _speak([seat for seat in seats if not seat.state.answered], TurnKind.ANSWER, generate)
    return [_finish(table, aggregate) for table in tables]


def _seat(sample: Sample, index: int, agents: Sequence[Player], seed: int, visible: Visible) -> _Table:
    base_seed = derive_seed(seed, sample.id, index)
    memory = Memory(visible)
    episode = Episode(sample=sample, index=index, seed=base_seed, visible=visible, messages=memory.messages)
    table = _Table(episode=episode, memory=memory, seats=[], base_seed=base_seed)
    for agent in agents:
        state = agent.start(sample)
        episode.trajectories[agent.name] = state.trajectory
        table.seats.append(_Seat(agent=agent, state=state, table=table))
    return table


def _speak(seats: Sequence[_Seat], kind: TurnKind, generate: Generate) -> None:
    """Let every seat take one turn. All read before any writes, so nobody sees a reply of the same phase."""
    speakers, requests = [], []
    for seat in seats:
        name, table, state = seat.agent.name, seat.table, seat.state
        own, peers = table.memory.read(name)
        turn_seed = derive_seed(table.base_seed, name, len(state.trajectory.turns))
        request = seat.agent.ask(state, kind, table.rounds, own, peers, turn_seed)
        if request is not None:
            speakers.append(seat)
            requests.append(request)
    if not requests:
        return
    for seat, reply in zip(speakers, generate(requests), strict=True):
        seat.table.memory.add(seat.agent.read(seat.state, reply))


def _execute(seats: Sequence[_Seat], number: int, run_tools: RunTools, max_calls: int) -> None:
    """Run the next step of every seat that has one; calls beyond the limit are dropped."""
    working: list[_Seat] = []
    calls: list[tuple[Sample, ToolCall]] = []
    dropped: list[tuple[_Seat, Sequence[ToolCall]]] = []
    for seat in seats:
        if not seat.state.steps:
            continue
        left = max_calls - len(seat.state.trajectory.calls)
        if left <= 0:
            dropped.append((seat, [call for step in seat.state.steps for call in step]))
            seat.state.steps.clear()
            continue
        step = seat.state.steps.pop(0)
        dropped.append((seat, step[left:]))
        working += [seat] * len(step[:left])
        calls += [(seat.state.sample, call) for call in step[:left]]
    results = run_tools(calls) if calls else []
    for seat, (_, call), result in zip(working, calls, results, strict=True):
        seat.last_run = number
        seat.state.trajectory.calls.append(call)
        seat.state.trajectory.results.append(result)
        text = result.text if result.error is None else result.error
        seat.table.memory.add(_result(seat, number, call, text, result.status))
    for seat, rest in dropped:
        for call in rest:
            text = f"dropped: an agent may run at most {max_calls} calls"
            seat.table.memory.add(_result(seat, number, call, text, Status.CALL_LIMIT))


def _result(seat: _Seat, number: int, call: ToolCall, text: str, status: Status) -> Message:
    return Message(author=seat.agent.name, round=number, kind=MessageKind.RESULT, text=text, call=call, status=status)


def _finish(table: _Table, aggregate: Aggregate) -> Episode:
    table.episode.answer = aggregate(table.episode.trajectories)
    return table.episode


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
