"""Chats as token ids: only new ids are appended, so a trajectory is one sequence with exact marks on sampled tokens.

The fixed ids around the messages are read off the tokenizer's chat template once; after that nothing is rendered again,
and nothing that a policy sampled is ever decoded and tokenised anew. ``pack`` makes the loss's rows of trajectories.
What the messages say is the spelling's matter (plan.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from m1lite.records import PlacedMedia, TokenBatch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from m1lite.records import Trajectory

_MAX_KNOWN = 8192
"""Tokenised texts remembered by one chat: system prompts, questions and frequent observations come again and again."""

_SYSTEM, _ASK, _SAY, _MORE, _SAY2, _MORE2 = "aqsystemqa", "aqaskqa", "aqsayqa", "aqmoreqa", "aqsaidqa", "aqfurtherqa"
_THOUGHT = "aqthoughtqa"


class ChatTemplateError(ValueError):
    """A chat template that cannot be used; says why and what to do."""


class Chat:
    """Turns messages into ids with a Hugging Face tokenizer and its chat template.

    Special tokens that are spelled out inside a message are tokenised as ordinary text where the tokenizer can: what a
    tool or a peer writes cannot close a turn.

    Args:
        tokenizer: with a chat template that knows the roles system, user and assistant.
        enable_thinking: passed to the template; templates without the option ignore it.
        history: ``"template"`` demands that the template itself is append-only. ``"keep"`` goes on where it would
            rewrite replies of the past (Qwen3 drops old thoughts): they stay in the context as they were sampled.

    Raises:
        ChatTemplateError: if the template refuses the roles, hides a message, ends replies without a special token, or
            rewrites history; names the remedy.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        enable_thinking: bool = False,
        history: Literal["template", "keep"] = "template",
    ) -> None:
        self.tokenizer = tokenizer
        opening = _render(tokenizer, [_SYSTEM, _ASK], enable_thinking)
        longer = _render(tokenizer, [_SYSTEM, _ASK, _SAY, _MORE], enable_thinking)
        head, between, tail = _split(opening, _SYSTEM, _ASK)
        _, closing, next_tail = _split(longer, _SAY, _MORE)
        self._known: dict[str, list[int]] = {}
        self._head, self._between, self._tail = self._markup(head), self._markup(between), self._markup(tail)
        self._closing, self._next_tail = self._markup(closing), self._markup(next_tail)
        if not self._closing or self._closing[0] not in tokenizer.added_tokens_decoder:
            raise ChatTemplateError(
                f"The chat template ends a reply with {closing!r}, which does not begin with a special token; "
                "the end of a turn must be one token, so give the tokenizer a template that has it."
            )
        if history == "template":
            self._demand_append_only(opening, longer, closing, enable_thinking)

    @property
    def end_of_turn_id(self) -> int:
        """The id with which a reply ends."""
        return self._closing[0]

    def open(self, system: str, user: str | Sequence[int]) -> list[int]:
        """Return the first prompt's ids, up to where the first reply begins; a message may be ids already."""
        return [*self.before_first(system), *self._content(user), *self._tail]

    def extend(self, user: str | Sequence[int], *, closed: bool) -> list[int]:
        """Return the ids to append after a reply, up to where the next reply begins.

        Args:
            user: the next user message, or its ids.
            closed: whether the reply ended with the end-of-turn id; a reply that was cut gets it here, as a token that
                nobody sampled.
        """
        return [*self.before_next(closed=closed), *self._content(user), *self._next_tail]

    def before_first(self, system: str) -> list[int]:
        """Return the ids in front of the first user message."""
        return [*self._head, *self.encode(system), *self._between]

    def before_next(self, *, closed: bool) -> list[int]:
        """Return the ids between a reply and the next user message, with ``closed`` as in :meth:`extend`."""
        return self._closing[closed:]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text without any markup; do not change the list."""
        ids = self._known.get(text)
        if ids is None:
            ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[text] = ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of a reply, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def _content(self, message: str | Sequence[int]) -> Sequence[int]:
        return self.encode(message) if isinstance(message, str) else message

    def _markup(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _demand_append_only(self, opening: str, longer: str, closing: str, enable_thinking: bool) -> None:
        third = _render(self.tokenizer, [_SYSTEM, _ASK, _SAY, _MORE, _SAY2, _MORE2], enable_thinking)
        thinking = f"<think>\n{_THOUGHT}\n</think>\n\n{_SAY}"
        thought = _render(self.tokenizer, [_SYSTEM, _ASK, thinking, _MORE], enable_thinking)
        steps = ((opening, _SAY, longer), (longer, _SAY2, third))
        if _THOUGHT in thought and closing in third and all(self._continues(*step) for step in steps):
            return
        raise ChatTemplateError(
            "The chat template rewrites history: what it renders after a reply does not begin with what the policy "
            'read and wrote before. Set `history="keep"` to leave past replies as they were sampled, or use a template '
            "that is append-only."
        )

    def _continues(self, before: str, reply: str, after: str) -> bool:
        """Whether ``after`` begins with ``before`` and the reply, as text or (where blanks carry no meaning) as ids."""
        if after.startswith(before + reply):
            return True
        ids = [*self._markup(before), *self._markup(reply)]
        return self._markup(after)[: len(ids)] == ids


def pack(
    trajectories: Sequence[Trajectory],
    advantages: Sequence[float | Sequence[float]],
    *,
    pad_id: int,
    temperature: float,
    names: Sequence[str] = (),
) -> TokenBatch:
    """Lay trajectories of one agent out as padded rows, with the places of what they were shown.

    Args:
        trajectories: B trajectories of one agent, sampled under one version of its weights.
        advantages: one per trajectory, either a number for all of its turns or one number for each turn.
        pad_id: fills the rows on the right.
        temperature: that the replies were sampled with.
        names: of the trajectories, for messages about their rows; may be empty.

    Returns:
        B rows of the longest trajectory's length; the loss mask is true exactly on sampled tokens.

    Raises:
        ValueError: if there are no trajectories, the lengths differ, or agents or versions are mixed.
    """
    if not trajectories or len(trajectories) != len(advantages):
        raise ValueError(
            f"`pack` needs at least one trajectory and one advantage for each, got {len(trajectories)} trajectories "
            f"and {len(advantages)} advantages."
        )
    agent = _only({trajectory.agent for trajectory in trajectories}, "agents")
    versions = {turn.policy_version for trajectory in trajectories for turn in trajectory.turns if turn.reply_ids}
    version = _only(versions or {0}, "versions")
    rows = [_row(trajectory, advantage) for trajectory, advantage in zip(trajectories, advantages, strict=True)]
    width = max(len(ids) for ids, _, _, _ in rows)
    lengths = torch.tensor([len(ids) for ids, _, _, _ in rows])
    media = tuple(_placed(trajectory) for trajectory in trajectories)
    return TokenBatch(
        agent=agent,
        input_ids=torch.tensor([ids + [pad_id] * (width - len(ids)) for ids, _, _, _ in rows], dtype=torch.long),
        attention_mask=torch.arange(width) < lengths[:, None],
        loss_mask=torch.tensor([mask + [False] * (width - len(mask)) for _, mask, _, _ in rows], dtype=torch.bool),
        sampled_logprobs=torch.tensor([row + [0.0] * (width - len(row)) for _, _, row, _ in rows], dtype=torch.float32),
        advantages=torch.tensor([row + [0.0] * (width - len(row)) for _, _, _, row in rows], dtype=torch.float32),
        temperature=temperature,
        policy_version=version,
        media=media if any(media) else (),
        names=tuple(names),
    )


def _placed(trajectory: Trajectory) -> tuple[PlacedMedia, ...]:
    """Place what the turns showed in the trajectory's one sequence."""
    placed: list[PlacedMedia] = []
    start = 0
    for turn in trajectory.turns:
        pairs = zip(turn.media, turn.media_offsets, strict=True)
        placed += [PlacedMedia(media=media, offset=start + offset) for media, offset in pairs]
        start += len(turn.prompt_ids) + len(turn.reply_ids)
    return tuple(placed)


def _row(
    trajectory: Trajectory, advantage: float | Sequence[float]
) -> tuple[list[int], list[bool], list[float], list[float]]:
    """Lay one trajectory out: ids, loss mask, sampled log-probs, advantages, all of its length."""
    turns = trajectory.turns
    weights = list(advantage) if isinstance(advantage, Sequence) else [advantage] * len(turns)
    if len(weights) != len(turns):
        raise ValueError(
            f"A trajectory of {trajectory.agent!r} has {len(turns)} turns but {len(weights)} advantages; give one "
            "number for the trajectory or one for each turn."
        )
    ids: list[int] = []
    mask: list[bool] = []
    logprobs: list[float] = []
    advantages: list[float] = []
    for turn, weight in zip(turns, weights, strict=True):
        read, wrote = len(turn.prompt_ids), len(turn.reply_ids)
        ids += turn.prompt_ids
        ids += turn.reply_ids
        mask += [False] * read + [True] * wrote
        logprobs += [0.0] * read
        logprobs += turn.logprobs
        advantages += [0.0] * read + [weight] * wrote
    if len(logprobs) != len(ids):
        raise ValueError(f"A trajectory of {trajectory.agent!r} has {len(ids)} tokens but {len(logprobs)} log-probs.")
    return ids, mask, logprobs, advantages


def _only(values: set[Any], what: str) -> Any:
    if len(values) != 1:
        raise ValueError(f"`pack` lays out one agent's batch, got several {what}: {sorted(values)}; pack them apart.")
    return next(iter(values))


def _render(tokenizer: PreTrainedTokenizerBase, contents: Sequence[str], enable_thinking: bool) -> str:
    """Render a chat that begins with the system message, goes on in turns, and waits for a reply."""
    roles = ["system", *("assistant" if n % 2 else "user" for n in range(len(contents) - 1))]
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=enable_thinking
        )
    except Exception as fault:  # whatever the template raises (jinja2 has several), or a missing template
        raise ChatTemplateError(
            f"The chat template does not render a {'-'.join(roles)} chat ({fault}); give the tokenizer one that does."
        ) from fault
    return str(text)


def _split(text: str, first: str, second: str) -> tuple[str, str, str]:
    if text.count(first) != 1 or text.count(second) != 1 or text.index(first) > text.index(second):
        raise ChatTemplateError(
            f"The chat template must show every message once, in order; it rendered two of them as {text!r}. "
            "Give the tokenizer one that does."
        )
    before, _, rest = text.partition(first)
    between, _, after = rest.partition(second)
    return before, between, after
