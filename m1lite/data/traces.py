"""Written replies to questions, to be learnt from: what an agent says turn by turn, with the calls that it makes.

They lie beside the questions: ``<split>_replies.jsonl`` has a line ``{"id": ..., "replies": [...]}`` for each question
of ``<split>.jsonl`` (readers/jsonl.py) that is demonstrated. A teacher plays them through the collaboration loop, so
that calls are run and their frames shown as in reinforcement learning.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from m1lite.data.demonstrations import Demonstration, Pupil
from m1lite.data.readers.jsonl import DataError, read_jsonl
from m1lite.engines.base import BatchSampler, Generation
from m1lite.records import Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from m1lite.agents.agent import AgentState
    from m1lite.agents.native import NativeAgent
    from m1lite.engines.base import Request
    from m1lite.records import Episode, Sample, Trajectory


def read_traces(root: str | Path, split: str) -> tuple[list[Sample], dict[str, list[str]]]:
    """Read demonstrated questions and the replies to them.

    Args:
        root: folder of both files.
        split: of the questions, for example ``"sft"``.

    Returns:
        The questions that have replies, in order, and sample id to replies.

    Raises:
        DataError: if a file cannot be used, or a line is no ``{"id", "replies"}`` of a question; names the first one.
    """
    samples = read_jsonl(root, split)
    path, known = Path(root) / f"{split}_replies.jsonl", {sample.id for sample in samples}
    if not path.is_file():
        raise DataError(f"{path} does not exist; write a line with `id` and `replies` for each demonstrated question.")
    replies: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name, texts = row["id"], row["replies"]
        except (ValueError, TypeError, KeyError):
            raise DataError(
                f"{path}:{number}: a line needs the fields `id` and `replies`, got {line[:120]!r}."
            ) from None
        if not (isinstance(texts, list) and texts and all(isinstance(text, str) and text.strip() for text in texts)):
            raise DataError(f"{path}:{number}: `replies` must be a list of texts, one per turn, at least one.")
        if name not in known or name in replies:
            what = "comes twice" if name in replies else f"is no question of {split}.jsonl"
            raise DataError(f"{path}:{number}: the id {name!r} {what}.")
        replies[name] = texts
    return [sample for sample in samples if sample.id in replies], replies


class TraceTeacher:
    """A team that says written replies, to be run by the loop in place of agents and engine.

    Args:
        agents: the team to teach; prompts, frames and tools are theirs. All of them say the same.
        replies: sample id to what is said, turn by turn.
    """

    def __init__(self, agents: Sequence[NativeAgent], replies: Mapping[str, Sequence[str]]) -> None:
        self._asked: dict[int, tuple[NativeAgent, AgentState]] = {}
        self.players = [Pupil(agent, self._asked) for agent in agents]
        self.replies = replies
        self.sampler = BatchSampler(self.generate)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Say the next reply to each request of ``players``; nothing where none is left."""
        return [self._reply(request) for request in requests]

    def demonstrations(self, episodes: Sequence[Episode]) -> list[Demonstration]:
        """Take the trajectories in which every reply was said, could be read, and found its calls run."""
        return [
            Demonstration(trajectory=one, task=episode.sample.task, weights=[1.0] * len(one.turns))
            for episode in episodes
            for one in episode.trajectories.values()
            if self._went_well(one, len(self.replies[episode.sample.id]))
        ]

    def _reply(self, request: Request) -> Generation:
        agent, state = self._asked.pop(request.seed)
        left = self.replies[state.sample.id][len(state.trajectory.turns) :]
        ids = [*agent.chat.chat.encode(left[0] if left else ""), agent.chat.end_of_turn_id]
        return Generation(token_ids=ids, logprobs=[0.0] * len(ids), policy_version=0, finish_reason="stop")

    @staticmethod
    def _went_well(trajectory: Trajectory, count: int) -> bool:
        turns, results = trajectory.turns, trajectory.results
        said = len(turns) == count and all(turn.status is Status.OK for turn in turns)
        return said and all(result.status is Status.OK for result in results)
