"""The team of a run answers a question; what is wrong with the question is said before the team is loaded."""

import shutil

import pytest

from m1lite.data.questions import FIRST_WORDS
from m1lite.records import (
    Answer,
    Box,
    Episode,
    Sample,
    Span,
    Status,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Turn,
    TurnKind,
)
from m1lite.report.answer import episode_lines, written
from m1lite.run_grounder import RunGrounder
from m1lite.toolbox import Toolbox
from m1lite.toolbox.learned.events import EventGrounder
from m1lite.video.cache import FrameCache
from m1lite.video.reader import open_video


@pytest.fixture(scope="module")
def clip(world):
    return world.video("test", 0)


@pytest.mark.slow
def test_the_newest_finished_run_answers(program, small_run, clip, tmp_path, monkeypatch):
    unfinished = tmp_path / "outputs" / "day" / "unfinished"
    unfinished.mkdir(parents=True)
    shutil.copy(small_run / "config.yaml", unfinished)
    shutil.copytree(small_run, tmp_path / "outputs" / "day" / "finished")
    before = sorted((tmp_path / "outputs").rglob("*"))
    code, out, err = program("m1lite.ask", f"video={clip}", "question=when red-square", "engine=hf")
    assert code == 0, err
    lines = out.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")][:6] == [
        "team",
        "evidence",
        "ada",
        "bea",
        "cyd",
        "dov",
    ]
    assert lines[-1].endswith("s to load the team of outputs/day/finished")
    assert sorted((tmp_path / "outputs").rglob("*")) == before, "a question leaves nothing behind"
    # Greedy, so the same again; and by name.
    again = program("m1lite.ask", f"video={clip}", "question=when red-square", f"run={small_run}", "engine=hf")[1]
    answers = [[line.split("(0.")[0] for line in text.splitlines()[:-1]] for text in (out, again)]
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_the_team_as_a_tool_says_the_same(program, small_run, clip):
    out = program("m1lite.ask", f"video={clip}", "question=when red-square", f"run={small_run}", "engine=hf")[1]
    answer = out.splitlines()[0].removeprefix("team").strip()
    toolbox = Toolbox(EventGrounder(RunGrounder(small_run)).tools, FrameCache(2**24))
    asked = Sample(
        id="a", video=str(clip), duration=open_video(clip).metadata.duration, task=Task.CAPTION, question="?",
        answer=Answer(),
    )  # fmt: skip
    (result,) = toolbox.run([(asked, ToolCall(tool="grounding_tool", args={"event": "red-square"}))])
    if result.error is None:
        assert answer == "{} s to {} s".format(*result.text.split()[1:])
    else:
        assert answer == "no answer"
        assert "The team named no span of time" in result.error


def test_without_a_run_it_says_so(program, clip, tmp_path):
    assert program("m1lite.ask", f"video={clip}", "question=when red-square") == (
        2,
        "",
        f"No finished run under {tmp_path}/outputs; train one, or name its folder with `run=...`.\n",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("video=none.mp4 question=when", "Cannot read the video 'none.mp4': the file does not exist."),
        ("video=broken.mp4 question=when", "Cannot read the video 'broken.mp4': "),
        (
            "video=CLIP question=what's_up,_doc?",
            """`question` begins with "what's_up,_doc?"; give task= one of grounding""",
        ),
        ("video=CLIP question=when task=dancing", "`task` names 'dancing', which does not exist; give task= one of"),
        ("video=CLIP question=next", "`options` are []; a choice needs two or more, such as options=[a,b]."),
        ("video=CLIP question=track times=[3,99]", "`times` are [3.0, 99.0]; tracking needs seconds in [0, "),
        ("video=CLIP", "`question` has no value; give `question=...`."),
        ("video=CLIP question=when tsk=choice", "Unknown key `tsk`; at the top there are "),
        ("video=CLIP question=when run=nowhere", "nowhere holds no config.yaml; name the folder of a run"),
        (
            "video=CLIP question=when run=begun",
            "The run begun has no trained adapter of ada, bea, cyd, dov; finish it with",
        ),
    ],
)
def test_bad_input_is_named_with_what_is_allowed(program, clip, tmp_path, arguments, message):
    (tmp_path / "broken.mp4").write_bytes(b"no video at all" * 100)
    (tmp_path / "begun").mkdir()
    agents = "{ada: {}, bea: {}, cyd: {}, dov: {}}"
    (tmp_path / "begun" / "config.yaml").write_text(f"output_dir: begun\nteam: {{agents: {agents}}}\n")
    if "run=" not in arguments:
        arguments += " run=begun"
    code, out, err = program("m1lite.ask", *arguments.replace("CLIP", str(clip)).split())
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_first_words_tell_all_tasks_apart(world):
    assert len(set(FIRST_WORDS.values())) == len(Task) == len(FIRST_WORDS)
    for sample in world.split("test"):
        assert sample.question.split()[0] == FIRST_WORDS[sample.task]


def test_an_episode_in_lines():
    sample = Sample(id="q", video="v.mp4", duration=20, task=Task.GROUNDING, question="when", answer=Answer())
    right, other = Answer(spans=(Span(start=3, end=8.5),)), Answer(spans=(Span(start=0, end=2),))
    failed = Turn(
        kind=TurnKind.ANSWER, round=1, prompt_ids=[], reply_ids=[], logprobs=[], policy_version=0, seed=0, text="?"
    )
    failed.status, failed.error = Status.TRUNCATED, "The reply was cut."
    calls = [ToolCall(tool="grounding_tool", args={"event": "red-square", "end": 9}), ToolCall(tool="x", args={})]
    results = [ToolResult(text="red-square 3 8.5", seconds=0.25), ToolResult(error="no such window")]
    trajectories = {
        "ada": Trajectory(agent="ada", answer=right, calls=calls, results=results),
        "long-name": Trajectory(agent="long-name", answer=other),
        "cyd": Trajectory(agent="cyd", turns=[failed]),
    }
    episode = Episode(sample=sample, index=0, seed=0, visible={}, trajectories=trajectories, answer=right)
    assert episode_lines(episode).splitlines() == [
        "team       3 s to 8.5 s",
        "evidence   3 s to 8.5 s",
        "ada        3 s to 8.5 s (the team's)",
        "           grounding_tool red-square 9 = red-square 3 8.5 (0.25 s)",
        "           x = no such window (0.00 s)",
        "long-name  0 s to 2 s",
        "cyd        no answer (truncated: The reply was cut.)",
    ]
    assert written(Answer(number=4)) == "4"
    assert written(Answer(events=("a", "b"))) == "a b"
    assert written(Answer(boxes=(Box(left=1, top=2, right=3, bottom=4.5),))) == "box 1 2 3 4.5"
