"""How good texts are: BLEU and chrF through sacreBLEU, which is an extra; CIDEr-D; the share of exact ones."""

from collections.abc import Callable, Sequence
from typing import Any

from .cider import cider_d

ABSENT = "BLEU and chrF need sacrebleu: pip install 'cellwright[bleu]'"
References = Sequence[Sequence[str]]


def there() -> bool:
    """Whether sacreBLEU is installed."""
    try:
        import sacrebleu  # noqa: F401
    except ImportError:
        return False
    return True


def exact(texts: Sequence[str], references: References) -> float:
    """The share of texts that are one of their references."""
    right = sum(text in one for text, one in zip(texts, references, strict=True))
    return right / max(len(texts), 1)


def bleu(texts: Sequence[str], references: References, tokenize: str = "13a", lower: bool = False) -> float:
    """sacreBLEU of a whole set (Papineni et al. 2002; Post 2018), 0 to 100. ImportError: it is not there."""
    from sacrebleu.metrics.bleu import BLEU

    return float(BLEU(tokenize=tokenize, lowercase=lower).corpus_score(list(texts), _streams(references)).score)


def chrf(texts: Sequence[str], references: References, lower: bool = False) -> float:
    """chrF2 of a whole set (Popović 2015), 0 to 100. ImportError: sacreBLEU is not there."""
    from sacrebleu.metrics.chrf import CHRF

    return float(CHRF(lowercase=lower).corpus_score(list(texts), _streams(references)).score)


def scored(texts: Sequence[str], references: References, names: Sequence[str], tokenize: str) -> dict[str, float]:
    """The scores of these names, without those that need what is not installed."""
    ways: dict[str, Callable[[], float]] = {
        "exact": lambda: exact(texts, references),
        "BLEU": lambda: bleu(texts, references, tokenize),
        "chrF": lambda: chrf(texts, references),
        "CIDEr-D": lambda: cider_d(texts, references),
    }
    return {name: ways[name]() for name in known_scores(names)}


def known_scores(names: Sequence[str]) -> list[str]:
    """Of these names those that need nothing that is not installed; more is better in all of them."""
    return [name for name in names if there() or name not in ("BLEU", "chrF")]


def _streams(references: References) -> Any:
    """[text][reference] to [reference][text], None where a text has fewer of them."""
    most = max((len(one) for one in references), default=0)
    return [[one[k] if k < len(one) else None for one in references] for k in range(most)]
