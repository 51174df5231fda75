"""``python -m m1lite.ask``: the team of a run answers one question about one video, and shows how it came to it."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from m1lite.configuration import ConfigError, entry, find_run
from m1lite.records import Answer, Sample, Task

if TYPE_CHECKING:
    from omegaconf import DictConfig


def ask(config: DictConfig) -> None:
    """Play one greedy episode and print what everybody did."""
    from m1lite.video.base import VideoError

    started = time.perf_counter()
    try:
        run, sample = find_run(config.run), question_of(config)
        from m1lite.build import build_evaluator, load_party
        from m1lite.console import hush_libraries
        from m1lite.report.answer import episode_lines

        hush_libraries()
        found, party = load_party(run, engine=config.get("engine"))
    except (ConfigError, VideoError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    loaded = time.perf_counter()
    episode = build_evaluator(found, party).play(party.agents, [sample], temperature=0.0)[0]
    played = time.perf_counter()
    print(episode_lines(episode))
    print(f"{played - loaded:.1f} s, after {loaded - started:.1f} s to load the team of {run}")
    party.engines.close()


def question_of(config: DictConfig) -> Sample:
    """Make the sample of the command line; its truth is not known.

    Raises:
        ConfigError: if the task is unknown, or lacks what it needs.
        VideoError: if the video is missing or cannot be read.
    """
    from m1lite.data.questions import FIRST_WORDS
    from m1lite.video.reader import open_video

    first = config.question.split()[0] if config.question.split() else ""
    name = config.task or next((task.value for task, word in FIRST_WORDS.items() if word == first), None)
    if name not in list(Task):
        said = f"`task` names {name!r}, which does not exist" if name else f"`question` begins with {first!r}"
        raise ConfigError(f"{said}; give task= one of {' '.join(Task)}.")
    options, times = tuple(map(str, config.options)), tuple(map(float, config.times))
    if name == Task.CHOICE and len(set(options)) < 2:
        raise ConfigError(f"`options` are {list(options)}; a choice needs two or more, such as options=[a,b].")
    duration = open_video(config.video).metadata.duration
    if name == Task.TRACKING and not (times and all(0 <= second < duration for second in times)):
        raise ConfigError(
            f"`times` are {list(times)}; tracking needs seconds in [0, {duration:g}), such as times=[3,5]."
        )
    about = {"video": str(config.video), "duration": duration, "question": config.question}
    return Sample(id="asked", task=Task(name), answer=Answer(), options=options, times=times, **about)


main = entry(ask, "ask", texts=("video", "question"))

if __name__ == "__main__":
    main()
