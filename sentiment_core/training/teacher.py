"""What a finished run says of unlabelled reviews, as soft targets for another to learn from.

Distillation by a larger model (Hinton et al. 2015, arXiv 1503.02531), or self-training by one of its size.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sentiment_core.artifacts.schema import TeacherInfo
from sentiment_core.artifacts.store import adapter_sha256, read_finished, replacing
from sentiment_core.config import TrainConfig
from sentiment_core.data.reviews import Reviews, unlabelled_reviews
from sentiment_core.engines.device import DeviceContext, decided_by_main, free_memory
from sentiment_core.engines.scorer import SentimentScorer, p_positive
from sentiment_core.models.base_models import resolve, writing
from sentiment_core.models.loading import load_adapter, load_base


@dataclass(frozen=True)
class Lessons:
    """Unlabelled reviews, and what the teacher says of them."""

    reviews: Reviews
    p_positive: np.ndarray  # (n,) float32, at temperature 1
    info: TeacherInfo


def prepare(config: TrainConfig, context: DeviceContext, *, assets: Path, work: Path) -> Lessons:
    """Ask the teacher about every unlabelled review, or read what it said before.

    The answers stay in `work`/soft-labels: ids and probabilities, in a file named by teacher and reviews.
    Raises ArtifactError: no such run, or an unfinished one. DataError, BaseModelError: as elsewhere.
    """
    run = read_finished(assets / "runs" / config.teacher)
    record: Any = run.record
    reviews, excluded = unlabelled_reviews(config.dataset, config.unlabelled, exclude=config.exclude)
    weights, limit = adapter_sha256(run), record.max_length_tokens
    key = hashlib.sha256(f"{weights} {reviews.fingerprint} {limit}".encode()).hexdigest()[:16]
    path = work / "soft-labels" / f"{run.run_id}-{key}.parquet"

    def ask() -> np.ndarray:
        if not path.is_file():
            context.say(f"Asking {run.run_id} about {len(reviews):,} unlabelled reviews …")
            own = config.base_model  # of a folder, runs keep the name alone
            base = resolve(own if Path(own).name == record.base_model.name else record.base_model.name)
            loaded = load_base(base, device=context.device, compute_dtype=context.dtype)
            scorer = SentimentScorer(loaded, load_adapter(loaded.model, run.adapter_path))
            p = p_positive(scorer.log_likelihoods(loaded.encoder.encode_cached(reviews.texts, limit)))
            with writing(path), replacing(path) as unfinished:
                pd.DataFrame({"review_id": reviews.ids, "p_positive": p}).to_parquet(unfinished, index=False)
        return pd.read_parquet(path)["p_positive"].to_numpy()

    said = decided_by_main(context, ask)
    free_memory()
    info = TeacherInfo(
        run_id=run.run_id, base_model=record.base_model.name, adapter_sha256=weights,
        train=record.data.labelled, wall_seconds=record.wall_seconds, source=reviews.source,
        split=reviews.split, reviews=len(reviews), fingerprint=reviews.fingerprint, excluded=excluded,
        temperature=config.soft_temperature, weight=config.soft_weight, teacher=record.teacher,
    )  # fmt: skip
    return Lessons(reviews, said, info)
