"""One episode as a JSON-ready line and as a page that a person reads. Pure; ``record.py`` writes them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from m1lite.records import Answer, Episode, ToolCall, ToolResult, Trajectory, Turn
    from m1lite.rewards.compose import Breakdown


def episode_line(episode: Episode, rewards: Mapping[str, Breakdown]) -> dict[str, Any]:
    """Return an episode as plain JSON values: question, truth, who read whom, turns, calls, answers, rewards, seeds.

    Token ids are left out: they follow from the text and the tokenizer, and would be most of the file.
    """
    sample = episode.sample
    return {
        "sample": sample.id,
        "video": sample.video,
        "task": sample.task.value,
        "question": sample.question,
        "truth": _answer(sample.answer),
        "episode": episode.index,
        "seed": episode.seed,
        "visible": {agent: list(peers) for agent, peers in episode.visible.items()},
        "answer": _answer(episode.answer),
        "agents": {
            agent: _trajectory(trajectory, rewards.get(agent)) for agent, trajectory in episode.trajectories.items()
        },
    }


def episode_text(episode: Episode, rewards: Mapping[str, Breakdown]) -> str:
    """Return an episode as Markdown: the question, then every message in order, then answers and rewards."""
    sample = episode.sample
    lines = [
        f"**{sample.question}** ({sample.task.value}, {sample.duration:g} s, `{sample.id}`)",
        "",
        f"truth `{_answer(sample.answer)}`, team's answer `{_answer(episode.answer)}`",
        "",
        "| round | agent | kind | text |",
        "|---|---|---|---|",
    ]
    for message in episode.messages:
        text = message.text if message.call is None else f"{_call(message.call)} = {message.text}"
        status = "" if message.status.value == "ok" else f" [{message.status.value}]"
        lines.append(f"| {message.round} | {message.author} | {message.kind.value} | {_cell(text)}{status} |")
    lines += ["", "| agent | reads | answer | reward | terms |", "|---|---|---|---|---|"]
    for agent, trajectory in episode.trajectories.items():
        breakdown = rewards.get(agent)
        total, terms = (breakdown.total, breakdown.terms) if breakdown else (None, {})
        peers = " ".join(episode.visible.get(agent, ()))
        lines.append(f"| {agent} | {peers} | `{_answer(trajectory.answer)}` | {total} | {terms} |")
    return "\n".join(lines)


def _trajectory(trajectory: Trajectory, breakdown: Breakdown | None) -> dict[str, Any]:
    return {
        "turns": [_turn(turn) for turn in trajectory.turns],
        "calls": [
            {"tool": call.tool, "args": dict(call.args), **_result(result)}
            for call, result in zip(trajectory.calls, trajectory.results, strict=True)
        ],
        "answer": _answer(trajectory.answer),
        "answer_logprob": trajectory.answer_logprob,
        "reward": breakdown.total if breakdown else None,
        "terms": dict(breakdown.terms) if breakdown else {},
    }


def _turn(turn: Turn) -> dict[str, Any]:
    return {
        "kind": turn.kind.value,
        "round": turn.round,
        "text": turn.text,
        "status": turn.status.value,
        "error": turn.error,
        "read_tokens": len(turn.prompt_ids),
        "sampled_tokens": len(turn.reply_ids),
        "logprob": sum(turn.logprobs),
        "version": turn.policy_version,
        "seed": turn.seed,
    }


def _result(result: ToolResult) -> dict[str, Any]:
    return {
        "text": result.text,
        "error": result.error,
        "status": result.status.value,
        "seconds": result.seconds,
        "cached": result.cached,
        "media": [asdict(media) for media in result.media],
    }


def _answer(answer: Answer | None) -> dict[str, Any] | None:
    """Return the fields that are filled."""
    if answer is None:
        return None
    return {name: value for name, value in asdict(answer).items() if value is not None and value != ()}


def _call(call: ToolCall) -> str:
    return f"{call.tool}({', '.join(f'{name}={value}' for name, value in call.args.items())})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
