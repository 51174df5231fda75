"""Other rows for nothing: words that can stand for each other change places all through a row, which stays true.

Nothing in a question about a red square would be different about a blue circle. A model that sees every row under ever
other names cannot learn rows by heart; it has to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Renaming:
    """Exchanges tokens within groups.

    Args:
        groups: token ids that can stand for each other, one list for each kind of thing.

    Raises:
        ValueError: if an id stands in two places.

    Example:
        >>> rename = Renaming([[10, 11], [20, 21, 22]])
        >>> rename([1, 10, 20, 10, 22, 11], Random(1))
        [1, 10, 21, 10, 22, 11]
        >>> rename([1, 10, 20, 10, 22, 11], Random(0))
        [1, 11, 20, 11, 22, 10]
    """

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        self.groups = [list(group) for group in groups]
        ids = [index for group in self.groups for index in group]
        twice = sorted({index for index in ids if ids.count(index) > 1})
        if twice:
            raise ValueError(f"`groups` holds {twice} more than once; a token can change places in one group only.")

    def __call__(self, input_ids: Sequence[int], rng: Random) -> list[int]:
        """Return a row under other names, each group exchanged in an order drawn from ``rng``."""
        table: dict[int, int] = {}
        for group in self.groups:
            table.update(zip(group, rng.sample(group, k=len(group)), strict=True))
        return [table.get(index, index) for index in input_ids]


def word_groups(tokenizer: PreTrainedTokenizerBase, words: Sequence[Sequence[str]]) -> Renaming:
    """Make the renaming of words that are one token each.

    Args:
        tokenizer: of the model that learns.
        words: that can stand for each other, one list for each kind of thing.

    Raises:
        ValueError: if a word is not one known token.
    """
    groups = []
    for group in words:
        ids = [tokenizer(word, add_special_tokens=False).input_ids for word in group]
        for word, found in zip(group, ids, strict=True):
            if len(found) != 1 or found[0] == tokenizer.unk_token_id:
                raise ValueError(f"{word!r} is not one token of the vocabulary; only such words can be renamed.")
        groups.append([found[0] for found in ids])
    return Renaming(groups)
