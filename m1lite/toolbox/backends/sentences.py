"""Text search by meaning: sentence embeddings through transformers. Search by shared words is in bm25.py."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Literal

from m1lite.toolbox.backends.loading import ModelSource
from m1lite.toolbox.sharing import shared

if TYPE_CHECKING:
    from torch import Tensor

_BATCH = 32
_MAX_KEPT = 50_000


class SentenceEncoder:
    """Scores documents by the cosine between their vector and that of the query.

    The vectors of the last 50,000 texts are kept.

    Args:
        model: a folder or a name on the hub, such as ``sentence-transformers/all-MiniLM-L6-v2``.
        pooling: how the model was trained to make one vector of a text: the mean of its tokens, or the first token.
        query_prefix: put before queries, such as ``"query: "`` for E5.
        document_prefix: put before documents.
        max_tokens: what is longer is cut.
        revision: on the hub.
        device: where it runs.
        dtype: of the weights.
    """

    def __init__(
        self,
        model: str,
        *,
        pooling: Literal["mean", "first"] = "mean",
        query_prefix: str = "",
        document_prefix: str = "",
        max_tokens: int = 512,
        revision: str | None = None,
        device: str = "cpu",
        dtype: str = "auto",
    ) -> None:
        if pooling not in ("mean", "first"):
            raise ValueError(f"`pooling` must be mean or first, got {pooling!r}.")
        if max_tokens < 1:
            raise ValueError(f"`max_tokens` must be at least 1, got {max_tokens}.")
        self._pooling = pooling
        self._prefixes = query_prefix, document_prefix
        self._max_tokens = max_tokens
        self._source = shared(
            ModelSource,
            model=model,
            model_class="AutoModel",
            processor_class="AutoTokenizer",
            revision=revision,
            device=device,
            dtype=dtype,
        )
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"SentenceEncoder({self._source!r})"

    def __call__(self, query: str, documents: Sequence[str]) -> list[float | None]:
        """Score documents; one cosine from -1 to 1 each, ``None`` where a document holds no text.

        Raises:
            ModelError: if the model cannot be loaded.
        """
        before_query, before_document = self._prefixes
        filled = [place for place, document in enumerate(documents) if document.strip()]
        scores: list[float | None] = [None] * len(documents)
        if filled:
            vectors = self.encode([before_document + documents[place] for place in filled])
            cosines = (vectors @ self.encode([before_query + query])[0]).tolist()
            for place, cosine in zip(filled, cosines, strict=True):
                scores[place] = cosine
        return scores

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode texts.

        Args:
            texts: at least one.

        Returns:
            float32 ``(N, D)`` on the CPU, of length 1.
        """
        import torch

        with self._lock:
            known = {text: self._kept[text] for text in texts if text in self._kept}
        # Texts of like length share a batch, so that few tokens are padding.
        missing = sorted({text for text in texts if text not in known}, key=len)
        for first in range(0, len(missing), _BATCH):
            batch = missing[first : first + _BATCH]
            known |= dict(zip(batch, self._vectors(batch).unbind(), strict=True))
        with self._lock:
            for text in missing:
                self._kept[text] = known[text]
            while len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)
        return torch.stack([known[text] for text in texts])

    def _vectors(self, texts: list[str]) -> Tensor:
        from torch.nn.functional import normalize

        with self._source.use() as loaded:
            longest = getattr(loaded.model.config, "max_position_embeddings", None) or self._max_tokens
            inputs = loaded.processor(
                texts, padding=True, truncation=True, max_length=min(self._max_tokens, longest), return_tensors="pt"
            ).to(self._source.device)
            states = loaded.model(**inputs).last_hidden_state.float()  # (B, T, D)
            mask = inputs["attention_mask"][..., None].float()
            pooled = states[:, 0] if self._pooling == "first" else (states * mask).sum(1) / mask.sum(1).clamp(min=1)
            return normalize(pooled, dim=-1).cpu().clone()
