"""Drills for policies that see, on drawn scenes: to name what a frame shows, and to find things by frames and times.

A demonstration tells a policy a few words about two dozen frames; a drill tells it some about each of them. Turns are
made as an agent of ``agents/native.py`` would read them, without the loop.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from m1lite.records import MediaRef, Turn, TurnKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from m1lite.agents.native import NativeAgent
    from m1lite.data.drawn import DrawnScenes
    from m1lite.records import Sample


def named_frames(agent: NativeAgent, scenes: DrawnScenes, video: str, times: Sequence[float]) -> list[Turn]:
    """Name what each frame shows, left to right, one after another: a running text without questions.

    Args:
        agent: whose chat and frames they are; its view must hold as many.
        scenes: tell what is to be seen.
        video: of these scenes.
        times: of the frames, in seconds.

    Returns:
        One turn per frame; its prompt is the frame behind its time.
    """
    media_chat = agent.chat
    held = agent.frames.metadata(video)
    size = agent.view.size(held.height, held.width, len(times), factor=media_chat.sight.factor)
    turns = []
    for second, seen in zip(times, scenes.look(video, times), strict=True):
        stamp = media_chat.chat.encode(media_chat.stamp(second))
        said = media_chat.chat.encode("".join(f" {one.object} {one.lane}" for one in seen) + "\n")
        turns.append(
            _turn(
                [*stamp, *media_chat.sight.block(size)],
                said,
                media=(MediaRef(uri=video, timestamps=(second,), size=size),),
                offsets=(len(stamp) + 1,),
            )
        )
    return turns


def found_frames(
    agent: NativeAgent, scenes: DrawnScenes, video: str, times: Sequence[float], rng: Random
) -> list[Turn]:
    """Name things after the frames, and with each the times at which frames show it: a running text as well.

    Args:
        agent: as for :func:`named_frames`.
        scenes: tell what is to be seen.
        video: of these scenes.
        times: of the frames, in seconds.
        rng: the order of the things.

    Returns:
        One turn per thing that is to be seen, none where nothing is; the first one's prompt shows the frames.
    """
    frames = named_frames(agent, scenes, video, times)
    where: dict[str, list[float]] = {}
    for second, seen in zip(times, scenes.look(video, times), strict=True):
        for one in seen:
            where.setdefault(one.object, []).append(second)
    encode = agent.chat.chat.encode
    ids: list[int] = []
    offsets: list[int] = []
    for frame in frames:
        offsets += [len(ids) + offset for offset in frame.media_offsets]
        ids += frame.prompt_ids
    turns = []
    for name in rng.sample(sorted(where), k=len(where)):
        found = encode("".join(f" {agent.chat.stamp(second)}" for second in where[name]) + "\n")
        turns.append(_turn([*ids, *encode(f"\n{name}:")], found))
        ids = []
    if turns:
        media = tuple(one for frame in frames for one in frame.media)
        turns[0] = replace(turns[0], media=media, media_offsets=tuple(offsets))
    return turns


def found_things(scenes: DrawnScenes, stamp: Callable[[float], str], sample: Sample, times: Sequence[float]) -> str:
    """Write a line for the thing that a question is about and for each of its options: the times that show it.

    Lines are those of :func:`found_frames`: what is thought before an answer is found as the drill finds it.

    Args:
        scenes: tell what is to be seen.
        stamp: writes a time.
        sample: a question of data/questions.py.
        times: of the frames, in seconds.
    """
    seen = [{one.object for one in frame} for frame in scenes.look(sample.video, times)]
    lines = []
    for name in (sample.question.split()[-1], *sample.options):
        found = [stamp(second) for second, things in zip(times, seen, strict=True) if name in things]
        lines.append(f"\n{' '.join([f'{name}:', *found])}")
    return "".join([*lines, "\n"])


def asked_frames(
    agent: NativeAgent,
    samples: Sequence[Sample],
    times: Sequence[float],
    *,
    think: Callable[[Sample, Sequence[float]], str] | None = None,
) -> list[Turn]:
    """Show frames and ask question after question about them; of tools nothing is said.

    Args:
        agent: words questions and answers; its view must hold as many frames.
        samples: of one video, at least one.
        times: of the frames, in seconds.
        think: a sample and the times to what is thought before its answer; None thinks nothing.

    Returns:
        One turn per question; the first one's prompt shows the frames and tells the form of an answer, the others ask
        in few words.
    """
    first, *others = samples
    shown = replace(agent, look=lambda sample, budget, duration: list(times), tools=())
    state = shown.start(first)
    shown.ask(state, TurnKind.PLAN, 0, (), (), seed=0)
    if state.asked is None:
        raise ValueError(f"{len(times)} frames do not fit into the context of {agent.max_context} tokens; take fewer.")
    thoughts = [f"<think>{think(sample, times)}</think>" if think is not None else "" for sample in samples]
    turns = [replace(state.asked, reply_ids=_answer(agent, first, thoughts[0]))]
    for sample, thought in zip(others, thoughts[1:], strict=True):
        prompt = agent.chat.extend([sample.question], closed=True)
        turns.append(_turn(prompt.ids, _answer(agent, sample, thought)))
    return turns


def window_times(duration: float, count: int, rng: Random) -> list[float]:
    """Draw a window of ``count`` seconds and give the times of a frame a second; the whole video where it is shorter.

    Args:
        duration: of the video, in seconds.
        count: of the frames, at most.
        rng: draws where it begins.
    """
    first = rng.randint(0, max(0, int(duration) - count))
    return [float(second) for second in range(first, min(first + count, int(duration)))]


def _answer(agent: NativeAgent, sample: Sample, thought: str) -> list[int]:
    text = thought + agent.answers.write_answer(sample.answer, sample)
    return [*agent.chat.chat.encode(text), agent.chat.end_of_turn_id]


def _turn(
    prompt: list[int], reply: list[int], *, media: tuple[MediaRef, ...] = (), offsets: tuple[int, ...] = ()
) -> Turn:
    return Turn(
        kind=TurnKind.PLAN,
        round=0,
        prompt_ids=prompt,
        reply_ids=reply,
        logprobs=[0.0] * len(reply),
        policy_version=0,
        seed=0,
        text="",
        media=media,
        media_offsets=offsets,
    )
