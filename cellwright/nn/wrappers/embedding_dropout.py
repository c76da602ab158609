"""Dropout of whole words of an embedding (Gal & Ghahramani 2016; Merity et al. 2018)."""

from typing import Any

from torch import Tensor, nn

from ...errors import InputError, OptionError
from .rates import kept, rate_of


class EmbeddingDropout(nn.Module):
    """An embedding some of whose rows are zero: a word that is dropped is so wherever it stands in the batch.

        embed = EmbeddingDropout(nn.Embedding(1000, 64), 0.1)

    In training only; the other rows are scaled by 1 / (1 - rate). The weight is `embedding.weight`.

    Args:
        embedding: torch's, with its options; it may be shared.
        rate: in [0, 1), the probability of a dropped word.

    OptionError: no embedding; no rate, or one outside of [0, 1).
    """

    def __init__(self, embedding: Any, rate: Any = None) -> None:
        super().__init__()
        if not isinstance(embedding, nn.Embedding):
            raise OptionError(f"got a {type(embedding).__name__} to drop words of, expected a torch.nn.Embedding")
        self.embedding, self.rate = embedding, rate_of("rate", rate)

    def forward(self, ids: Tensor) -> Tensor:
        """Integers [...] to vectors [..., n]."""
        if not isinstance(ids, Tensor) or ids.is_floating_point():
            raise InputError(f"got {getattr(ids, 'dtype', type(ids).__name__)} for EmbeddingDropout, expected integers")
        vectors: Tensor = self.embedding(ids)
        if not self.training or not self.rate:
            return vectors
        return vectors * kept(self.rate, (self.embedding.num_embeddings, 1), self.embedding.weight)[ids]

    def extra_repr(self) -> str:
        """What `print` shows."""
        return str(self.rate)
