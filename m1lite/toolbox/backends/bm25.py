"""Text search by shared words: BM25. Text search by meaning is in sentences.py."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"\w+")


class BM25:
    r"""Scores documents by the words that they share with a query, rare ones more than common ones.

    .. math:: s(d) = \sum_{w \in q} \ln\left(1 + \frac{N - n_w + 0.5}{n_w + 0.5}\right)
              \frac{f_{w,d} (k_1 + 1)}{f_{w,d} + k_1 (1 - b + b |d| / \bar l)}

    where N documents have the mean length l, n of them hold w, and d holds it f times. Words are compared without
    case; a word that the query repeats counts once.

    Args:
        k1: how soon a repeated word counts no more, at least 0.
        b: how much long documents are marked down, from 0 to 1.

    References:
        Robertson and Zaragoza 2009, The Probabilistic Relevance Framework; the logarithm's 1 keeps every share above 0.

    Example:
        >>> [score and round(score, 2) for score in BM25()("a dog", ["The dog barks.", "A cat"])]
        [0.64, 0.75]
        >>> BM25()("bird", ["The dog barks."])
        [None]
    """

    def __init__(self, *, k1: float = 1.2, b: float = 0.75) -> None:
        if not (0 <= k1 < math.inf and 0 <= b <= 1):
            raise ValueError(f"`k1` must be at least 0 and `b` from 0 to 1, got {k1} and {b}.")
        self.k1 = k1
        self.b = b

    def __call__(self, query: str, documents: Sequence[str]) -> list[float | None]:
        """Score documents.

        Returns:
            One score above 0 per document, higher is better; ``None`` where it shares no word with the query.
        """
        counted = [Counter(words(document)) for document in documents]
        lengths = [sum(counts.values()) for counts in counted]
        mean = sum(lengths) / len(lengths) if any(lengths) else 1.0
        scores: list[float | None] = [None] * len(documents)
        for word in dict.fromkeys(words(query)):
            holders = [place for place, counts in enumerate(counted) if word in counts]
            rarity = math.log(1 + (len(documents) - len(holders) + 0.5) / (len(holders) + 0.5))
            for place in holders:
                count = counted[place][word]
                damped = count + self.k1 * (1 - self.b + self.b * lengths[place] / mean)
                scores[place] = (scores[place] or 0.0) + rarity * count * (self.k1 + 1) / damped
        return scores


def words(text: str) -> list[str]:
    """Split a text into words without case.

    Example:
        >>> words("The dog's 2 bones.")
        ['the', 'dog', 's', '2', 'bones']
    """
    return _WORD.findall(text.casefold())
