"""Review texts by id, from the dataset at hand. Artifacts carry none (they belong to their authors)."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from sentiment_core.data.sources import CHALLENGE

log = logging.getLogger(__name__)

VARIABLE = "SENTIMENT_DATASET"
DEFAULT_SOURCE = "stanfordnlp/imdb"
HOW_TO = (
    f"Set the environment variable {VARIABLE} to a copy of the dataset (a parquet or CSV file, a folder, "
    "or the raw aclImdb folder; several are separated by your system's path separator) and start the page "
    "again. With the Hugging Face copy in the local cache nothing needs to be set."
)


class ReviewTexts:
    """Loads in the background on first use; until then, and without a dataset, there are no texts."""

    def __init__(self, texts: Mapping[str, str] | None = None) -> None:
        self._texts, self._lock = texts, threading.Lock()
        self._loading = threading.Thread(target=self._load, name="review-texts", daemon=True)

    def start(self) -> None:
        with self._lock:
            if self._loading.ident is None:
                self._loading.start()

    def wait(self, timeout: float) -> Mapping[str, str]:
        """The texts once loaded, or what is there after `timeout` seconds."""
        self.start()
        self._loading.join(timeout)
        return self._texts or {}

    def _load(self) -> None:
        if self._texts is None:
            self._texts = load_texts([CHALLENGE])
            self._texts |= load_texts(_sources())


def _sources() -> list[str]:
    """The datasets named in the environment, or the Hub's copy where its local cache has it; asks nobody."""
    if given := os.environ.get(VARIABLE):
        return [part for part in given.split(os.pathsep) if part]
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE, "datasets--" + DEFAULT_SOURCE.replace("/", "--"), "snapshots")
    return [DEFAULT_SOURCE] if folder.is_dir() and any(folder.iterdir()) else []


def load_texts(sources: list[str]) -> dict[str, str]:
    """review_id -> text of every source that can be read; a source that cannot is logged and left out."""
    from sentiment_core.data.reviews import load_reviews

    texts: dict[str, str] = {}
    for source in sources:
        try:
            frame = load_reviews(source, "test").frame
            texts |= zip(frame["review_id"], frame["text"], strict=True)
        except Exception as error:  # any loader's trouble only means: no texts from this source
            log.warning("no review texts from %s: %s", source, error)
    return texts
