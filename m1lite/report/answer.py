"""One episode as lines for a terminal: the team's answer, its evidence, and what every agent did and voted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m1lite.collaboration.aggregate import canonical

if TYPE_CHECKING:
    from m1lite.records import Answer, Episode, ToolCall, ToolResult, Trajectory


def episode_lines(episode: Episode) -> str:
    """Write an episode for people.

    Args:
        episode: one that was played; its truth is not shown.
    """
    team = episode.answer
    evidence = ", ".join(_seconds(span.start, span.end) for span in team.spans) if team is not None else ""
    rows = [("team", written(team)), ("evidence", evidence or "no span named")]
    for name, own in episode.trajectories.items():
        with_team = own.answer is not None and team is not None and canonical(own.answer) == canonical(team)
        rows.append((name, written(own.answer) + (" (the team's)" if with_team else _problem(own))))
        rows += [("", _call(*pair)) for pair in zip(own.calls, own.results, strict=True)]
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)


def written(answer: Answer | None) -> str:
    """Write an answer in a few words.

    Example:
        >>> from m1lite.records import Answer, Span
        >>> written(Answer(text="left", spans=(Span(start=9, end=15.5),)))
        'left, 9 s to 15.5 s'
    """
    if answer is None:
        return "no answer"
    parts = [answer.text or "", "" if answer.number is None else f"{answer.number:g}", " ".join(answer.events)]
    parts += [_seconds(span.start, span.end) for span in answer.spans]
    parts += [f"box {box.left:g} {box.top:g} {box.right:g} {box.bottom:g}" for box in answer.boxes]
    return ", ".join(part for part in parts if part) or "nothing"


def _seconds(start: float, end: float) -> str:
    return f"{start:g} s to {end:g} s"


def _problem(trajectory: Trajectory) -> str:
    """Say why there is no answer."""
    if trajectory.answer is not None or not trajectory.turns:
        return ""
    last = trajectory.turns[-1]
    return f" ({last.status.value}: {last.error})" if last.error else f" ({last.status.value})"


def _call(call: ToolCall, result: ToolResult) -> str:
    words = " ".join([call.tool, *map(str, call.args.values())])
    return f"{words} = {result.text if result.error is None else result.error} ({result.seconds:.2f} s)"
