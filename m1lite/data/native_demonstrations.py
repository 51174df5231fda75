"""The teacher of agents that see: it calls for a clip where the frames shown so far do not tell the answer.

It plays through the collaboration loop like any team, as ``demonstrations.py``'s does. Which stretch of a video tells
an answer it knows from the scene's script; the window it asks for lies around that stretch by chance.
"""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING

from m1lite.agents.native_calls import write_calls
from m1lite.data.demonstrations import Demonstration, Pupil
from m1lite.engines.base import BatchSampler, Generation
from m1lite.records import Span, ToolCall, TurnKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from m1lite.agents.agent import AgentState
    from m1lite.agents.native import NativeAgent
    from m1lite.engines.base import Request
    from m1lite.records import Episode, Sample, Turn

CLIP = "video_clip"
"""The tool that is taught."""
_NOISE = 0.2
"""Most that a window reaches beyond the telling stretch, as a share of it (VITAL's 20 %), but at least a second."""


class NativeDemonstrator:
    """A team that shows how to look and answer, to be run by the loop in place of agents and engine.

    A stretch is seen where a frame of each of its seconds, and of the second before and after it, was shown. An agent
    that has not seen the telling stretch, but could with one clip of a frame a second, calls for it; then it answers.
    Where the stretch was not seen at the end, the right answer is written but left out of the loss: learning it there
    would teach to guess.

    Args:
        agents: the team to teach; prompts, frames and tools are theirs.
        stretch: a sample to the part of its video that tells its answer.
        max_seconds: longest clip that is called for.
        answer_weight: of an answering turn in the loss; turns with calls have 1.
        call_share: probability of a call, whatever was seen; then every right answer is in the loss, so that when to
            call is left to learn, and so is how well one answers without. None calls where it tells more.
        think: a sample and the seconds of the frames that were shown last to what is thought before a call or an
            answer; None thinks nothing.

    Raises:
        ValueError: if the weight or the length is not positive, or the share is no probability.
    """

    def __init__(
        self,
        agents: Sequence[NativeAgent],
        stretch: Callable[[Sample], Span],
        *,
        max_seconds: int = 16,
        answer_weight: float = 1.0,
        call_share: float | None = None,
        think: Callable[[Sample, Sequence[float]], str] | None = None,
    ) -> None:
        if call_share is not None and not 0 <= call_share <= 1:
            raise ValueError(f"`call_share` is {call_share}; a probability lies between 0 and 1.")
        if not (answer_weight > 0 and max_seconds > 0):
            raise ValueError(f"`answer_weight` {answer_weight} and `max_seconds` {max_seconds} must be above 0.")
        self._asked: dict[int, tuple[NativeAgent, AgentState]] = {}
        self.players = [Pupil(agent, self._asked) for agent in agents]
        self.stretch = stretch
        self.max_seconds = max_seconds
        self.answer_weight = answer_weight
        self.call_share = call_share
        self.think = think
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
                seen = self.call_share is not None or self._saw(episode.sample, trajectory.turns)
                called = [bool(turn.reply_ids) and turn is not trajectory.turns[-1] for turn in trajectory.turns]
                answer = self.answer_weight if seen and trajectory.answer is not None else 0.0
                weights = [1.0 if call else answer for call in called]
                if any(weights):
                    found.append(Demonstration(trajectory=trajectory, task=episode.sample.task, weights=weights))
        return found

    def _reply(self, request: Request) -> Generation:
        if request.seed not in self._asked:
            raise ValueError(f"A request of {request.policy!r} is not of this team; run the loop on its `players`.")
        agent, state = self._asked.pop(request.seed)
        text = self._thoughts(state) + self._write(agent, state, Random(request.seed))
        ids = [*agent.chat.chat.encode(text), agent.chat.end_of_turn_id]
        return Generation(token_ids=ids, logprobs=[0.0] * len(ids), policy_version=0, finish_reason="stop")

    def _thoughts(self, state: AgentState) -> str:
        assert state.asked is not None, "a request was made"
        if self.think is None:
            return ""
        *_, shown = (turn.media for turn in [*state.trajectory.turns, state.asked] if turn.media)
        seconds = [second for media in shown for second in media.timestamps]
        return f"<think>{self.think(state.sample, seconds)}</think>"

    def _write(self, agent: NativeAgent, state: AgentState, rng: Random) -> str:
        turn, sample = state.asked, state.sample
        assert turn is not None, "a request was made"
        may_call = turn.kind is TurnKind.PLAN and state.calls_left > 0 and CLIP in {tool.name for tool in agent.tools}
        if may_call and (
            rng.random() < self.call_share if self.call_share is not None else not self._saw(sample, [turn])
        ):
            window = clip_window(self.stretch(sample), sample.duration, rng)
            if window[1] - window[0] <= self.max_seconds:
                args = {"start": window[0], "end": window[1], "fps": 1}
                return write_calls([ToolCall(tool=CLIP, args=args)])
        return agent.answers.write_answer(sample.answer, sample)

    def _saw(self, sample: Sample, turns: Iterable[Turn]) -> bool:
        shown = [second for turn in turns for media in turn.media for second in media.timestamps]
        return is_seen(self.stretch(sample), shown, sample.duration)


def is_seen(stretch: Span, shown: Iterable[float], duration: float) -> bool:
    """Say whether a frame was shown of each second of a stretch, and of the one before and after it.

    Args:
        stretch: seconds.
        shown: seconds of the frames.
        duration: of the video; there is nothing outside of it.

    Example:
        >>> is_seen(Span(start=2, end=4), [1, 2, 3, 4.5], 9), is_seen(Span(start=2, end=4), [1, 3, 4], 9)
        (True, False)
    """
    seconds = {math.floor(second) for second in shown}
    wanted = range(math.floor(stretch.start) - 1, math.ceil(stretch.end) + 1)
    return all(second in seconds for second in wanted if 0 <= second < duration)


def clip_window(stretch: Span, duration: float, rng: Random) -> tuple[int, int]:
    """Draw a window around a stretch, in whole seconds within the video.

    Args:
        stretch: seconds.
        duration: of the video.
        rng: how far it reaches beyond the stretch on each side: 1 s to 20 % of the stretch.
    """
    most = max(1, math.floor(_NOISE * (stretch.end - stretch.start)))
    first = math.floor(stretch.start) - rng.randint(1, most)
    last = math.ceil(stretch.end) + rng.randint(1, most)
    return max(0, first), min(math.floor(duration), last)
