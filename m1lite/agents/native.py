"""An agent that sees: it is shown frames, calls tools natively, is shown what they return, and answers when it likes.

Another ``Player`` for the same loop as ``agent.py``'s: a reply with calls is a step of the plan, a reply with an answer
ends its part. What calls look like stands in native_calls.py, how frames become ids in media_chat.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from m1lite.agents.agent import AgentState
from m1lite.agents.first_look import whole_video
from m1lite.agents.native_calls import NO_MORE_CALLS, RESPONSE_CLOSE, RESPONSE_OPEN, describe_tools, read_reply
from m1lite.engines.base import Request, Sampling
from m1lite.records import MediaRef, Message, MessageKind, PlacedMedia, Status, Trajectory, Turn, TurnKind
from m1lite.video.budget import FrameBudget

if TYPE_CHECKING:
    from m1lite.agents.first_look import FirstLook
    from m1lite.agents.media_chat import MediaChat, Prompt
    from m1lite.agents.native_calls import Answers
    from m1lite.engines.base import Generation
    from m1lite.records import Sample
    from m1lite.toolbox.base import Tool
    from m1lite.video.cache import FrameCache

Part = str | MediaRef


@dataclass(kw_only=True, slots=True)
class SeeingState(AgentState):
    """One agent that sees within one episode."""

    shown: list[PlacedMedia] = field(default_factory=list)
    """Everything that it was shown so far, by place in its context."""


@dataclass(kw_only=True, frozen=True)
class NativeAgent:
    """An agent whose policy sees frames and calls tools in its replies.

    Its first turn shows frames of the video. Every reply is a call of one or several tools or an answer; a reply
    that is neither, or is cut, is answered by what was wrong with it, while rounds are left. Where no calls are left it
    is told so; a call then is a turn of status CALL_LIMIT that runs nothing. An agent whose context could outgrow
    ``max_context`` gets no more turns, and what the last one would have shown is left out with its words.
    """

    name: str
    answers: Answers
    """Asks for answers and reads them."""
    chat: MediaChat
    frames: FrameCache
    """Tells how large a video's frames are; engine and trainer decode them."""
    tools: Sequence[Tool] = ()
    view: FrameBudget = field(default_factory=FrameBudget)
    """What it is shown at first."""
    look: FirstLook = whole_video
    """Which frames these are."""
    tool_view: FrameBudget = field(default_factory=FrameBudget)
    """What the results of one turn may show."""
    sampling: Sampling = field(default_factory=Sampling)
    manual: Callable[[Sequence[Tool]], str] = describe_tools
    """Words what can be called and how."""
    role: str = "You answer questions about a video of which you see frames, each behind its time."
    max_context: int = 4096
    """Tokens of prompt, frames and replies together that the engine holds."""

    @cached_property
    def system(self) -> str:
        """The system prompt."""
        return "\n\n".join(part for part in (self.role, self.manual(self.tools)) if part)

    def start(self, sample: Sample) -> SeeingState:
        """Begin an episode."""
        return SeeingState(sample=sample, trajectory=Trajectory(agent=self.name))

    def ask(
        self,
        state: AgentState,
        kind: TurnKind,
        round: int,
        own: Sequence[Message],
        peers: Sequence[Message],
        seed: int,
    ) -> Request | None:
        """Build the request of the next turn; ``None`` where the context is full.

        Args:
            state: the agent's; remembers the turn until :meth:`read`.
            kind: of the turn.
            round: of the collaboration.
            own: results of its own calls since its last turn.
            peers: what it reads of its peers since its last turn, as text.
            seed: of the reply.

        Raises:
            VideoError: if the video of the sample cannot be read.
        """
        assert isinstance(state, SeeingState), "a state that this agent started"
        if state.stopped:
            return None
        if kind is TurnKind.PLAN:
            prompt = self.chat.open(self.system, self._question(state))
        else:
            closed = state.context[-1:] == [self.chat.end_of_turn_id]
            prompt = self.chat.extend(self._news(state, kind, own, peers), closed=closed)
        turn = Turn(
            kind=kind, round=round, prompt_ids=[], reply_ids=[], logprobs=[], policy_version=0, seed=seed, text=""
        )
        needed = len(state.context) + len(prompt.ids) + self.sampling.max_new_tokens
        if needed > self.max_context:
            self._stop(state, turn, needed)
            return None
        self._append(state, turn, prompt)
        return Request(
            policy=self.name,
            prompt_ids=state.context.copy(),
            sampling=self.sampling,
            seed=seed,
            media=tuple(state.shown),
        )

    def read(self, state: AgentState, generation: Generation) -> Message:
        """Read the reply to the last request: calls, an answer, or what is wrong with it."""
        turn, state.asked = state.asked, None
        assert turn is not None, "a reply answers a request"
        turn.reply_ids, turn.logprobs = list(generation.token_ids), list(generation.logprobs)
        turn.policy_version = generation.policy_version
        turn.text = self.chat.decode(turn.reply_ids)
        state.context += turn.reply_ids
        state.trajectory.turns.append(turn)
        state.problem = ""
        self._read_reply(state, turn, cut=generation.finish_reason == "length")
        kind = MessageKind.ANSWER if state.answered or turn.kind is TurnKind.ANSWER else _KINDS[turn.kind]
        return Message(author=self.name, round=turn.round, kind=kind, text=turn.text, status=turn.status)

    def _read_reply(self, state: AgentState, turn: Turn, *, cut: bool) -> None:
        parsed = read_reply(turn.text, self.tools)
        if parsed.value is None or cut:
            turn.status, turn.error = parsed.status, parsed.message
            if cut:
                count = len(turn.reply_ids)
                turn.status = Status.TRUNCATED
                turn.error = f"The reply was cut after {count} tokens; write a shorter one. {turn.error}".strip()
            state.problem = turn.error
        elif parsed.value.answers:
            self._read_answer(state, turn)
        elif turn.kind is TurnKind.ANSWER or state.calls_left < 1:
            turn.status, turn.error = Status.CALL_LIMIT, f"{NO_MORE_CALLS} Answer."
        else:
            state.steps = [parsed.value.calls]
        if turn.kind is TurnKind.ANSWER:
            state.problem = ""  # nobody reads it any more

    def _read_answer(self, state: AgentState, turn: Turn) -> None:
        """Read an answer; one that does not parse ends its part too, as a wrong answer would."""
        parsed = self.answers.parse_answer(turn.text, state.sample)
        turn.status, turn.error = parsed.status, parsed.message
        state.trajectory.answer = parsed.value
        state.trajectory.answer_logprob = sum(turn.logprobs) / max(1, len(turn.logprobs))
        state.answered = True

    def _question(self, state: AgentState) -> list[Part]:
        """Word the first message: the frames, then the question and the form of its answer."""
        sample = state.sample
        held = self.frames.metadata(sample.video)
        times = self.look(sample, self.view, min(sample.duration, held.duration))
        size = self.view.size(held.height, held.width, len(times), factor=self.chat.sight.factor)
        shown = MediaRef(uri=sample.video, timestamps=tuple(times), size=size)
        asked = self.answers.ask(sample)
        rule = f"\n{NO_MORE_CALLS}" if self.tools and state.calls_left < 1 else ""
        return [f"The video lasts {sample.duration:g} seconds.\n", shown, f"\n{asked}{rule}"]

    def _news(self, state: AgentState, kind: TurnKind, own: Sequence[Message], peers: Sequence[Message]) -> list[Part]:
        """Word what is new: what was wrong, what the calls returned, what peers wrote, and what is to be done."""
        parts: list[Part] = []
        if state.problem:
            parts.append(f"Your last reply could not be used: {state.problem}\n")
        count = sum(len(media.timestamps) for message in own for media in message.media)
        for message in own:
            parts += [RESPONSE_OPEN, message.text, *self._fitted(message.media, count), RESPONSE_CLOSE, "\n"]
        parts += [f"{message.author}: {message.text}\n" for message in peers]
        last = kind is TurnKind.ANSWER or state.calls_left < 1
        return [*parts, f"{NO_MORE_CALLS} Answer now." if last else "Go on: call tools, or answer."]

    def _fitted(self, media: Sequence[MediaRef], count: int) -> list[Part]:
        """Give the frames of a result the size of this agent's budget; ``count`` frames share it."""
        parts: list[Part] = []
        for ref in media:
            try:
                size = self.tool_view.size(*ref.size, count, factor=self.chat.sight.factor)
            except ValueError as refusal:  # the agent reads it: it may ask for less
                parts.append(f"\nThe frames cannot be shown: {refusal}")
                continue
            parts += ["\n", replace(ref, size=size)]
        return parts

    @staticmethod
    def _append(state: SeeingState, turn: Turn, prompt: Prompt) -> None:
        start = len(state.context)
        turn.prompt_ids, turn.media, turn.media_offsets = prompt.ids, prompt.media, prompt.offsets
        state.shown += [
            PlacedMedia(media=media, offset=start + offset)
            for media, offset in zip(prompt.media, prompt.offsets, strict=True)
        ]
        state.context += prompt.ids
        state.asked = turn

    def _stop(self, state: AgentState, turn: Turn, needed: int) -> None:
        """Close the trajectory with a turn that shows and says nothing."""
        turn.status = Status.TRUNCATED
        turn.error = (
            f"The context would need {needed} tokens, frames included, more than `max_context` {self.max_context} of "
            f"agent {self.name!r}; show fewer or smaller frames, or raise it."
        )
        state.trajectory.turns.append(turn)
        state.steps, state.problem, state.stopped = [], "", True


_KINDS = {TurnKind.PLAN: MessageKind.PLAN, TurnKind.COMMUNICATE: MessageKind.DECISION}
