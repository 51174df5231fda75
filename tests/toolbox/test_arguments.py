import json
import math
from typing import Annotated, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m1lite.records import ToolResult
from m1lite.toolbox import Between, Parameter, ToolArgumentError, check_arguments, json_schema, tool
from m1lite.toolbox.arguments import read_parameters, shorten
from m1lite.toolbox.classical import CLASSICAL_TOOLS


@tool
def probe(
    context,
    *,
    query: str,
    at: float,
    top_k: Annotated[int, Between(1, 8)] = 2,
    until: float | None = None,
    mode: Literal["near", "far"] = "near",
    exact: bool = False,
) -> ToolResult:
    """Probe a video.

    In two paragraphs.

    Args:
        context: the video.
        query: the object.
        at: a second,
            counted from the start.
        top_k: how many.
        until: where to stop.
        mode: how to look.
        exact: whether to be exact.

    Returns:
        nothing: of note.
    """
    return ToolResult()


def test_parameters_come_from_the_signature_and_the_docstring():
    assert probe.name == "probe"
    assert probe.description == "Probe a video. In two paragraphs."
    query, at, top_k, until, mode, exact = probe.parameters
    assert query == Parameter(name="query", kind=str, description="the object.", required=True)
    assert at == Parameter(name="at", kind=float, description="a second, counted from the start.", required=True)
    assert (top_k.kind, top_k.default, top_k.limits, top_k.required) == (int, 2, Between(1, 8), False)
    assert (until.kind, until.default, until.required) == (float, None, False)
    assert (mode.kind, mode.choices, mode.default) == (str, ("near", "far"), "near")
    assert (exact.kind, exact.default) == (bool, False)


def test_the_schema_has_the_form_that_chat_templates_take():
    assert json_schema(probe) == {
        "type": "function",
        "function": {
            "name": "probe",
            "description": "Probe a video. In two paragraphs.",
            "parameters": {
                "type": "object",
                "properties": {
                    "query": {"type": "string", "description": "the object."},
                    "at": {"type": "number", "description": "a second, counted from the start."},
                    "top_k": {
                        "type": "integer",
                        "description": "how many.",
                        "minimum": 1,
                        "maximum": 8,
                        "default": 2,
                    },
                    "until": {"type": "number", "description": "where to stop."},
                    "mode": {
                        "type": "string",
                        "description": "how to look.",
                        "enum": ["near", "far"],
                        "default": "near",
                    },
                    "exact": {"type": "boolean", "description": "whether to be exact.", "default": False},
                },
                "required": ["query", "at"],
                "additionalProperties": False,
            },
        },
    }


def test_the_classical_tools_take_what_their_users_write():
    signatures = {
        each.name: " ".join(p.name if p.required else f"[{p.name}={p.default}]" for p in each.parameters)
        for each in CLASSICAL_TOOLS
    }
    assert signatures == {
        "global_sampling": "[num_frames=4]",
        "video_retrieval": "query [top_k=1]",
        "image_retrieval": "query [top_k=1] [start=None] [end=None]",
        "time_step_retrieval": "start end [num_frames=2]",
        "rough_browser": "question [start=None] [end=None]",
        "fine_browser": "question start end",
        "grounding_tool": "event [start=None] [end=None]",
        "spatial_tool": "question [start=None] [end=None]",
    }
    json.dumps([json_schema(each) for each in CLASSICAL_TOOLS], allow_nan=False)


def test_only_what_was_given_comes_back_in_one_form_and_in_signature_order():
    args = check_arguments(probe, {"until": None, "top_k": 3.0, "at": 2.0, "query": "red-square"})
    assert list(args.items()) == [("query", "red-square"), ("at", 2), ("top_k", 3)]
    assert all(type(args[name]) is int for name in ("at", "top_k"))
    assert check_arguments(probe, {"query": "x", "at": 2.5}) == {"query": "x", "at": 2.5}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"query": "x"}, "`probe` needs `at`: a second, counted from the start. It takes query at [top_k] [until]"),
        ({"query": None, "at": 1}, "`probe` needs `query`: the object."),
        ({"query": "x", "at": 1, "when": 3}, "`probe` has no argument 'when'; it takes query at [top_k]"),
        ({"query": 3, "at": 1}, "`query` of `probe` must be text, got 3 (int)"),
        ({"query": "x", "at": "soon"}, "`at` of `probe` must be a number, got 'soon' (str)"),
        ({"query": "x", "at": True}, "`at` of `probe` must be a number, got True (bool)"),
        ({"query": "x", "at": math.nan}, "`at` of `probe` must be a number, got nan (float)"),
        ({"query": "x", "at": -math.inf}, "`at` of `probe` must be a number, got -inf (float)"),
        ({"query": "x", "at": 10**400}, "`at` of `probe` must be a number, got a number of more than 20 digits (int)"),
        ({"query": "x", "at": [1]}, "`at` of `probe` must be a number, got [1] (list)"),
        ({"query": "x", "at": 1, "top_k": 2.5}, "`top_k` of `probe` must be a whole number, got 2.5 (float)"),
        ({"query": "x", "at": 1, "top_k": 9}, "`top_k` of `probe` must lie between 1 and 8, got 9."),
        ({"query": "x", "at": 1, "top_k": 0}, "`top_k` of `probe` must lie between 1 and 8, got 0."),
        ({"query": "x", "at": 1, "mode": "wide"}, "`mode` of `probe` must be one of near, far, got 'wide'."),
        ({"query": "x", "at": 1, "exact": 1}, "`exact` of `probe` must be true or false, got 1 (int)"),
        (["red-square"], "The arguments of `probe` must be an object of names and values, got ['red-square'] (list)"),
        (None, "The arguments of `probe` must be an object of names and values, got None (NoneType)"),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(args, message):
    with pytest.raises(ToolArgumentError) as refusal:
        check_arguments(probe, args)
    assert message in str(refusal.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)
NAMES = st.sampled_from(["query", "at", "top_k", "until", "mode", "exact"]) | st.text()


@given(st.dictionaries(NAMES, JSON) | JSON)
def test_any_arguments_are_taken_or_refused_with_a_short_text(args):
    refusal = ""
    try:
        checked = check_arguments(probe, args)
    except ToolArgumentError as error:
        refusal = str(error)
    else:
        assert checked.keys() <= args.keys()
        assert check_arguments(probe, checked) == checked
    assert len(refusal) < 400


def test_long_values_are_cut_in_error_texts():
    assert shorten("a" * 1000) == "'" + "a" * 59 + "..."
    assert shorten(list(range(1000))).endswith("...")


def test_functions_that_cannot_be_tools_say_why():
    def bare(context, *, query: str):
        pass

    def silent(context, *, query: str):
        """Look."""

    def untyped(context, *, query):
        """Look.

        Args:
            query: the object.
        """

    def listy(context, *, query: list[str]):
        """Look.

        Args:
            query: the objects.
        """

    def open_ended(context, **query: str):
        """Look.

        Args:
            query: the objects.
        """

    def stale(context):
        """Look.

        Args:
            query: an argument that is gone.
        """

    for function, message in (
        (bare, "Tool `bare` needs a docstring"),
        (silent, "Tool `silent` says nothing about `query`"),
        (untyped, "Tool `untyped` annotates `query` as None; allowed are str, int, float, bool"),
        (listy, r"Tool `listy` annotates `query` as list\[str\]; allowed are"),
        (open_ended, r"Tool `open_ended` takes `\*\*query: ?\S+`"),
        (stale, r"Tool `stale` describes \['query'\] under `Args:`, which its signature does not take"),
    ):
        with pytest.raises(TypeError, match=message):
            read_parameters(function)


def test_large_and_deep_arguments_are_refused_before_anything_else():
    deep = "red-square"
    for _ in range(100_000):
        deep = [deep]
    said = "The arguments of `probe` are too large; allowed are 100000 characters and 10000 values in all, 32 levels"
    for args in (
        {"query": "x" * 10**7, "at": 1},
        {"query": "x", "at": 1, "y" * 10**7: 2},
        {"query": "x", "at": [0.5] * 10**6},
        {"query": ["x" * 1000] * 200, "at": 1},
        {"query": deep, "at": 1},
        {str(number): number for number in range(10**6)},
    ):
        with pytest.raises(ToolArgumentError) as refusal:
            check_arguments(probe, args)
        assert str(refusal.value).startswith(said)
    assert check_arguments(probe, {"query": "x" * 90_000, "at": 1})["at"] == 1


def test_what_cannot_be_printed_is_named_by_its_kind():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert shorten(deep) == "a list of lists in lists"
    assert shorten([10**5000]) == "a list with a number of thousands of digits"
    with pytest.raises(ToolArgumentError, match="`query` of `probe` must be text, got a list with a number of thou"):
        check_arguments(probe, {"query": [10**5000], "at": 1})


class Even:
    schema: ClassVar = {"type": "integer", "multipleOf": 2, "description": "an even number"}

    def problem(self, value):
        return None if value % 2 == 0 else f"{value} is odd"


def test_a_schema_from_outside_is_shown_and_checked():
    parameter = Parameter(name="count", kind=int, description="an even number", required=True, given=Even())
    assert parameter.schema == Even.schema
    assert parameter.check("probe", 4) == 4
    with pytest.raises(ToolArgumentError, match="`count` of `probe` does not fit its schema: 3 is odd"):
        parameter.check("probe", 3)
