"""The cold start's teacher: valid plans with random tools and arguments, and the right answer where results show it.

It plays through the collaboration loop like any team: pass ``players`` as the agents and ``sampler`` as the engine,
and take ``demonstrations`` of the episodes. So every row holds real prompts and real tool results. What it knows of the
truth is used for the answer turn alone; tools and arguments are drawn blindly, so that choosing them is left to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Generic, TypeVar

from m1lite.data.calls import RandomCalls, TellingCalls
from m1lite.data.evidence import shown
from m1lite.engines.base import BatchSampler, Generation
from m1lite.records import Episode, MessageKind, Status, Task, Trajectory, TurnKind

if TYPE_CHECKING:
    from m1lite.agents.agent import Agent, AgentState, Player
    from m1lite.data.calls import Calls
    from m1lite.engines.base import Request
    from m1lite.records import Message

P = TypeVar("P", bound="Player")


@dataclass(kw_only=True, slots=True)
class Demonstration:
    """One agent's part of a demonstrated episode."""

    trajectory: Trajectory
    task: Task
    weights: list[float]
    """One per turn; 0 leaves the turn out of the loss. ``turns_row(trajectory.turns, weights)`` makes a row of it."""


class Demonstrator:
    """A team that shows how to reply, to be run by the collaboration loop in place of agents and engine.

    Every reply is drawn from its request's seed. Where the answer is not shown, the right one is written but left out
    of the loss: learning it there would teach to guess. Give the loop about a hundred samples at a time: tens of
    thousands of live turns keep the garbage collector busy for half of the time.

    Args:
        agents: the team to teach; prompts, spelling and tools are theirs.
        calls: draws the plans; by default ``RandomCalls()``, for drills ``TellingCalls()``.
        keep_probability: of keeping the rest of the plan; otherwise it is drawn anew.
        answer_weight: of the answer turn in the loss, the other turns have 1.
        drills: make reading drills instead: only trajectories that were shown the answer, and in them only that turn is
            in the loss.

    Raises:
        ValueError: if ``keep_probability`` is no probability or ``answer_weight`` is not positive.
    """

    def __init__(
        self,
        agents: Sequence[Agent],
        *,
        calls: Calls | None = None,
        keep_probability: float = 0.8,
        answer_weight: float = 1.0,
        drills: bool = False,
    ) -> None:
        if not 0 <= keep_probability <= 1:
            raise ValueError(f"`keep_probability` is {keep_probability}; a probability lies between 0 and 1.")
        if answer_weight <= 0:
            raise ValueError(f"`answer_weight` is {answer_weight}; it must be above 0, or no answer is learnt.")
        self._asked: dict[int, tuple[Agent, AgentState]] = {}
        self.players = [Pupil(agent, self._asked) for agent in agents]
        by_default: Calls = TellingCalls() if drills else RandomCalls()
        self.calls = by_default if calls is None else calls
        self.keep_probability = keep_probability
        self.answer_weight = answer_weight
        self.drills = drills
        self.sampler = BatchSampler(self.generate)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Write the replies to requests of ``players``.

        Raises:
            ValueError: for a request that does not come from them.
        """
        return [self._reply(request) for request in requests]

    def demonstrations(self, episodes: Sequence[Episode]) -> list[Demonstration]:
        """Take the demonstrations of episodes that the loop ran with this team, in their order."""
        found = []
        for episode in episodes:
            for trajectory in episode.trajectories.values():
                weights = self._weights(episode, trajectory)
                if any(weights):
                    task = episode.sample.task
                    found.append(Demonstration(trajectory=trajectory, task=task, weights=weights))
        return found

    def _weights(self, episode: Episode, trajectory: Trajectory) -> list[float]:
        stopped = not trajectory.turns[-1].reply_ids  # its context was full, so the last results went unread
        knows = not stopped and shown(episode.sample, read_results(episode, trajectory.agent))
        answer, other = self.answer_weight if knows else 0.0, 0.0 if self.drills else 1.0
        return [answer if turn.kind is TurnKind.ANSWER else other for turn in trajectory.turns]

    def _reply(self, request: Request) -> Generation:
        if request.seed not in self._asked:
            raise ValueError(f"A request of {request.policy!r} is not of this team; run the loop on its `players`.")
        agent, state = self._asked.pop(request.seed)
        ids = [*agent.chat.encode(self._write(agent, state, Random(request.seed))), agent.chat.end_of_turn_id]
        return Generation(token_ids=ids, logprobs=[0.0] * len(ids), policy_version=0, finish_reason="stop")

    def _write(self, agent: Agent, state: AgentState, rng: Random) -> str:
        assert state.asked is not None, "a request was made"
        sample = state.sample
        if state.asked.kind is TurnKind.ANSWER:
            return agent.spelling.write_answer(sample.answer, sample)
        if state.asked.kind is TurnKind.PLAN:
            return agent.spelling.write_plan(self.calls.plan(sample, agent.tools, rng))
        keep = rng.random() < self.keep_probability
        return agent.spelling.write_decision(None if keep else self.calls.plan(sample, agent.tools, rng))


class Pupil(Generic[P]):
    """An agent that notes whom each request belongs to, by its seed; the loop sees it as any other agent."""

    def __init__(self, agent: P, asked: dict[int, tuple[P, AgentState]]) -> None:
        self.name = agent.name
        self.start = agent.start
        self.read = agent.read
        self._agent = agent
        self._asked = asked

    def ask(
        self, state: AgentState, kind: TurnKind, round: int, own: Sequence[Message], peers: Sequence[Message], seed: int
    ) -> Request | None:
        """Build the request and note its agent."""
        request = self._agent.ask(state, kind, round, own, peers, seed)
        if request is not None:
            self._asked[seed] = (self._agent, state)
        return request


def read_results(episode: Episode, agent: str) -> list[str]:
    """Return the texts of the results that an agent read: its own and its visible peers', errors left out."""
    authors = {agent, *episode.visible[agent]}
    return [
        message.text
        for message in episode.messages
        if message.kind is MessageKind.RESULT and message.status is Status.OK and message.author in authors
    ]
