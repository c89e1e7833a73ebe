"""The committed run's models, loaded once."""

import pytest

from sentiment_core import config
from sentiment_core.artifacts.store import read_run
from sentiment_core.live.classifier import LiveClassifier
from sentiment_core.models.base_models import BaseModelError


@pytest.fixture(scope="session")
def real_classifier() -> LiveClassifier:
    try:
        return LiveClassifier.load(read_run(config.ASSETS / "runs" / "smollm2-135m"), number_format="fp32")
    except BaseModelError as error:
        pytest.skip(f"the base model cannot be had here: {error}")
