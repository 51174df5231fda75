"""Renaming: rows stay true, groups stay apart, every order comes up, unknown words are refused."""

from collections import Counter
from random import Random

import pytest

from m1lite.data.renaming import Renaming, word_groups
from m1lite.modules.tiny import OBJECTS, tiny_tokenizer
from m1lite.toolbox.perception import LANES


def test_a_row_keeps_its_pattern_and_all_other_tokens():
    rename = Renaming([[5, 6, 7, 8], [20, 21]])
    row = [1, 5, 20, 6, 5, 2, 21, 20, 8, 5]
    for seed in range(50):
        found = rename(row, Random(seed))
        assert [i for i, index in enumerate(found) if index in (1, 2)] == [0, 5]
        assert [found.index(index) for index in found] == [row.index(index) for index in row]
        assert {found[i] for i in (1, 3, 8)} <= {5, 6, 7, 8}
        assert {found[2], found[6]} == {20, 21}


def test_every_order_of_a_group_comes_up_equally_often():
    rename, rng = Renaming([[1, 2, 3]]), Random(0)
    counts = Counter(tuple(rename([1, 2, 3], rng)) for _ in range(6000))
    assert len(counts) == 6
    assert max(counts.values()) < 1.15 * min(counts.values())


def test_words_become_their_tokens():
    tokenizer = tiny_tokenizer()
    rename = word_groups(tokenizer, [OBJECTS, LANES])
    text = "me : spatial_tool red-square = red-square left | answer : where red-square"
    found = tokenizer.decode(rename(tokenizer(text).input_ids, Random(3))).split()
    (name,) = {found[3], found[5], found[11]}
    assert name in OBJECTS
    assert found[6] in LANES
    assert [word for word in found if word not in (*OBJECTS, *LANES)] == [
        word for word in text.split() if word not in ("red-square", "left")
    ]


def test_errors_name_the_word_and_the_token():
    with pytest.raises(ValueError, match=r"`groups` holds \[2\] more than once"):
        Renaming([[1, 2], [2, 3]])
    with pytest.raises(ValueError, match="'pink-square' is not one token of the vocabulary"):
        word_groups(tiny_tokenizer(), [["red-square", "pink-square"]])
