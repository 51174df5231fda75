"""One agent: builds the request of each of its turns and reads the reply. It runs no tool and knows no other agent.

What happens when stands in collaboration/loop.py; the words stand in the spelling, the ids in the chat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from m1lite.engines.base import Request, Sampling
from m1lite.records import Message, MessageKind, Status, Trajectory, Turn, TurnKind

if TYPE_CHECKING:
    from m1lite.agents.chat import Chat
    from m1lite.agents.plan import Spelling
    from m1lite.engines.base import Generation
    from m1lite.records import Sample, ToolCall
    from m1lite.toolbox.base import Tool

_MESSAGE_KINDS = {
    TurnKind.PLAN: MessageKind.PLAN,
    TurnKind.COMMUNICATE: MessageKind.DECISION,
    TurnKind.ANSWER: MessageKind.ANSWER,
}


@dataclass(kw_only=True, slots=True)
class AgentState:
    """One agent within one episode."""

    sample: Sample
    trajectory: Trajectory
    context: list[int] = field(default_factory=list)
    """All ids so far: what the agent read and what it wrote."""
    steps: list[tuple[ToolCall, ...]] = field(default_factory=list)
    """The rest of its plan: one step per round, whose calls run side by side."""
    problem: str = ""
    """What was wrong with its last plan or decision; empty where it was fine."""
    calls_left: int = 0
    """How many calls may still run after the turn that is asked for; 0 in the last round. The loop sets it."""
    answered: bool = False
    """Whether its last reply was its answer, so that it gets neither an answer turn nor any other."""
    stopped: bool = False
    """Whether the context is full, so that the agent gets no more turns."""
    asked: Turn | None = None
    """The turn whose reply is awaited."""


class Player(Protocol):
    """What the collaboration loop needs of an agent; ``Agent`` is one.

    Where a reply is the answer already, ``read`` sets ``state.answered`` and ``trajectory.answer`` and gives a message
    of kind ANSWER; the turn keeps the kind that was asked for.
    """

    @property
    def name(self) -> str:
        """Its name in the team, and the policy that its requests are sampled from."""

    def start(self, sample: Sample) -> AgentState:
        """Begin an episode."""

    def ask(
        self, state: AgentState, kind: TurnKind, round: int, own: Sequence[Message], peers: Sequence[Message], seed: int
    ) -> Request | None:
        """Build the request of the next turn; ``None`` where the agent gets no more turns."""

    def read(self, state: AgentState, generation: Generation) -> Message:
        """Read the reply to the last request and return what the memory keeps of it."""


@dataclass(kw_only=True, frozen=True)
class Agent:
    """An agent that plans, decides and answers in a spelling.

    A reply that was cut at the token limit has the status TRUNCATED and is not parsed. An agent whose context could
    outgrow ``max_context`` with the next turn gets no more turns: its trajectory closes with a turn without tokens of
    status TRUNCATED, the rest of its plan is dropped and it has no answer.
    """

    name: str
    spelling: Spelling
    chat: Chat
    tools: Sequence[Tool]
    """What it may call."""
    sampling: Sampling = field(default_factory=Sampling)
    role: str = ""
    """Who it is, for the system prompt."""
    max_context: int = 1024
    """Tokens of prompt and reply together that the engine holds."""

    @cached_property
    def system(self) -> str:
        """The system prompt."""
        return self.spelling.system(self.role, self.tools)

    def start(self, sample: Sample) -> AgentState:
        """Begin an episode."""
        return AgentState(sample=sample, trajectory=Trajectory(agent=self.name))

    def ask(
        self, state: AgentState, kind: TurnKind, round: int, own: Sequence[Message], peers: Sequence[Message], seed: int
    ) -> Request | None:
        """Build the request of the next turn.

        Args:
            state: the agent's; remembers the turn until :meth:`read`.
            kind: of the turn.
            round: of the collaboration.
            own: results of its own calls since its last turn.
            peers: what it reads of its peers since its last turn.
            seed: of the reply.

        Returns:
            The request, or ``None`` where the context is full.
        """
        if state.stopped:
            return None
        if kind is TurnKind.PLAN:
            new = self.chat.open(self.system, self.spelling.question(state.sample))
        else:
            if kind is TurnKind.COMMUNICATE:
                text = self.spelling.observation(own, peers, state.problem)
            else:
                text = self.spelling.ask_answer(state.sample, own, peers)
            new = self.chat.extend(text, closed=state.context[-1:] == [self.chat.end_of_turn_id])
        turn = Turn(
            kind=kind, round=round, prompt_ids=new, reply_ids=[], logprobs=[], policy_version=0, seed=seed, text=""
        )
        needed = len(state.context) + len(new) + self.sampling.max_new_tokens
        if needed > self.max_context:
            self._stop(state, turn, needed)
            return None
        state.context += new
        state.asked = turn
        return Request(policy=self.name, prompt_ids=state.context.copy(), sampling=self.sampling, seed=seed)

    def read(self, state: AgentState, generation: Generation) -> Message:
        """Read the reply to the last request.

        Returns:
            The plan, decision or answer as the memory keeps it.
        """
        turn, state.asked = state.asked, None
        assert turn is not None, "a reply answers a request"
        turn.reply_ids, turn.logprobs = list(generation.token_ids), list(generation.logprobs)
        turn.policy_version = generation.policy_version
        turn.text = self.chat.decode(turn.reply_ids)
        state.context += turn.reply_ids
        state.trajectory.turns.append(turn)
        message = Message(author=self.name, round=turn.round, kind=_MESSAGE_KINDS[turn.kind], text=turn.text)
        if generation.finish_reason == "length":
            turn.status = Status.TRUNCATED
            turn.error = f"The reply was cut after {len(turn.reply_ids)} tokens; write a shorter one."
            if turn.kind is not TurnKind.ANSWER:
                state.problem = turn.error
        elif turn.kind is TurnKind.ANSWER:
            self._read_answer(state, turn)
        else:
            self._read_plan(state, turn, message)
        message.status = turn.status
        return message

    def _read_plan(self, state: AgentState, turn: Turn, message: Message) -> None:
        """Read a plan or a decision; where it does not parse, the rest of the plan stays as it was."""
        planning = turn.kind is TurnKind.PLAN
        parsed = (self.spelling.parse_plan if planning else self.spelling.parse_decision)(turn.text, self.tools)
        turn.status, turn.error, state.problem = parsed.status, parsed.message, parsed.message
        if parsed.value is not None:
            state.steps = [(call,) for call in parsed.value.steps]
            message.plan = parsed.value

    def _read_answer(self, state: AgentState, turn: Turn) -> None:
        parsed = self.spelling.parse_answer(turn.text, state.sample)
        turn.status, turn.error = parsed.status, parsed.message
        state.trajectory.answer = parsed.value
        state.trajectory.answer_logprob = sum(turn.logprobs) / max(1, len(turn.logprobs))

    def _stop(self, state: AgentState, turn: Turn, needed: int) -> None:
        turn.prompt_ids = []
        turn.status = Status.TRUNCATED
        turn.error = (
            f"The context would need {needed} tokens, more than `max_context` {self.max_context} of agent "
            f"{self.name!r}; plan fewer steps or raise it."
        )
        state.trajectory.turns.append(turn)
        state.steps, state.problem, state.stopped = [], "", True
