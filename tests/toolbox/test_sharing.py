"""Equal arguments give one object, as long as somebody holds it."""

import gc

import pytest

from m1lite.toolbox.sharing import shared


class Store:
    def __init__(self, name, *, size=1, rows=()):
        self.name, self.size, self.rows = name, size, rows


def test_equal_arguments_give_one_object():
    first = shared(Store, name="a", rows=[1, {"b": None}])
    assert shared(Store, rows=(1, {"b": None}), name="a") is first
    assert first.name == "a"
    others = [
        shared(Store, name="b", rows=[1, {"b": None}]),
        shared(Store, name="a", rows=[1, {"b": 0}]),
        shared(Store, name="a"),
        shared(Store, name="a", size=1),
        shared(Store, name="a", size=True),
        shared(type("Other", (Store,), {}), name="a"),
    ]
    assert len({id(one) for one in [first, *others]}) == 7


def test_nobody_holds_it_any_more():
    name = shared(Store, name="a", size=7)
    name.mark = 1
    del name
    gc.collect()
    assert not hasattr(shared(Store, name="a", size=7), "mark")


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(TypeError, match="`shared` takes texts, numbers, lists and mappings, got <object"):
        shared(Store, name=object())
