"""The real reviews, where they are at hand: SENTIMENT_IMDB, or ../shared/imdb beside the checkout."""

import os
from pathlib import Path

import numpy as np
import pytest

from sentiment_core.data.reviews import Reviews, load_reviews

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "imdb"
FOLDER = Path(os.environ.get("SENTIMENT_IMDB") or BESIDE)

needed = pytest.mark.skipif(
    not (FOLDER / "test.parquet").exists(),
    reason="IMDB is not at hand: set SENTIMENT_IMDB to a folder with its parquet",
)


def sample(n: int, most_words: int | None = None) -> Reviews:
    """n reviews drawn evenly from the test split, of at most so many words."""
    reviews = load_reviews(str(FOLDER), "test")
    rows = np.arange(len(reviews))
    if most_words:
        rows = np.flatnonzero([len(text.split()) <= most_words for text in reviews.texts])
    return reviews.take(rows[:: len(rows) // n][:n])
