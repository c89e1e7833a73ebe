"""On the real base model, some steps of training by the packed engine end where plain PEFT on NF4 ends."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from sentiment_core.artifacts.store import read_sample_reviews
from sentiment_core.config import ASSETS
from sentiment_core.engines.packed.layout import PackShape, pack_sequences, packed_tokens
from sentiment_core.engines.packed.model import PackedModel
from sentiment_core.engines.scorer import SentimentScorer, float32_head, left_pad
from sentiment_core.labels import Label
from sentiment_core.models.base_models import DEFAULT_BASE_MODEL, resolve
from sentiment_core.models.loading import LoadedModel, add_lora, dequantize, load_base

STEPS, EACH = 2, 2


def train(engine: str, loaded: LoadedModel):
    """Losses of some steps, and the trained model's scores of all reviews."""
    if engine == "packed":
        dequantize(loaded.model, torch.float32)
    torch.manual_seed(5)
    model = add_lora(loaded.model, rank=16, alpha=32, dropout=0.0)
    reviews = read_sample_reviews(ASSETS)[: STEPS * EACH]
    encoded = loaded.encoder.encode([review.text for review in reviews], 72)
    labels = np.array([int(review.label) for review in reviews])
    targets = np.array(loaded.encoder.label_ids)[labels]
    packed, parameters = None, [p for p in model.parameters() if p.requires_grad]
    if engine == "packed":
        prefix = encoded.shared
        shape = PackShape(packed_tokens(encoded.lengths, prefix), EACH, longest=128, prefix=prefix)
        packed = PackedModel(model, shape, trainable=True, compiled=False, label_ids=loaded.encoder.label_ids)
        parameters = packed.adapter.leaves
    optimizer = torch.optim.AdamW(parameters, lr=5e-4, weight_decay=0.0)
    losses = []
    for step in range(STEPS):
        rows = np.arange(step * EACH, (step + 1) * EACH)
        if packed:
            packed.adapter.zero_gradients()
            loss = packed.loss(pack_sequences(encoded, rows, shape, labels[rows], np.full(EACH, 1 / EACH)))
        else:
            optimizer.zero_grad()
            with float32_head(model):
                batch = left_pad([encoded[row] for row in rows], 0)
                logits = model(**batch, logits_to_keep=1, use_cache=False).logits[:, -1]
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(targets[rows]))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    kind = "packed" if packed else "padded"
    return losses, SentimentScorer(loaded, model, engine=kind, compiled=False).log_likelihoods(encoded)


@pytest.mark.model
def test_the_packed_engine_trains_the_real_model_as_plain_peft_does():
    loaded = load_base(resolve(DEFAULT_BASE_MODEL), dequantized=False)
    packed_losses, packed = train("packed", replace(loaded, model=deepcopy(loaded.model)))
    plain_losses, plain = train("nf4", loaded)
    assert plain_losses[-1] < plain_losses[0] / 2, "the steps must have changed something"
    np.testing.assert_allclose(packed_losses, plain_losses, rtol=2e-2, atol=2e-3)
    margins = (scores[:, Label.POSITIVE] - scores[:, Label.NEGATIVE] for scores in (packed, plain))
    np.testing.assert_allclose(*margins, atol=0.1)  # processors multiply 4-bit weights differently
