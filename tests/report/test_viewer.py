"""The page of a run holds what its episodes hold, escapes it, and needs nothing but itself."""

import base64
import copy
import json
import re
import sys
from html.parser import HTMLParser

import pytest

from m1lite.report import viewer
from m1lite.report.viewer import ViewerError, build, looked_at, main, read_episodes, scores, thumbnails

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=\"alert(1)\">&amp;"


def turn(kind, text, **values):
    return {"kind": kind, "round": 0, "text": text, "status": "ok", "error": "", **values}


def call(tool, args, text, **values):
    return {
        "tool": tool,
        "args": args,
        "text": text,
        "error": None,
        "seconds": 0.25,
        "cached": False,
        "media": [],
    } | values


@pytest.fixture
def row(world):
    ada = {
        "turns": [
            turn("plan", "the plan of ada"),
            turn("communicate", "keep it", round=1),
            turn("answer", "the last words", round=2),
        ],
        "calls": [
            call("grounding_tool", {"event": "red-square", "start": 2, "end": 4}, "seen 2 to 3"),
            call("rough_browser", {"question": "all"}, "", error="no such window"),
        ],
        "answer": {"spans": [{"start": 2.0, "end": 4.0}]},
        "reward": 1.25,
        "terms": {"result": 0.75, "judge": None},
    }
    bea = {
        "turns": [turn("plan", "?", status="invalid_plan", error="write a plan")],
        "calls": [],
        "answer": None,
        "reward": None,
        "terms": {},
    }
    return {
        "step": 3,
        "split": "train",
        "sample": "clip-7",
        "video": str(world.video("test", 0)),
        "task": "grounding",
        "question": "when red-square",
        "truth": {"spans": [{"start": 2.0, "end": 5.0}]},
        "episode": 1,
        "visible": {"ada": ["bea"], "bea": []},
        "answer": {"spans": [{"start": 2.0, "end": 4.0}]},
        "agents": {"ada": ada, "bea": bea},
    }


@pytest.fixture
def write_run(tmp_path):
    def write(*rows, name="trajectories.jsonl"):
        (tmp_path / "run").mkdir(exist_ok=True)
        lines = [row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows]
        (tmp_path / "run" / name).write_text("".join(lines))
        return tmp_path / "run"

    return write


class Page(HTMLParser):
    """What a browser would make of a page: its tags with attributes, its texts, and its scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.scripts = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        place = self.scripts if self.lasttag == "script" and data.strip() else self.texts
        place.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def test_everything_that_happened_is_on_the_page(write_run, row):
    page = Page(build(write_run(row)))
    for words in (
        "when red-square", "truth 2 s to 5 s", "team's answer 2 s to 4 s (score 0.67)", "clip-7", "episode 1",
        "ada reads bea", "bea reads nobody", "the plan of ada", "keep it", "the last words",
        "grounding_tool(event=red-square, start=2, end=4) seen 2 to 3 0.25 s",
        "rough_browser(question=all) no such window", "reward +1.25 result +0.75, judge none", "reward none",
        "invalid_plan: write a plan", "no answer", "1 of 1 episodes",
    ):  # fmt: skip
        assert words in page.text, words
    (episode,) = [values for tag, values in page.tags if values.get("class") == "episode"]
    assert (episode["data-stage"], episode["data-task"]) == ("train", "grounding")
    assert json.loads(episode["data-right"]) == ["team", "ada"]
    assert [values["id"] for tag, values in page.tags if tag == "select"] == ["stage", "task", "agent", "answer"]
    assert {values["value"] for tag, values in page.tags if tag == "option"} == {
        *("", "train", "grounding", "ada", "bea", "right", "wrong")
    }


def test_the_page_needs_nothing_else(write_run, row):
    text = build(write_run(row))
    assert not re.search(r"https?:|@import|<link", text)
    assert not [values for _, values in Page(text).tags if values.keys() & {"src", "href"}]
    assert "default-src 'none'" in text
    assert set(re.findall(r"url\((.{11})", text)) == {"data:image/j"[:11]}


def test_hostile_text_stays_text(write_run, row):
    hostile = copy.deepcopy(row)
    hostile.update(
        split=HOSTILE, sample=HOSTILE, question=HOSTILE, video=HOSTILE, task="choice", truth={"text": HOSTILE}
    )
    hostile["answer"] = {"text": HOSTILE}
    hostile["visible"] = {HOSTILE: [HOSTILE]}
    agent = hostile["agents"].pop("ada")
    agent["turns"] = [turn(kind, HOSTILE, status=HOSTILE, error=HOSTILE) for kind in ("plan", "communicate", "answer")]
    agent["calls"] = [call(HOSTILE, {HOSTILE: HOSTILE}, HOSTILE), call(HOSTILE, {}, "", error=HOSTILE)]
    agent["terms"] = {HOSTILE: 1.0}
    hostile["agents"] = {HOSTILE: agent | {"answer": {"events": [HOSTILE]}}}
    run = write_run(hostile).rename(write_run(hostile).parent / "<b>run")
    page, plain = Page(build(run)), Page(build(write_run(row)))
    assert len(page.scripts) == 1
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    assert not [values for _, values in page.tags if "onerror" in values]
    assert page.text.count(HOSTILE) >= 15
    (episode,) = [values for tag, values in page.tags if values.get("class") == "episode"]
    assert episode["data-stage"] == HOSTILE
    assert json.loads(episode["data-right"]) == ["team"]


def test_frames_are_those_of_the_calls_and_embedded_once(write_run, row):
    found, missing = thumbnails([row, row], limit=100)
    duration = viewer.open_video(row["video"]).metadata.duration
    assert missing == 0
    assert found[0] == found[1]
    assert [second for second, _ in found[0]] == [0.0, 2.0, 3.0, 4.0, round(duration / 2, 1), duration]
    for _, data in found[0]:
        assert base64.b64decode(data)[:3] == b"\xff\xd8\xff", "a JPEG"
    text = build(write_run(row, row))
    assert text.count("data:image/jpeg") == len({data for _, data in found[0]})
    assert text.count('<span class="frame') == 12
    assert [len(shown) for shown in thumbnails([row, row], limit=2)[0]] == [2, 2]


def test_a_video_that_is_gone_is_said(write_run, row, tmp_path):
    gone = row | {"video": str(tmp_path / "gone.mp4")}
    text = build(write_run(row, gone))
    assert "1 videos cannot be read any more" in text
    assert thumbnails([gone], limit=9) == ([[]], 1)


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([], []),
        ([call("x", {"start": -3, "end": 99}, "")], [0.0, 10.0, 10.0]),
        ([call("x", {"start": "abc", "end": float("nan")}, "")], [0.0, 5.0, 10.0]),
        ([call("x", {}, "", media=[{"timestamps": [7.0, 1.26]}])], [1.3, 7.0]),
        ([call("x", {"start": n, "end": n}, "") for n in range(10)], [0, 1, 2, 3, 5, 6, 7, 8]),
    ],
    ids=["no call", "outside of the video", "no numbers", "frames of the result", "too many"],
)
def test_seconds_to_show(calls, expected):
    assert looked_at({"agents": {"ada": {"calls": calls}}}, duration=10.0) == sorted(set(expected))


def test_scores_are_those_of_the_tasks(row):
    assert scores(row) == pytest.approx({"team": 2 / 3, "ada": 2 / 3, "bea": 0.0})
    counting = row | {"task": "counting", "truth": {"number": 3}, "answer": {"number": 3}}
    assert scores(counting) == {"team": 1.0, "ada": 0.0, "bea": 0.0}
    assert scores(row | {"truth": {}}) == {}, "not known"


def test_many_episodes_are_spread_evenly_and_those_of_all_ranks_are_read(write_run, row):
    run = write_run(*(row | {"step": step} for step in range(40)))
    write_run(*(row | {"step": step, "sample": "rank 1"} for step in range(40)), name="trajectories-1.jsonl")
    found, total, unreadable = read_episodes(run, 8)
    assert (total, unreadable) == (80, 0)
    assert [episode["step"] for episode in found] == [0, 0, 10, 10, 20, 20, 30, 30]
    assert sum(episode["sample"] == "rank 1" for episode in found) == 4
    assert "8 of 80 episodes, evenly spread over the run" in build(run, num_episodes=8)


def test_a_line_that_was_cut_off_is_left_out_and_said(write_run, row):
    text = build(write_run(row, "[1]\n", json.dumps(row)[:90]))
    assert "1 of 3 episodes" in text
    assert "2 of the file&#x27;s lines hold no whole episode" in text


def test_a_run_without_episodes_is_refused(write_run, tmp_path, row):
    with pytest.raises(ViewerError, match=r"nowhere holds no trajectories.jsonl; name the folder of a run that has"):
        build(tmp_path / "nowhere")
    with pytest.raises(ViewerError, match=r"trajectories.jsonl holds no episode; the run was stopped before"):
        build(write_run())
    with pytest.raises(ViewerError, match="`num_episodes` is 0; show at least 1"):
        build(write_run(row), num_episodes=0)


def test_the_command_writes_the_page_into_the_run(write_run, row, monkeypatch, capsys):
    run = write_run(row)
    monkeypatch.setattr(sys, "argv", ["viewer", str(run)])
    main()
    assert (run / "viewer.html").read_text() == build(run)
    assert capsys.readouterr().out.startswith(f"{run}/viewer.html (0.")
    monkeypatch.setattr(sys, "argv", ["viewer", str(run / "none"), "--output", str(run / "page.html")])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "none holds no trajectories.jsonl" in capsys.readouterr().err
    assert not (run / "page.html").exists()
