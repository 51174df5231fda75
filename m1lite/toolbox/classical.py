"""The eight tools on classical perception, for videos of coloured shapes. None of them sees a question's answer.

The names are those of VideoChat-M1's tool factory (arXiv:2511.19524); the arguments and the form of the results are our
reading, because the paper gives none.
"""

from __future__ import annotations

from m1lite.toolbox.base import Tool
from m1lite.toolbox.browsing import fine_browser, rough_browser
from m1lite.toolbox.grounding import grounding_tool
from m1lite.toolbox.retrieval import image_retrieval, video_retrieval
from m1lite.toolbox.sampling_tools import global_sampling, time_step_retrieval
from m1lite.toolbox.spatial import spatial_tool

CLASSICAL_TOOLS: tuple[Tool, ...] = (
    global_sampling,
    video_retrieval,
    image_retrieval,
    time_step_retrieval,
    rough_browser,
    fine_browser,
    grounding_tool,
    spatial_tool,
)
