"""How often tools and frames are computed once for many: cache hit rates of a step of training.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python -m benchmarks.bench_toolbox [outputs/<date>/<time>]

Eight questions on videos of the synthetic world, eight episodes of each, teams of four agents, agent dropout as in
training; every team plays the same step twice, with a toolbox that is empty at first.

- ``random calls``: the default team; plans and arguments are drawn at random, as in the cold start's demonstrations:
  the most various calls that a team can make;
- ``trained``: the team of the finished run that the argument names, at the temperature of its training;
- ``seeing``: four agents with ``video_clip`` on a tiny Qwen2.5-VL. The engine takes every prompt with its frames; what
  the agents reply is the teacher's: a clip around what the question is about, then the answer. Looked at are the frames
  of all prompts; for the update every one of them is asked for once, as the trainer does.

Calls are counted by the toolbox, as they were answered: by a run of the tool, by an equal call's run that was under
way, by a kept result, refused, or too late. Frames are counted where tools look at them, and by the cache that tools,
engine and trainer share: what it was asked for and had (``hits``), and what it decoded. A target of 0 is none.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from random import Random
from typing import Any

from benchmarks.conftest import line
from m1lite.build import build_data, build_party, load_party
from m1lite.collaboration.loop import run
from m1lite.collaboration.topology import RandomDag
from m1lite.configuration import compose
from m1lite.console import hush_libraries
from m1lite.data.demonstrations import Demonstrator
from m1lite.data.native_demonstrations import NativeDemonstrator
from m1lite.engines.base import BatchSampler, EngineGroup, Generation, Request
from m1lite.records import Episode, Sample
from m1lite.toolbox.base import Toolbox
from m1lite.video.media import media_pixels

QUESTIONS, EPISODES = 8, 8
TOPOLOGY = RandomDag(p=0.5)


def questions(data: Any) -> list[Sample]:
    """Take questions of different videos from the training split, in an order of their own."""
    drawn = list(data.split("train"))
    Random(0).shuffle(drawn)
    by_video = {sample.video: sample for sample in drawn}
    return list(islice(by_video.values(), QUESTIONS))


class Counted:
    """Counts the seconds that a toolbox's tools look at, whether remembered or decoded."""

    def __init__(self, toolbox: Toolbox) -> None:
        self.toolbox, self.seconds = toolbox, 0
        self._look = toolbox._look
        toolbox._look = self
        self.mark()

    def __call__(self, video: str, seconds: Sequence[float]) -> Any:
        """Look."""
        self.seconds += len(seconds)
        return self._look(video, seconds)

    def mark(self) -> None:
        """Count from here on."""
        self.before = {**self.toolbox.counts, **self.frames()}

    def frames(self) -> dict[str, int]:
        """Give what is counted in frames."""
        return {"looked": self.seconds, "hits": self.toolbox.frames.hits, "decoded": self.toolbox.frames.misses}

    def report(self, name: str, step: int) -> None:
        """Print a row and the shares that matter, and count anew."""
        now = {**self.toolbox.counts, **self.frames()}
        new = {key: value - self.before[key] for key, value in now.items()}
        calls = sum(new[key] for key in self.toolbox.counts)
        # Tools that see through the perception remember what they saw; others ask the cache of frames for pixels.
        asked = new["looked"] or new["hits"] + new["decoded"]
        print(f"{name:13} step {step}  calls {calls}:", "  ".join(f"{key} {value}" for key, value in new.items()))
        key = f"{name.replace(' ', '_')}_step{step}"
        if calls:
            free = (new["cached"] + new["joined"]) / max(calls - new["refused"], 1)
            print(line(f"{key}_calls_not_executed", free, "share", ">=", 0))
        if asked:
            print(line(f"{key}_frames_not_decoded", 1 - new["decoded"] / asked, "share", ">=", 0))
        self.mark()


def play(samples: Sequence[Sample], players: Any, sampler: Any, toolbox: Toolbox, seed: int) -> list[Episode]:
    """Play one step."""
    return run(samples, players, sampler, toolbox, episodes=EPISODES, seed=seed, topology=TOPOLOGY)


def random_calls(folder: str) -> None:
    """Let the default team call at random."""
    config = compose([f"output_dir={folder}", f"cache_dir={folder}", *SMALL_WORLD, "engine=hf"])
    samples, party = questions(build_data(config)), build_party(config)
    counted = Counted(party.toolbox)
    for step in (1, 2):
        teacher = Demonstrator(party.agents)
        play(samples, teacher.players, teacher.sampler, party.toolbox, step)
        counted.report("random calls", step)


def trained(folder: str) -> None:
    """Let the team of a run play."""
    config, party = load_party(folder)
    samples = questions(build_data(config))
    counted = Counted(party.toolbox)
    for step in (1, 2):
        play(samples, party.agents, party.engines, party.toolbox, step)
        counted.report("trained", step)


class Prompted:
    """Has an engine take every prompt, frames included, for one token each; the replies are a teacher's."""

    def __init__(self, engines: EngineGroup, teacher: NativeDemonstrator) -> None:
        self.engines, self.teacher = engines, teacher
        self.sampler = BatchSampler(self.generate)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Draw a token for each, then reply."""
        for request in requests:
            self.engines.submit(replace(request, sampling=replace(request.sampling, max_new_tokens=1)))
        ended = 0
        while ended < len(requests):
            ended += len(self.engines.step(wait=1.0))
        return self.teacher.generate(requests)


def seeing(folder: str) -> None:
    """Let four agents that see call for clips."""
    others = [f"+team.agents.{name}={{base: seer, tools: [video_clip]}}" for name in ("bea", "cyd", "dov")]
    choices = ["team=tiny_seeing", "toolbox=clips", "engine=hf", *others, *SMALL_WORLD]
    config = compose([f"output_dir={folder}/seeing", f"cache_dir={folder}", *choices])
    data, party = build_data(config), build_party(config)
    world, samples = data.source, questions(data)
    counted = Counted(party.toolbox)
    for step in (1, 2):
        teacher = NativeDemonstrator(party.agents, world.telling_stretch)
        episodes = play(samples, teacher.players, Prompted(party.engines, teacher).sampler, party.toolbox, step)
        turns = [turn for one in episodes for trajectory in one.trajectories.values() for turn in trajectory.turns]
        shown = [
            replace(media, timestamps=(second,))
            for turn in turns
            for media in turn.media
            for second in media.timestamps
        ]
        counted.seconds += len(shown)
        counted.report("seeing", step)
        for media in set(shown):
            media_pixels(party.toolbox.frames, media)
        counted.seconds += len(set(shown))
        counted.report("seeing update", step)


SMALL_WORLD = ["world.num_train=16", "world.num_val=1", "world.num_test=1"]


def main() -> None:
    """Play all teams."""
    hush_libraries()
    with tempfile.TemporaryDirectory() as folder:
        random_calls(folder)
        seeing(folder)
    if len(sys.argv) > 1:
        trained(sys.argv[1])


if __name__ == "__main__":
    main()
