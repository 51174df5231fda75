"""The records that cross module borders: what a sample, a turn, a trajectory and a training batch are.

Dataclasses and enums only, no behaviour beyond checks; this file imports nothing of m1lite. Times are seconds, spans
are half-open ``[start, end)``, boxes are pixels of the original video.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Task(StrEnum):
    """What a question asks for; decides how its answer is written, read and scored."""

    GROUNDING = "grounding"
    """When? One span."""
    CHOICE = "choice"
    """Which of the options? Answered by content, never by a letter."""
    COUNTING = "counting"
    """How many? One whole number."""
    GROUNDED_QA = "grounded_qa"
    """A short text and the span that shows it."""
    TRACKING = "tracking"
    """One box for each asked time."""
    CAPTION = "caption"
    """The list of events, in order."""


class Status(StrEnum):
    """How a turn, a plan or a call went; anything but ``OK`` is a fact to log, never an exception."""

    OK = "ok"
    INVALID_PLAN = "invalid_plan"
    """The plan or decision does not parse, or names a tool that the agent lacks."""
    INVALID_ANSWER = "invalid_answer"
    """The answer does not parse for its task."""
    TRUNCATED = "truncated"
    """The reply was cut at the token limit or at the end of the context."""
    TOOL_ERROR = "tool_error"
    """The tool refused its arguments or raised."""
    TOOL_TIMEOUT = "tool_timeout"
    """The tool missed its deadline."""
    CALL_LIMIT = "call_limit"
    """The step was dropped because the agent had used all its calls."""


class TurnKind(StrEnum):
    """Which part of Collaborative Policy Planning a turn belongs to."""

    PLAN = "plan"
    COMMUNICATE = "communicate"
    ANSWER = "answer"


class MessageKind(StrEnum):
    """What a memory entry holds."""

    PLAN = "plan"
    RESULT = "result"
    DECISION = "decision"
    ANSWER = "answer"


@dataclass(kw_only=True, slots=True, frozen=True)
class Span:
    """A stretch of time ``[start, end)``."""

    start: float
    """Seconds, at least 0."""
    end: float
    """Seconds, at least ``start``."""

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end < float("inf"):
            raise ValueError(f"`Span` needs 0 <= start <= end (seconds), got start={self.start}, end={self.end}.")


@dataclass(kw_only=True, slots=True, frozen=True)
class Box:
    """An axis-aligned box in pixels of the original video, right and bottom exclusive."""

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        if not (self.left <= self.right and self.top <= self.bottom):
            raise ValueError(
                "`Box` needs left <= right and top <= bottom (pixels), got "
                f"left={self.left}, top={self.top}, right={self.right}, bottom={self.bottom}."
            )


@dataclass(kw_only=True, slots=True, frozen=True)
class Answer:
    """An answer, true or given; a task fills the fields it needs and leaves the rest empty."""

    text: str | None = None
    """Choice (the option's content) and grounded QA (the short answer)."""
    number: float | None = None
    """Counting."""
    spans: tuple[Span, ...] = ()
    """Grounding (one) and grounded QA (one or several)."""
    boxes: tuple[Box, ...] = ()
    """Tracking: one box per time in ``Sample.times``."""
    events: tuple[str, ...] = ()
    """Caption: the events in order."""


@dataclass(kw_only=True, slots=True)
class Sample:
    """One question about one video."""

    id: str
    """Unique within its split."""
    video: str
    """Path or URI of the video file."""
    duration: float
    """Seconds."""
    task: Task
    question: str
    """The question's text as the agents read it."""
    answer: Answer
    """The truth. Rewards and evaluation read it; tools and agents never do."""
    options: tuple[str, ...] = ()
    """Choice, and grounded QA that chooses: the options' contents, in the order shown."""
    times: tuple[float, ...] = ()
    """Tracking only: the asked times in seconds."""
    size: tuple[int, int] | None = None
    """Height and width of the video in pixels; ``None`` where nobody has looked."""
    tags: dict[str, str] = field(default_factory=dict)
    """Free labels for grouped reports (category, length class, source)."""


@dataclass(kw_only=True, slots=True, frozen=True)
class ToolCall:
    """A request to run one tool."""

    tool: str
    args: Mapping[str, Any]
    """Argument name to plain JSON value; only the arguments that were given."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Plan:
    """An ordered list of tool calls."""

    steps: tuple[ToolCall, ...] = ()


@dataclass(kw_only=True, slots=True, frozen=True)
class MediaRef:
    """Frames by reference: decoded where they are used, never shipped between processes."""

    uri: str
    timestamps: tuple[float, ...]
    """Seconds."""
    size: tuple[int, int]
    """Height and width in pixels after the resize."""
    box: tuple[float, float, float, float] | None = None
    """The part of each frame that is shown before the resize: left, top, right, bottom, as shares of its width and
    height in [0, 1]; ``None`` is all of it."""

    def __post_init__(self) -> None:
        if not self.timestamps or min(self.size) < 1:
            raise ValueError(
                f"`MediaRef` needs at least one time and a size of at least 1 pixel a side, got {self.timestamps} "
                f"and {self.size}."
            )
        if self.box is not None and not (0 <= self.box[0] < self.box[2] <= 1 and 0 <= self.box[1] < self.box[3] <= 1):
            raise ValueError(f"`MediaRef.box` needs 0 <= left < right <= 1 and 0 <= top < bottom <= 1, got {self.box}.")


@dataclass(kw_only=True, slots=True, frozen=True)
class PlacedMedia:
    """A picture and where its placeholders begin."""

    media: MediaRef
    """Of one time: every frame stands for itself."""
    offset: int
    """Index of its first placeholder, in the ids that the record around it holds."""


@dataclass(kw_only=True, slots=True)
class ToolResult:
    """What a tool gave back. An error is text that the agent reads as a normal turn."""

    text: str = ""
    error: str | None = None
    """What was wrong, with the value and what is allowed; ``None`` when the call succeeded."""
    status: Status = Status.OK
    media: tuple[MediaRef, ...] = ()
    seconds: float = 0.0
    """Wall time of the call; 0 for a result from the cache."""
    cached: bool = False


@dataclass(kw_only=True, slots=True)
class Message:
    """One entry of the shared memory."""

    author: str
    round: int
    """0 for the plans, n for execution and communication step n."""
    kind: MessageKind
    text: str
    """What the author wrote, or the text of the tool result."""
    call: ToolCall | None = None
    """The executed call of a RESULT."""
    plan: Plan | None = None
    """The parsed plan of a PLAN, or the rewritten rest of a DECISION; ``None`` where it did not parse or was kept."""
    status: Status = Status.OK
    media: tuple[MediaRef, ...] = ()
    """Frames of a RESULT, for agents that see."""


@dataclass(kw_only=True, slots=True)
class Turn:
    """One generation of one agent, as the engine consumed and produced it."""

    kind: TurnKind
    round: int
    prompt_ids: list[int]
    """Only the ids appended since the last turn's reply; the full prompt is the concatenation of all turns before."""
    reply_ids: list[int]
    """The sampled ids, with the end-of-turn token where the policy wrote one."""
    logprobs: list[float]
    """Log-probability of each reply id under the distribution it was sampled from, same length as ``reply_ids``."""
    policy_version: int
    """Engine weights that this turn was sampled under; rollout and update must agree."""
    seed: int
    text: str
    """The reply as read by the parser (decoded, without special tokens)."""
    status: Status = Status.OK
    error: str = ""
    """The parser's message where ``status`` is not OK."""
    media: tuple[MediaRef, ...] = ()
    """Frames that this turn's prompt shows, one time each, in the order of their placeholders."""
    media_offsets: tuple[int, ...] = ()
    """Index in ``prompt_ids`` of the first placeholder of each of ``media``."""


@dataclass(kw_only=True, slots=True)
class Trajectory:
    """Everything one agent did in one episode: one token sequence with a loss mask."""

    agent: str
    turns: list[Turn] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    """The calls that were executed, in order."""
    results: list[ToolResult] = field(default_factory=list)
    """One per executed call."""
    answer: Answer | None = None
    """``None`` where the answer did not parse."""
    answer_logprob: float = 0.0
    """Mean log-probability of the answer turn's tokens."""

    def __repr__(self) -> str:
        tokens = sum(len(turn.prompt_ids) + len(turn.reply_ids) for turn in self.turns)
        return f"Trajectory(agent={self.agent!r}, turns={len(self.turns)}, calls={len(self.calls)}, tokens={tokens})"


@dataclass(kw_only=True, slots=True)
class Episode:
    """One run of the team on one sample."""

    sample: Sample
    index: int
    """Which of the sample's K episodes."""
    seed: int
    visible: Mapping[str, tuple[str, ...]]
    """Topology: agent name to the names of the peers it reads."""
    trajectories: dict[str, Trajectory] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    answer: Answer | None = None
    """The team's aggregated answer."""

    def __repr__(self) -> str:
        return f"Episode(sample={self.sample.id!r}, index={self.index}, agents={list(self.trajectories)})"


@dataclass(kw_only=True, slots=True)
class TokenBatch:
    """Trajectories of one agent as padded rows, ready for the loss. B rows, T tokens."""

    agent: str
    input_ids: Tensor
    """long ``(B, T)``, padded on the right."""
    attention_mask: Tensor
    """bool ``(B, T)``, true on real tokens."""
    loss_mask: Tensor
    """bool ``(B, T)``, true exactly on the tokens that the policy sampled."""
    sampled_logprobs: Tensor
    """float32 ``(B, T)``, the engine's log-probs; 0 where ``loss_mask`` is false."""
    advantages: Tensor
    """float32 ``(B, T)``, 0 where ``loss_mask`` is false."""
    temperature: float
    policy_version: int
    media: tuple[tuple[PlacedMedia, ...], ...] = ()
    """Per row what is shown, by place in the row; empty where no row shows anything."""
    names: tuple[str, ...] = ()
    """Per row which sample and episode it is of, for messages; may be empty."""

    def __repr__(self) -> str:
        rows, width = self.input_ids.shape
        return (
            f"TokenBatch(agent={self.agent!r}, rows={rows}, width={width}, "
            f"loss_tokens={int(self.loss_mask.sum())}, version={self.policy_version})"
        )
