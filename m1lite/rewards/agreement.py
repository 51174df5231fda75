"""How far two judges of planning agree, and planted trajectories to try a judge on before a run trusts it.

    judge = PlanningJudge(asker, tools=tools, suits=PLANTED_SUITS)
    print(agreement(judge, RuleJudge(PLANTED_SUITS), planted()))

``planted`` names each trajectory by its fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from m1lite.records import (
    Answer,
    Episode,
    Message,
    MessageKind,
    Plan,
    Sample,
    Status,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Turn,
    TurnKind,
)
from m1lite.rewards.judge import AsksAhead

if TYPE_CHECKING:
    from collections.abc import Iterable

    from m1lite.rewards.judge import Judge

PLANTED_SUITS = {
    "choice": ["rough_browser", "fine_browser", "global_sampling"],
    "grounding": ["grounding_tool", "video_retrieval"],
}
"""Which tools suit the tasks of the planted trajectories."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Agreement:
    """Verdicts of a judge beside those of a reference, over the trajectories that both could judge."""

    compared: int
    failed: int
    """Trajectories without a verdict from either side; in no other figure."""
    both_good: int
    both_bad: int
    only_judge_good: int
    only_reference_good: int

    @property
    def share(self) -> float | None:
        """Share of equal verdicts; ``None`` where nothing was compared."""
        return (self.both_good + self.both_bad) / self.compared if self.compared else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa, the agreement above chance; ``None`` where chance alone would agree on everything."""
        if not self.compared:
            return None
        judge = (self.both_good + self.only_judge_good) / self.compared
        reference = (self.both_good + self.only_reference_good) / self.compared
        chance = judge * reference + (1 - judge) * (1 - reference)
        share = (self.both_good + self.both_bad) / self.compared
        return None if chance == 1 else (share - chance) / (1 - chance)


def agreement(judge: Judge, reference: Judge, trajectories: Iterable[tuple[Episode, Trajectory]]) -> Agreement:
    """Compare two judges.

    Args:
        judge: the one in question; one that can ask ahead is asked about all trajectories together.
        reference: such as the rule judge, or verdicts that people gave.
        trajectories: each with its episode: planted ones, or those of a rollout.

    Example:
        >>> from m1lite.rewards.judge import RuleJudge
        >>> rules, lenient = RuleJudge(PLANTED_SUITS), RuleJudge(PLANTED_SUITS, max_calls=9)
        >>> found = agreement(lenient, rules, planted().values())
        >>> (found.compared, found.only_judge_good, found.only_reference_good)
        (17, 1, 0)
    """
    pairs = list(trajectories)
    for asked in (judge, reference):
        if isinstance(asked, AsksAhead):
            asked.prepare(pairs)
    counts = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    failed = 0
    for episode, trajectory in pairs:
        ours, theirs = judge(episode.sample, episode, trajectory), reference(episode.sample, episode, trajectory)
        if ours is None or theirs is None:
            failed += 1
        else:
            counts[ours.good, theirs.good] += 1
    return Agreement(
        compared=len(pairs) - failed,
        failed=failed,
        both_good=counts[True, True],
        both_bad=counts[False, False],
        only_judge_good=counts[True, False],
        only_reference_good=counts[False, True],
    )


def planted() -> dict[str, tuple[Episode, Trajectory]]:
    """Make trajectories of an agent ``bea`` that reads ``ada``: good ones, and ones with exactly one fault.

    Returns:
        What is planted to episode and trajectory; names that begin with ``good`` are without a fault under the rules of
        :class:`~m1lite.rewards.judge.RuleJudge` with ``PLANTED_SUITS``.
    """
    when, what = "grounding", "choice"
    red = {"event": "red-square"}
    scenes = {
        "good: one call": _Scene(when).run(1, "grounding_tool", red),
        "good: two windows": _Scene(what)
        .run(1, "fine_browser", {"question": "objects", "start": 0, "end": 9})
        .run(2, "fine_browser", {"question": "objects", "start": 9, "end": 18}),
        "good: names an option": _Scene(what).run(1, "rough_browser", {"question": "green-diamond"}),
        "good: a slow tool": _Scene(when).run(1, "grounding_tool", red, status=Status.TOOL_TIMEOUT),
        "good: same round as the peer": _Scene(when).peer(1, "grounding_tool", red).run(1, "grounding_tool", red),
        "good: what a hidden peer ran": _Scene(when, reads=())
        .peer(1, "grounding_tool", red)
        .run(2, "grounding_tool", red),
        "good: what the peer had dropped": _Scene(when)
        .peer(1, "grounding_tool", red, status=Status.CALL_LIMIT)
        .run(2, "grounding_tool", red),
        "good: a plan kept": _Scene(when)
        .run(1, "video_retrieval", {"query": "red-square"})
        .turn(1)
        .run(2, "grounding_tool", red),
        "plan unreadable": _Scene(when, plan=Status.INVALID_PLAN).turn(1, revises=True).run(2, "grounding_tool", red),
        "decision cut": _Scene(when).run(1, "grounding_tool", red).turn(1, Status.TRUNCATED),
        "call refused": _Scene(when).run(1, "grounding_tool", red, status=Status.TOOL_ERROR),
        "tool does not suit": _Scene(what).run(1, "grounding_tool", red),
        "looks for something else": _Scene(when).run(1, "grounding_tool", {"event": "yellow-triangle"}),
        "no call": _Scene(when),
        "too many calls": _many(_Scene(what)),
        "repeats its own call": _Scene(what)
        .run(1, "rough_browser", {"question": "objects", "start": 5})
        .run(2, "rough_browser", {"start": 5.0, "question": "Objects"}),
        "repeats the peer's call": _Scene(when)
        .peer(1, "grounding_tool", {"event": " Red-Square"})
        .run(2, "grounding_tool", red),
    }
    return {name: (scene.episode, scene.trajectory) for name, scene in scenes.items()}


def _many(scene: _Scene) -> _Scene:
    for number in range(1, 6):
        scene.run(number, "fine_browser", {"question": "objects", "start": 4 * number, "end": 4 * number + 4})
    return scene.run(6, "fine_browser", {"question": "objects", "start": 24, "end": 28}, status=Status.CALL_LIMIT)


class _Scene:
    """An episode of ada and bea that is written round by round, as the loop writes it."""

    def __init__(self, task: str, *, plan: Status = Status.OK, reads: tuple[str, ...] = ("ada",)) -> None:
        options = ("blue-circle", "green-diamond") if task == "choice" else ()
        sample = Sample(
            id=task,
            video="planted.mp4",
            duration=47.0,
            task=Task(task),
            question="what comes after red-square?" if options else "when is red-square seen?",
            answer=Answer(),
            options=options,
        )
        self.episode = Episode(sample=sample, index=0, seed=0, visible={"ada": (), "bea": reads})
        for name in ("ada", "bea"):
            self.episode.trajectories[name] = Trajectory(agent=name)
        self.trajectory = self.episode.trajectories["bea"]
        self._plan: Message | None = None
        self.turn(0, plan, kind=TurnKind.PLAN)

    def run(
        self, round: int, tool: str, args: dict[str, Any], *, status: Status = Status.OK, who: str = "bea"
    ) -> _Scene:
        call = ToolCall(tool=tool, args=args)
        error = "`end` 99 is past the end of the video" if status is Status.TOOL_ERROR else None
        if status is not Status.CALL_LIMIT:
            trajectory = self.episode.trajectories[who]
            trajectory.calls.append(call)
            trajectory.results.append(ToolResult(text="seen 12 to 20", error=error, status=status))
        if who == "bea" and self._plan is not None:
            self._plan.plan = Plan(steps=(*(self._plan.plan or Plan()).steps, call))
        text = error or "seen 12 to 20"
        kind = MessageKind.RESULT
        self.episode.messages.append(Message(author=who, round=round, kind=kind, text=text, call=call, status=status))
        return self

    def peer(self, round: int, tool: str, args: dict[str, Any], *, status: Status = Status.OK) -> _Scene:
        return self.run(round, tool, args, status=status, who="ada")

    def turn(
        self, round: int, status: Status = Status.OK, *, kind: TurnKind = TurnKind.COMMUNICATE, revises: bool = False
    ) -> _Scene:
        """Let bea write: a plan, whose calls are those that it runs later, a decision to keep it, or what is broken."""
        fine = status is Status.OK
        text, error = ("", "") if fine else ("grounding_tool event=", "a value is missing after `event=`")
        turn = Turn(
            kind=kind, round=round, prompt_ids=[], reply_ids=[], logprobs=[], policy_version=0, seed=0, text=text
        )
        turn.status, turn.error = status, error
        self.trajectory.turns.append(turn)
        kept = MessageKind.PLAN if kind is TurnKind.PLAN else MessageKind.DECISION
        message = Message(author="bea", round=round, kind=kept, text=text, status=status)
        self.episode.messages.append(message)
        if fine and (kind is TurnKind.PLAN or revises):
            message.plan, self._plan = Plan(), message
        return self
