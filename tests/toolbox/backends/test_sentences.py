"""Sentence embeddings by a tiny BERT from disk, against a loop over single texts without padding."""

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from m1lite.toolbox.backends.sentences import SentenceEncoder

DOCUMENTS = ["the dog barks at the moon", "", "a cat sleeps", "the cat sleeps in the red house at the blue moon"]


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_cosines_against_a_loop(sentence_folder, pooling):
    model, tokenizer = AutoModel.from_pretrained(sentence_folder), AutoTokenizer.from_pretrained(sentence_folder)

    def vector(text):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        pooled = states[0] if pooling == "first" else states.mean(0)
        return pooled / pooled.norm()

    query = vector("what is red dog")
    expected = [float(vector(f"the {one}") @ query) if one else None for one in DOCUMENTS]
    encoder = SentenceEncoder(sentence_folder, pooling=pooling, query_prefix="what is ", document_prefix="the ")
    scores = encoder("red dog", DOCUMENTS)
    assert scores == pytest.approx(expected, abs=1e-5)
    assert encoder("red dog", DOCUMENTS) == pytest.approx(scores)  # from what is kept
    assert encoder("red dog", ["", " "]) == [None, None]


def test_long_texts_are_cut(sentence_folder):
    encoder = SentenceEncoder(sentence_folder, max_tokens=4)
    cut, same = encoder("dog", ["a red dog barks at the moon", "a red dog barks"])
    assert cut == pytest.approx(same, abs=1e-6)
    assert len(SentenceEncoder(sentence_folder)("dog", ["dog " * 1000])) == 1  # the model reads 16


def test_arguments():
    with pytest.raises(ValueError, match="`pooling` must be mean or first, got 'last'"):
        SentenceEncoder("x", pooling="last")
    with pytest.raises(ValueError, match="`max_tokens` must be at least 1, got 0"):
        SentenceEncoder("x", max_tokens=0)
