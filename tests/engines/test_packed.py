"""The packed path computes what PEFT computes: same probabilities, loss and gradients up to rounding."""

import numpy as np
import pytest
import torch

from sentiment_core.engines.batching import plan_steps
from sentiment_core.engines.packed.layout import PackShape, pack_sequences, packed_tokens
from sentiment_core.engines.packed.model import PackedModel
from sentiment_core.engines.scorer import SentimentScorer, left_pad, p_positive
from sentiment_core.models.base_models import resolve
from sentiment_core.models.loading import add_lora, load_base

TEXTS = [
    "A film that moves.",
    "Dull, long and loud; nobody in it seems to want to be there, and the plot agrees with them." * 3,
    "Fine acting, weak plot.",
    "I laughed twice, both times at the wrong moment.",
    "Superb.",
]


@pytest.fixture(params=["tiny_model", "tiny_qwen"])
def adapted(request):
    """A tiny model with an adapter whose B matrices are not zero."""
    loaded = load_base(resolve(str(request.getfixturevalue(request.param))))
    torch.manual_seed(1)
    model = add_lora(loaded.model, rank=4, alpha=8, dropout=0.0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return loaded, model


def test_packed_scores_equal_padded_scores(adapted):
    loaded, model = adapted
    encoded = loaded.encoder.encode(TEXTS, 256)
    padded = SentimentScorer(loaded, model, engine="padded").log_likelihoods(encoded)
    packed = SentimentScorer(loaded, model, engine="packed", batch_tokens=400).log_likelihoods(encoded)
    np.testing.assert_allclose(packed, padded, atol=2e-5)
    assert np.ptp(p_positive(padded)) > 1e-3, "the probabilities must differ for this test to mean anything"
    alone = SentimentScorer(loaded, model, engine="packed").log_likelihoods(
        loaded.encoder.encode(TEXTS[2:3], 256)
    )
    np.testing.assert_allclose(alone[0], packed[2], atol=2e-5, err_msg="they must not see each other")


@pytest.mark.parametrize("sharing", [False, True])
def test_packed_loss_and_gradients_equal_peft(adapted, sharing):
    """With the prompt's beginning in every review's place, and with it once for all of them."""
    loaded, model = adapted
    encoded = loaded.encoder.encode(TEXTS, 256)
    labels = np.array([1, 0, 0, 1, 1])
    weights = np.full(len(TEXTS), 1 / len(TEXTS), dtype=np.float32)
    targets = np.array(loaded.encoder.label_ids)[labels]

    batch = left_pad([encoded[i] for i in range(len(TEXTS))], 0)
    logits = model(**batch, logits_to_keep=1, use_cache=False).logits[:, -1]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(targets))
    expected.backward()
    wanted = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()

    prefix = encoded.shared if sharing else 0
    assert encoded.shared > 10
    shape = PackShape(packed_tokens(encoded.lengths, prefix) + 37, reviews=7, longest=256, prefix=prefix)
    ids = loaded.encoder.label_ids
    packed = PackedModel(model, shape, trainable=True, compiled=False, label_ids=ids)
    loss = packed.loss(pack_sequences(encoded, np.arange(len(TEXTS)), shape, labels, weights))
    loss.backward()

    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    parts = [part for leaf in packed.adapter.leaves for part in leaf.grad]
    found = {id(own): part for (own, _), part in zip(packed.adapter.held, parts, strict=True)}
    assert len(found) == len(wanted)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(found[id(parameter)], wanted[name], rtol=1e-3, atol=1e-6, msg=name)


def test_the_engine_that_trains_also_scores_and_leaves_the_model_alone(adapted):
    loaded, model = adapted
    encoded, before = loaded.encoder.encode(TEXTS, 256), set(vars(model.get_base_model()))
    shape = PackShape(tokens=64, reviews=1, longest=256, prefix=encoded.shared)
    engine = PackedModel(model, shape, trainable=True, compiled=False)
    packed = SentimentScorer(loaded, model, engine="packed", packed=engine).log_likelihoods(encoded)
    padded = SentimentScorer(loaded, model, engine="padded").log_likelihoods(encoded)
    np.testing.assert_allclose(packed, padded, atol=2e-5)
    assert set(vars(model.get_base_model())) == before


def test_a_pack_that_does_not_fit_is_refused(adapted):
    loaded, _ = adapted
    encoded = loaded.encoder.encode(TEXTS, 256)
    shape = PackShape(tokens=100, reviews=2, longest=256)
    with pytest.raises(ValueError, match="do not fit"):
        pack_sequences(encoded, np.arange(5), shape)


def test_steps_hold_every_review_once_and_nearly_as_many_tokens():
    """They share one static shape: what the longest step has more than the others is computed for nothing."""
    lengths = np.random.default_rng(0).lognormal(5.6, 0.6, size=5_003).astype(int).clip(40, 1024)
    for batch_size in (16, 48):
        plan = plan_steps(lengths, batch_size, epochs=2, seed=1)
        for epoch in np.split(np.arange(len(plan)), 2):
            reviews = np.concatenate([plan[step] for step in epoch])
            assert sorted(reviews) == list(range(len(lengths)))
        assert {len(step) for step in plan} <= {batch_size, batch_size - 1}
        tokens = np.array([lengths[step].sum() for step in plan if len(step) == batch_size])
        assert tokens.max() <= 1.005 * tokens.mean()
        assert not np.array_equal(plan[0], plan[len(plan) // 2]), "each epoch draws anew"
