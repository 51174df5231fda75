"""Talks of three turns with new frames at each, and log-probs of their replies by the families' own processors."""

from dataclasses import dataclass, field

import torch

from m1lite.agents.chat import Chat
from m1lite.agents.media_chat import MediaChat
from m1lite.engines.base import Request, Sampling
from m1lite.records import MediaRef, PlacedMedia
from m1lite.video.cache import FrameCache
from m1lite.video.media import media_pixels

SHOWN = (((0.5, 3.0), (2, 3)), ((6.5,), (1, 2)), ((3.0, 7.5), (2, 2)))
"""Per turn the seconds of its frames, and their size in tokens; second 3 comes twice, in two sizes."""


@dataclass
class Talk:
    policy: str
    seed: int
    ids: list[int] = field(default_factory=list)
    media: list[PlacedMedia] = field(default_factory=list)
    turns: list[tuple[Request, list[int], list[float]]] = field(default_factory=list)

    def show(self, chat, clip, turn):
        """Append the next message and ask for a reply."""
        seconds, grid = SHOWN[turn]
        size = tuple(edge * chat.sight.factor for edge in grid)
        parts = [f"look {self.seed} ", MediaRef(uri=clip, timestamps=seconds, size=size), " next red ?"]
        closed = self.ids[-1:] == [chat.end_of_turn_id]
        prompt = chat.extend(parts, closed=closed) if turn else chat.open("You see a video.", parts)
        start = len(self.ids)
        self.ids += prompt.ids
        self.media += [
            PlacedMedia(media=media, offset=start + offset)
            for media, offset in zip(prompt.media, prompt.offsets, strict=True)
        ]
        return Request(
            policy=self.policy,
            prompt_ids=list(self.ids),
            sampling=Sampling(temperature=0.8, max_new_tokens=6),
            seed=100 * self.seed + turn,
            media=tuple(self.media),
        )

    def hear(self, request, reply):
        self.turns.append((request, list(reply.token_ids), list(reply.logprobs)))
        self.ids += reply.token_ids


def hold(engine, chat, clip, policies, num_talks=2):
    """Let each policy hold talks of three turns, all together."""
    talks = [Talk(policy, seed) for seed, policy in enumerate(policies * num_talks)]
    for turn in range(len(SHOWN)):
        requests = [talk.show(chat, clip, turn) for talk in talks]
        for talk, request, reply in zip(talks, requests, engine.generate(requests), strict=True):
            talk.hear(request, reply)
    return talks


def make_chat(processor, sight):
    return MediaChat(Chat(processor.tokenizer), sight)


def logprobs(model, processor, sight, request, reply):
    """Score a reply in one forward that sees by itself: pixels through the processor, positions by the model."""
    ids = torch.tensor([[*request.prompt_ids, *reply]])
    pictures = [media_pixels(FrameCache(0), picture.media)[0] for picture in request.media]
    seen = processor.image_processor(pictures, do_resize=False, return_tensors="pt")
    with torch.no_grad():
        logits = model(input_ids=ids, mm_token_type_ids=(ids == sight.image_id).int(), **seen).logits[0]
    scaled = logits[len(request.prompt_ids) - 1 : -1].double() / request.sampling.temperature
    scaled[:, list(sight.media_ids)] = -torch.inf
    return [row.log_softmax(-1)[token].item() for row, token in zip(scaled, reply, strict=True)]


def gaps(talks, score):
    """Largest distance of the engine's log-probs from a reference's: per turn, over all talks.

    Args:
        talks: that were held.
        score: ``score(request, reply)`` gives the reference's log-probs.
    """
    found = [0.0] * len(SHOWN)
    for talk in talks:
        for turn, (request, reply, sampled) in enumerate(talk.turns):
            expected = score(request, reply)
            found[turn] = max(found[turn], *(abs(a - b) for a, b in zip(sampled, expected, strict=True)))
    return found
