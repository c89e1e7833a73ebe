"""The exported graph says what the live model says: both models, and the dial between them."""

from __future__ import annotations

import pytest

from sentiment_core.live.classifier import LiveClassifier
from sentiment_core.models.base_models import resolve
from sentiment_core.models.loading import load_adapter, load_base
from tests.live.test_classifier import make_run

TEXT = "A slow start, but the old man opens the letter, and I cried."


def test_the_graph_answers_as_the_live_model_does(tiny_model, tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from sentiment_core.live.graph import BothModels, ExportedModel

    run = make_run(tmp_path / "assets", tiny_model)
    loaded = load_base(resolve(str(tiny_model)), dequantized=False)
    BothModels(load_adapter(loaded.model, run.adapter_path), loaded.encoder.label_ids).save(tmp_path)
    exported, encoder = ExportedModel(tmp_path), loaded.encoder
    live = LiveClassifier.load(run, base_model=str(tiny_model), number_format="fp32")
    row = encoder.encode([TEXT], 1024)[0][len(encoder.prefix_ids) :]
    told = [live._system(name).log_odds([row])[0] for name in ("base", 0.4, "fine-tuned")]
    pasts = [exported.run(encoder.prefix_ids, exported.nothing, alpha)[1] for alpha in (0.0, 0.4, 1.0)]
    found = [exported.run(row, past, a) for past, a in zip(pasts, (0.0, 0.4, 1.0), strict=True)]
    assert [log_odds for log_odds, _ in found] == pytest.approx(told, abs=0.02)
    assert abs(told[2] - told[0]) > 0.06  # so that an adapter left out would be seen
