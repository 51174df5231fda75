"""Relevance over real footage, seen by a colour encoder, and over texts with times."""

import pytest
import torch

from m1lite.toolbox.backends.bm25 import BM25
from m1lite.toolbox.index import VideoIndex
from m1lite.toolbox.learned.relevance import FrameRelevance, TextRelevance
from m1lite.video.subtitles import Subtitle

SAID = [
    Subtitle(start=0, end=4, text="The dog barks."),
    Subtitle(start=6, end=9, text="A cat sleeps."),
    Subtitle(start=20, end=float("inf"), text="The dog eats."),
    Subtitle(start=90, end=95, text="A dog after the end."),
]


def test_a_curve_follows_the_scenes(context, index, encoder):
    curve = FrameRelevance(index, encoder, fps=2).curve(context, "a red screen")
    assert curve.seconds == tuple(number / 2 for number in range(52))
    red = [score for second, score in zip(curve.seconds, curve.scores, strict=True) if second < 6 or second >= 23]
    rest = [score for second, score in zip(curve.seconds, curve.scores, strict=True) if 6 <= second < 23]
    assert min(red) > 0.99
    assert max(rest) < 0.9


def test_clips_are_compared_by_the_mean_of_their_frames(context, index, encoder):
    relevance = FrameRelevance(index, encoder)
    clips = [(0, 6), (3, 9), (12, 17), (25.2, 25.9)]
    scores = relevance.clips(context, "blue", clips)
    seconds, vectors = relevance.vectors(context)
    for (start, end), score in zip(clips[:3], scores[:3], strict=True):
        mean = sum(vector for second, vector in zip(seconds, vectors, strict=True) if start <= second < end)
        assert score == pytest.approx(float(torch.nn.functional.cosine_similarity(mean, torch.tensor([0, 0, 1.0]), 0)))
    assert max(scores[:3]) == scores[2]
    assert scores[3] is None  # no frame at a whole second


def test_frames_are_encoded_once_for_all_queries_and_runs(context, index, encoder):
    for query in ("red", "blue"):
        FrameRelevance(index, encoder).curve(context, query)
        FrameRelevance(VideoIndex(index.folder), encoder).clips(context, query, [(0, 8)])
    assert encoder.pictures == 26
    other = type(encoder)()
    other.identity = "another model"
    FrameRelevance(VideoIndex(index.folder), other).curve(context, "red")
    assert other.pictures == 26


def test_a_long_video_is_looked_at_less_often(context, index, encoder):
    assert len(FrameRelevance(index, encoder, max_frames=13).curve(context, "red").seconds) == 13
    assert encoder.pictures == 13


def test_texts_have_the_time_at_which_they_are_shown(context):
    relevance = TextRelevance(lambda _: SAID, BM25())
    curve = relevance.curve(context, "dog")
    assert curve.seconds == (2.0, 23.0)
    scores = relevance.clips(context, "dog barks", [(0, 5), (5, 10), (10, 15), (15, 26)])
    assert scores[1:3] == [None, None]
    assert scores[0] > scores[3] > 0
    assert relevance.curve(context, "bird").seconds == ()


def test_symbolic_scenes_and_wrong_numbers_are_refused(context, index, encoder):
    from dataclasses import replace

    with pytest.raises(ValueError, match="the toolbox has no `frames`; give it a `FrameCache`"):
        FrameRelevance(index, encoder).curve(replace(context, frames=None), "red")
    with pytest.raises(ValueError, match="`fps` must be above 0 and `max_frames` at least 1, got 0 and 20000"):
        FrameRelevance(index, encoder, fps=0)
