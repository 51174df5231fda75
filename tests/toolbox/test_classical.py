"""The eight tools on real files and on symbolic scenes, against answers worked out from the scenes' events."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m1lite.records import ToolCall
from m1lite.toolbox import Toolbox
from m1lite.toolbox.classical import CLASSICAL_TOOLS
from m1lite.toolbox.perception import COLOURS, LANES, OBJECTS, shape_mask
from m1lite.video.cache import FrameCache
from m1lite.video.writer import write_video


def draw_events(rng, event, duration):
    """Three to seven objects, one per lane at a time, starts two seconds apart, each seen for three seconds or more."""
    events, free, start = [], dict.fromkeys(LANES, 0), int(rng.integers(0, 3))
    names = [OBJECTS[index] for index in rng.permutation(len(OBJECTS))[:7]]
    while names and start + 3 <= duration:
        lanes = [lane for lane in LANES if free[lane] <= start]
        if lanes:
            lane = str(rng.choice(lanes))
            end = start + int(rng.integers(3, min(duration - start, 12) + 1))
            events.append(event(names.pop(), lane, start, end))
            free[lane] = end
        start += int(rng.integers(2, 6))
    return tuple(events)


def draw_calls(rng, duration, number):
    calls = []
    for _ in range(number):
        start, end = sorted(int(second) for second in rng.choice(duration + 1, 2, replace=False))
        name = str(rng.choice(OBJECTS[:12]))
        calls += [
            ToolCall(tool="global_sampling", args={"num_frames": int(rng.integers(1, 9))}),
            ToolCall(tool="time_step_retrieval", args={"start": start, "end": end, "num_frames": 3}),
            ToolCall(tool="video_retrieval", args={"query": name, "top_k": 2}),
            ToolCall(tool="image_retrieval", args={"query": name, "start": start, "end": end}),
            ToolCall(tool="rough_browser", args={"question": "objects", "start": start, "end": end}),
            ToolCall(tool="fine_browser", args={"question": "objects", "start": start, "end": min(end, start + 12)}),
            ToolCall(tool="grounding_tool", args={"event": name}),
            ToolCall(tool="spatial_tool", args={"question": name, "start": start, "end": end}),
        ]
    return calls


def render(events, duration, fps):
    """Shapes on grey, with some noise that decoding has to live with: uint8 (N, 3, 64, 64)."""
    rng = np.random.default_rng(0)
    frames = rng.integers(90, 110, (round(duration * fps), 1, 64, 64)).repeat(3, axis=1).astype(np.uint8)
    for index, frame in enumerate(frames):
        for event in events:
            if event.start <= index / fps < event.end:
                colour, _, shape = event.name.partition("-")
                box = event.box(index / fps)
                area = frame[:, int(box.top) : int(box.bottom), int(box.left) : int(box.right)]
                area[:, shape_mask(shape, 14, 14)] = np.array(COLOURS[colour])[:, None]
    return torch.from_numpy(frames)


@pytest.mark.parametrize(("seed", "fps"), [(1, 4), (2, 5), (3, 8)])
def test_pixels_of_a_real_file_tell_what_the_scene_holds(tmp_path, make_scene, make_event, sample, seed, fps):
    rng = np.random.default_rng(seed)
    duration = int(rng.integers(20, 40))
    symbolic = make_scene(events=draw_events(rng, make_event, duration), duration=duration)
    sample.video, sample.duration = str(tmp_path / "scene.mp4"), duration
    write_video(sample.video, render(symbolic.events, duration, fps), fps=fps)
    calls = [(sample, call) for call in draw_calls(rng, duration, 12)]
    calls += [(sample, ToolCall(tool="grounding_tool", args={"event": event.name})) for event in symbolic.events]
    seen = [result.text for result in Toolbox(CLASSICAL_TOOLS, FrameCache(2**26)).run(calls)]
    assert seen == [result.text for result in symbolic.toolbox.run(calls)]
    assert seen[-len(symbolic.events) :] == [f"{e.name} {e.start} {e.end}" for e in symbolic.events]


def test_an_unreadable_file_is_an_error_that_names_it(tmp_path, sample):
    sample.video = str(tmp_path / "missing.mp4")
    (result,) = Toolbox(CLASSICAL_TOOLS, FrameCache(2**20)).run([(sample, ToolCall(tool="global_sampling", args={}))])
    assert result.status == "tool_error"
    assert result.error.startswith("`global_sampling` failed on {}: VideoError: ")
    assert "missing.mp4" in result.error


SEEDS = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS)
def test_browsers_and_grounding_agree_with_the_events(make_scene, make_event, seed):
    rng = np.random.default_rng(seed)
    duration = int(rng.integers(20, 61))
    scene = make_scene(events=draw_events(rng, make_event, duration), duration=duration)
    start, end = sorted(int(second) for second in rng.choice(duration + 1, 2, replace=False))
    inside = [event for event in scene.events if event.start < end and event.end > start]

    names = [event.name for event in scene.events]
    assert scene.text("rough_browser", question="objects") == " ".join(["seen", str(len(names)), *names])
    for event in scene.events:
        clipped = f"{event.name} {max(event.start, start)} {min(event.end, end)}" if event in inside else "none"
        assert scene.text("grounding_tool", event=event.name) == f"{event.name} {event.start} {event.end}"
        assert scene.text("grounding_tool", event=event.name, start=start, end=end) == clipped
        if end - start <= 12:
            assert scene.text("fine_browser", question=event.name, start=start, end=end) == clipped
    if end - start <= 12:
        text = scene.text("fine_browser", question="objects", start=start, end=end)
        spans = {(event.name, str(max(event.start, start)), str(min(event.end, end))) for event in inside}
        words = text.split() if text != "none" else []
        assert set(zip(words[::3], words[1::3], words[2::3], strict=True)) == spans


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS)
def test_every_word_is_a_plain_word_and_every_look_stays_in_the_window(make_scene, make_event, seed):
    rng = np.random.default_rng(seed)
    duration = int(rng.integers(20, 61))
    scene = make_scene(events=draw_events(rng, make_event, duration), duration=duration)
    plain = {*OBJECTS, *LANES, "t", "none", "clip", "box", "seen", *(str(number) for number in range(65))}
    for call in draw_calls(rng, duration, 3):
        scene.seconds.clear()
        words = scene.text(call.tool, **call.args).split(" ")
        assert set(words) <= plain, words
        closed = call.tool == "spatial_tool"  # looks at the end itself too
        start, end = call.args.get("start", 0), call.args.get("end", duration)
        assert all(start <= second < end + closed * 1e-9 for second in scene.seconds), (call, scene.seconds)
