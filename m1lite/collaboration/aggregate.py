"""The team's answer from the agents' answers. Sees trajectories in team order, never the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m1lite.records import Answer, Trajectory

Aggregate = Callable[[Mapping[str, "Trajectory"]], "Answer | None"]


def canonical(answer: Answer) -> tuple[Any, ...]:
    """Return a key that is equal for answers that mean the same.

    Texts are compared without case and surplus blanks, seconds to one decimal, boxes in whole pixels.
    """
    return (
        None if answer.text is None else _plain(answer.text),
        None if answer.number is None else float(answer.number),
        tuple((round(span.start, 1), round(span.end, 1)) for span in answer.spans),
        tuple((round(box.left), round(box.top), round(box.right), round(box.bottom)) for box in answer.boxes),
        tuple(_plain(event) for event in answer.events),
    )


def vote(trajectories: Mapping[str, Trajectory]) -> Answer | None:
    """Return the answer that most agents gave; agents without an answer do not vote.

    A tie goes to the answer with the higher mean log-probability over its voters, then to the earlier agent.
    """
    ballots: dict[tuple[Any, ...], list[Trajectory]] = {}
    for trajectory in trajectories.values():
        if trajectory.answer is not None:
            ballots.setdefault(canonical(trajectory.answer), []).append(trajectory)
    if not ballots:
        return None
    winners = max(ballots.values(), key=lambda voters: (len(voters), fmean(voter.answer_logprob for voter in voters)))
    return winners[0].answer


def designated(name: str) -> Aggregate:
    """Let one agent speak for the team; where it has no answer, the team has none.

    Args:
        name: the agent's.
    """

    def aggregate(trajectories: Mapping[str, Trajectory]) -> Answer | None:
        if name not in trajectories:
            raise ValueError(f"The designated agent {name!r} is not in the team; there are {', '.join(trajectories)}.")
        return trajectories[name].answer

    return aggregate


def best(score: Callable[[Trajectory], float]) -> Aggregate:
    """Take the answer whose trajectory scores highest; a tie goes to the earlier agent.

    Args:
        score: a judge's, that sees no truth.
    """

    def aggregate(trajectories: Mapping[str, Trajectory]) -> Answer | None:
        answered = [trajectory for trajectory in trajectories.values() if trajectory.answer is not None]
        return max(answered, key=score).answer if answered else None

    return aggregate


def best_logprob(trajectories: Mapping[str, Trajectory]) -> Answer | None:
    """Take the answer with the highest mean log-probability; a tie goes to the earlier agent."""
    return best(lambda trajectory: trajectory.answer_logprob)(trajectories)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
