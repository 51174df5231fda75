import pytest

from m1lite.toolbox import ToolArgumentError
from m1lite.toolbox.perception import OBJECTS
from m1lite.toolbox.wording import check_object, number, window


@pytest.mark.parametrize(
    ("value", "text"), [(5, "5"), (5.0, "5"), (0.0, "0"), (2.5, "2.5"), (2.346, "2.35"), (7.999, "8"), (-1.0, "-1")]
)
def test_numbers_are_whole_or_have_two_decimals(value, text):
    assert number(value) == text


def test_a_side_that_is_not_given_is_the_videos():
    assert window(47, None, None) == (0, 47)
    assert window(47, 46.5, None) == (46.5, 47)
    assert window(47, None, 1) == (0, 1)
    with pytest.raises(ToolArgumentError, match=r"`end` 47.5 is past the video end 47\."):
        window(47, None, 47.5)


def test_every_object_has_a_name_and_nothing_else_has():
    for word in OBJECTS:
        check_object("query", word)
    check_object("question", "objects", or_anything=True)
    for word in ("", "red", "square", "Red-square", "red square", "square-red", "none"):
        with pytest.raises(
            ToolArgumentError, match=f"`query` '{word}' is not one object; an object is a colour of red,"
        ):
            check_object("query", word)
