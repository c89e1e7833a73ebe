"""The running app with the real default model, asked through gradio_client."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client
from scipy.special import expit, logit

from sentiment_core.dashboard import app
from sentiment_core.dashboard.store import Store
from sentiment_core.live.classifier import LiveClassifier
from sentiment_core.models.base_models import EMBEDDED, resolve

pytestmark = pytest.mark.model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def store() -> Store:
    return Store(ROOT / "assets")


@pytest.fixture(scope="module")
def client(store: Store, real_classifier: LiveClassifier) -> Iterator[Client]:
    demo = app.build(store.root, lambda run: real_classifier, texts={})
    _, url, _ = app.launch(demo, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    asking = Client(url, verbose=False, analytics_enabled=False)
    yield asking
    asking.close()
    demo.close()


def test_the_app_answers_as_the_scorer_does(client: Client, store: Store) -> None:
    from sentiment_core.engines.scorer import SentimentScorer
    from sentiment_core.models.loading import load_adapter, load_base

    run = store.run(None)
    texts = sorted((sample.text for sample in store.samples()), key=len)[:3]
    answers = client.predict(texts, api_name="/classify_batch")
    assert answers[0] == client.predict(texts[0], api_name="/classify") | {
        key: value for key, value in answers[0].items() if key.endswith("p_positive")
    }
    loaded = load_base(resolve(run.record.base_model.name))
    assert (loaded.info.parameters, loaded.info.revision) == (134_515_008, EMBEDDED["smollm2-135m"].sha256)
    systems = {"base": lambda: None, "fine_tuned": lambda: load_adapter(loaded.model, run.adapter_path)}
    for name, model in systems.items():
        answered = [answer[f"{name}_p_positive"] for answer in answers]
        scored = SentimentScorer(loaded, model())(texts, run.record.config["max_length_tokens"])
        temperature = run.record.temperature if name == "fine_tuned" else 1
        np.testing.assert_allclose(answered, expit(logit(scored) / temperature), atol=0.01)
