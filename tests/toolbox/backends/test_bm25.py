"""BM25 against its formula written as loops over all documents and words."""

import math
import random

import pytest

from m1lite.toolbox.backends.bm25 import BM25


def reference(query, documents, k1, b):
    split = [document.lower().split() for document in documents]
    mean = sum(map(len, split)) / len(split)
    scores = []
    for words in split:
        total = None
        for word in set(query.lower().split()):
            if word in words:
                having = sum(word in other for other in split)
                idf = math.log(1 + (len(split) - having + 0.5) / (having + 0.5))
                count = words.count(word)
                norm = 1 - b + b * len(words) / mean
                total = (total or 0) + idf * count * (k1 + 1) / (count + k1 * norm)
        scores.append(total)
    return scores


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.0, 0.0), (2.0, 1.0)])
def test_against_loops(k1, b):
    rng = random.Random(0)
    words = ["ape", "bat", "cow", "dog", "eel", "fox"]
    for _ in range(50):
        documents = [" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(rng.randint(1, 8))]
        query = " ".join(rng.choices([*words, "Gnu"], k=3))
        assert BM25(k1=k1, b=b)(query, documents) == pytest.approx(reference(query, documents, k1, b))


def test_a_rare_word_outweighs_a_common_one_and_case_is_ignored():
    scores = BM25()("DOG moon", ["dog run", "dog sit", "dog eat", "Moon cat"])
    assert scores.index(max(scores)) == 3


def test_nothing_to_compare():
    assert BM25()("dog", []) == []
    assert BM25()("dog", ["", "..."]) == [None, None]
    assert BM25()("?!", ["dog"]) == [None]


def test_arguments():
    with pytest.raises(ValueError, match=r"`k1` must be at least 0 and `b` from 0 to 1, got 1\.0 and 1\.5"):
        BM25(k1=1.0, b=1.5)
