"""Judges that ask a language model: how an agent planned, which events a caption tells, how good an open answer is.

The prompts stand in prompts.py, what may fail in asking.py, endpoints in endpoint.py and engines in in_process.py.
A reply is read strictly: exactly one JSON object with the asked fields, anything else is a failure, and a failure is
``None``, never a bad verdict. A thought before the object (``<think>``) and words around it do no harm.

    asker = Asker(Endpoint(base_url="http://127.0.0.1:8000/v1", model="Qwen/Qwen3-8B"), cache=ReplyCache("replies"))
    judge = PlanningJudge(asker, tools=toolbox_tools)
    print(agreement(judge, RuleJudge(suits), planted()))
    captions = CaptionEvents(EventJudge(asker))
    print(AnswerJudge(asker)("what is cut?", "an onion", ["the onion"]))

In a run: ``rewards=videochat_m1_judge``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from m1lite.metrics.functional.open_answer import normalize_answer
from m1lite.records import Task
from m1lite.rewards.judge import Verdict
from m1lite.rewards.prompts import (
    Prompt,
    Rubric,
    answer_prompt,
    entailment_prompt,
    events_prompt,
    planning_prompt,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from m1lite.records import Episode, Sample, Trajectory
    from m1lite.rewards.asking import Asker
    from m1lite.toolbox.base import Tool

    Text = str | Sequence[str]

CRITERIA = ("feasible", "appropriate", "managed")
SCORES = (0.0, 0.5, 1.0)
RELATIONS = ("entailment", "neutral", "contradiction")
_MAX_CHARACTERS = 100_000


class PlanningJudge:
    """Asks a model whether a plan was feasible, its tools appropriate and its steps managed; good if it was all three.

    A drop-in for :class:`~m1lite.rewards.judge.RuleJudge`, whose arguments it shares: the prompt states the same rules
    and holds everything that they go by. It shows neither the answer nor the truth.

    Args:
        asker: the model.
        tools: that the team has, with their descriptions.
        suits: task to the names of the tools that suit it; None lets the model tell from the descriptions.
        min_calls: calls that an agent must ask for.
        max_calls: calls that an agent may ask for.
        query_arguments: names of the arguments that say what to look for.
        general_words: always allowed in such an argument.

    Raises:
        ValueError: if ``suits`` names a task that does not exist; on a call, if it lacks the sample's task.

    References:
        VideoChat-M1, arXiv:2511.19524: GPT-4o judges plan feasibility, tool appropriateness and step management, 1 or
        0. Its prompt is not public; ours is our reading.
    """

    def __init__(
        self,
        asker: Asker,
        *,
        tools: Sequence[Tool],
        suits: Mapping[str, Sequence[str]] | None = None,
        min_calls: int = 1,
        max_calls: int = 5,
        query_arguments: Sequence[str] = ("query", "question", "event"),
        general_words: Sequence[str] = ("objects",),
    ) -> None:
        for task in suits or ():
            if task not in set(Task):
                raise ValueError(f"`suits` names the task {task!r}; there are {[known.value for known in Task]}.")
        self.asker = asker
        self.tools = list(tools)
        self.suits = None if suits is None else {Task(task): frozenset(names) for task, names in suits.items()}
        self.min_calls = min_calls
        self.max_calls = max_calls
        self.query_arguments = tuple(query_arguments)
        self.general_words = tuple(general_words)
        self._ahead: dict[Prompt, Verdict | None] = {}

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> Verdict | None:
        """Return the verdict, ``None`` where the model failed; one that was prepared is not asked for again."""
        prompt = self.prompt(sample, episode, trajectory)
        if prompt in self._ahead:
            return self._ahead[prompt]
        return self.asker.ask([prompt], read_verdict)[0]

    def prepare(self, trajectories: Sequence[tuple[Episode, Trajectory]]) -> None:
        """Ask about many trajectories together; the next calls find their verdicts, failures included."""
        prompts = [self.prompt(episode.sample, episode, trajectory) for episode, trajectory in trajectories]
        self._ahead = dict(zip(prompts, self.asker.ask(prompts, read_verdict), strict=True))

    def prompt(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> Prompt:
        """Return what the model is shown."""
        if self.suits is not None and sample.task not in self.suits:
            raise ValueError(
                f"`suits` says nothing of the task {sample.task.value!r} (sample {sample.id!r}); add the tools that "
                "suit it, or give None for all tasks."
            )
        rubric = Rubric(
            tools=self.tools,
            suitable=None if self.suits is None else self.suits[sample.task],
            min_calls=self.min_calls,
            max_calls=self.max_calls,
            query_arguments=self.query_arguments,
            general_words=self.general_words,
        )
        return planning_prompt(sample, episode, trajectory, rubric)


class EventJudge:
    """Asks a model which events of two captions follow from each other; the judge of ``CaptionEvents``.

    A caption is a text, of which the model is first asked for the events, or a list of events. Only "entailment"
    counts. A caption that tells more than ``max_events`` events gets no credit for the rest, which are not shown.

    Args:
        asker: the model.
        max_events: of one caption.

    References:
        Wang et al. 2024, arXiv:2407.00634 (DREAM-1K), AutoDQ: events, then the relation of each to the other text. Li
        et al. 2025, arXiv:2504.06958 (VideoChat-R1) uses the recall alone. The prompts are ours.
    """

    def __init__(self, asker: Asker, *, max_events: int = 64) -> None:
        self.asker = asker
        self.max_events = max_events
        self._ahead: dict[Prompt, list[Any] | None] = {}

    def __call__(self, prediction: Text, target: Text) -> tuple[list[bool], list[bool]] | None:
        """Return a flag for each predicted and each true event, ``None`` where the model failed."""
        told, true = self._events(prediction), self._events(target)
        if told is None or true is None:
            return None
        told_flags, true_flags = self._entailed(target, true, told), self._entailed(prediction, told, true)
        return None if told_flags is None or true_flags is None else (told_flags, true_flags)

    def prepare(self, pairs: Sequence[tuple[Text, Text]]) -> None:
        """Ask about many pairs of prediction and target together; the next calls find what was said."""
        self._ahead = {}
        texts = dict.fromkeys(text for pair in pairs for text in pair if isinstance(text, str) and text.strip())
        self._ask_ahead([events_prompt(text) for text in texts], read_events)
        prompts = []
        for prediction, target in pairs:
            told, true = self._events(prediction), self._events(target)
            if told is not None and true is not None:
                prompts += [self._prompt(target, true, told), self._prompt(prediction, told, true)]
        self._ask_ahead([prompt for prompt in prompts if prompt is not None], read_relations)

    def _ask_ahead(self, prompts: Sequence[Prompt], read: Any) -> None:
        self._ahead.update(zip(prompts, self.asker.ask(prompts, read), strict=True))

    def _ask(self, prompt: Prompt, read: Any) -> list[Any] | None:
        return self._ahead[prompt] if prompt in self._ahead else self.asker.ask([prompt], read)[0]

    def _events(self, text: Text) -> list[str] | None:
        if not isinstance(text, str):
            return list(text)
        return self._ask(events_prompt(text), read_events) if text.strip() else []

    def _prompt(self, text: Text, told: Sequence[str], events: Sequence[str]) -> Prompt | None:
        """Return the question which events a text entails; ``None`` where nothing needs to be asked."""
        if not told or not events:
            return None
        shown = text if isinstance(text, str) else told[: self.max_events]
        return entailment_prompt(shown, events[: self.max_events])

    def _entailed(self, text: Text, told: Sequence[str], events: Sequence[str]) -> list[bool] | None:
        prompt = self._prompt(text, told, events)
        if prompt is None:
            return [False] * len(events)
        relations = self._ask(prompt, read_relations)
        if relations is None:
            return None
        flags = [relation == "entailment" for relation in relations]
        return flags + [False] * (len(events) - len(flags))


class AnswerJudge:
    """Asks a model to grade an open answer with 0, 0.5 or 1.

    An answer that equals a true one after normalising is right without asking. One of ``max_characters`` or more is
    wrong without asking: long answers that name everything are how judges are talked over.

    Args:
        asker: the model.
        max_characters: an answer must be shorter.

    References:
        The three grades and the limit of 1000 characters are those of VITAL, arXiv:2508.04416. The prompt is ours.
    """

    def __init__(self, asker: Asker, *, max_characters: int = 1000) -> None:
        self.asker = asker
        self.max_characters = max_characters
        self._ahead: dict[Prompt, float | None] = {}

    def __call__(self, question: str, prediction: str | None, target: Text) -> float | None:
        """Return the grade, 0 for no answer, ``None`` where the model failed.

        Args:
            question: that was answered.
            prediction: the answer, None for none.
            target: the true answer, or several of which any one suffices.
        """
        score, prompt = self._by_rule(question, prediction, target)
        if prompt is None:
            return score
        return self._ahead[prompt] if prompt in self._ahead else self.asker.ask([prompt], read_score)[0]

    def prepare(self, answers: Sequence[tuple[str, str | None, Text]]) -> None:
        """Ask about many answers together, each (question, prediction, target); the next calls find the grades."""
        prompts = [prompt for _, prompt in (self._by_rule(*answer) for answer in answers) if prompt is not None]
        self._ahead = dict(zip(prompts, self.asker.ask(prompts, read_score), strict=True))

    def _by_rule(self, question: str, prediction: str | None, target: Text) -> tuple[float, Prompt | None]:
        truths = [target] if isinstance(target, str) else list(target)
        if not truths:
            raise ValueError(f"`target` is {target!r} for the question {question!r}; give one true answer at least.")
        if prediction is None or not prediction.strip() or len(prediction) >= self.max_characters:
            return 0.0, None
        if normalize_answer(prediction) in {normalize_answer(truth) for truth in truths}:
            return 1.0, None
        return 0.0, answer_prompt(question, prediction, truths)


def read_object(text: str) -> dict[str, Any] | None:
    """Read the one JSON object of a reply; ``None`` for none, for several, and for one that is broken.

    Example:
        >>> read_object('<think>hm</think> I say: {"good": true}')
        {'good': True}
        >>> read_object('{"good": true} or {"good": false}'), read_object('{"good": tru'), read_object("good")
        (None, None, None)
    """
    if len(text) > _MAX_CHARACTERS:
        return None
    _, closed, after = text.rpartition("</think>")
    if not closed and "<think>" in after:
        return None
    start = after.find("{")
    if start < 0:
        return None
    decoder = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_no_constant)
    try:
        value, end = decoder.raw_decode(after, start)
    except (ValueError, RecursionError):
        return None
    return None if "{" in after[end:] else value


def read_verdict(text: str, prompt: Prompt | None = None) -> Verdict | None:
    """Read the reply to a planning prompt; ``None`` where one of the criteria is no truth value.

    Example:
        >>> read_verdict('{"reasons": ["no window"], "feasible": true, "appropriate": false, "managed": true}')
        Verdict(good=False, reasons=('not appropriate', 'no window'))
    """
    value = read_object(text)
    if value is None or not all(isinstance(value.get(name), bool) for name in CRITERIA):
        return None
    failed = [f"not {name}" for name in CRITERIA if not value[name]]
    given = value.get("reasons")
    told = [str(reason) for reason in given] if isinstance(given, list) and failed else []
    return Verdict(good=not failed, reasons=(*failed, *told))


def read_events(text: str, prompt: Prompt | None = None) -> list[str] | None:
    """Read the reply to a prompt for events; ``None`` where they are no list of texts."""
    events = (read_object(text) or {}).get("events")
    if not isinstance(events, list) or not all(isinstance(event, str) and event.strip() for event in events):
        return None
    return events


def read_relations(text: str, prompt: Prompt) -> list[str] | None:
    """Read the reply to an entailment prompt; ``None`` where there is not one known relation for each event."""
    relations = (read_object(text) or {}).get("relations")
    if not isinstance(relations, list) or len(relations) != prompt.items:
        return None
    if not all(isinstance(relation, str) for relation in relations):
        return None
    words = [relation.strip().lower() for relation in relations]
    return words if all(word in RELATIONS for word in words) else None


def read_score(text: str, prompt: Prompt | None = None) -> float | None:
    """Read the reply to a prompt for a grade; ``None`` for anything but 0, 0.5 and 1."""
    score = (read_object(text) or {}).get("score")
    if isinstance(score, bool) or not isinstance(score, int | float) or score not in SCORES:
        return None
    return float(score)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name comes twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
