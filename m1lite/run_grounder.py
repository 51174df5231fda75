"""A team that m1lite trained as a grounder of the toolbox: it says when an event happens, as ``m1lite.ask`` asks it."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from m1lite.configuration import conf_dir, find_run
from m1lite.records import Answer, Sample, Task
from m1lite.toolbox.backends.loading import LOADING, ModelError
from m1lite.toolbox.learned.grounders import Proposal, inside_window

if TYPE_CHECKING:
    from pathlib import Path

    from m1lite.evaluation import Evaluator
    from m1lite.records import Episode
    from m1lite.stages import Party
    from m1lite.toolbox.base import ToolContext
    from m1lite.video.sampling import Window


class RunGrounder:
    """Loads the team of a run when it is first asked, and plays one greedy episode for each question.

    Args:
        run: the run's folder; ``None`` takes the newest finished one under ``outputs/``.
        question: the words of the run's questions, with ``{event}`` in place of the event.
        engine: the choice of ``conf/engine`` that draws replies; ``None`` is the run's own. vLLM cannot stand in a
            process that trains with vLLM.

    Raises:
        ValueError: if the question has no place for the event.
    """

    def __init__(
        self, run: str | Path | None = None, *, question: str = "when {event}", engine: str | None = "hf"
    ) -> None:
        if "{event}" not in question:
            raise ValueError(f"`question` is {question!r}; it needs {{event}} in place of the event.")
        self._run = run
        self._question = question
        self._engine = engine
        self._lock = Lock()
        self._loaded: tuple[Evaluator, Party] | None = None

    def __repr__(self) -> str:
        return f"RunGrounder({self._run!r})"

    def __call__(self, context: ToolContext, event: str, chosen: Window, count: int) -> list[Proposal]:
        """Propose the team's answer, then those of its agents that differ, cut to the window; see ``Grounder``.

        Raises:
            ConfigError: if there is no such run.
            ModelError: if nobody names a span of time, or all lie outside of the window.
        """
        sample = Sample(
            id="event",
            video=context.video,
            duration=context.duration,
            task=Task.GROUNDING,
            question=self._question.replace("{event}", event),
            answer=Answer(),
        )
        with self._lock:
            evaluator, party = self._loaded = self._loaded or self._load()
            (episode,) = evaluator.play(party.agents, [sample], temperature=0.0)
        spans = _spans(episode)
        if not spans:
            raise ModelError("The team named no span of time; say the event in the words of its questions.")
        return inside_window(spans[:count], chosen)

    def _load(self) -> tuple[Evaluator, Party]:
        from m1lite.build import build_evaluator, load_party  # here, so that a configuration is read without it

        engine: Any = None if self._engine is None else OmegaConf.load(conf_dir() / "engine" / f"{self._engine}.yaml")
        with LOADING:
            config, party = load_party(find_run(None if self._run is None else str(self._run)), engine=engine)
        return build_evaluator(config, party), party


def _spans(episode: Episode) -> list[tuple[float, float]]:
    """Give the spans that the team and its agents name, each once, the team's first."""
    answers = [episode.answer, *(trajectory.answer for trajectory in episode.trajectories.values())]
    found = [(span.start, span.end) for answer in answers if answer is not None for span in answer.spans]
    return list(dict.fromkeys(found))
