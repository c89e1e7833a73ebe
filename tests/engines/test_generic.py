"""The generic engine computes what PEFT computes one by one, for families that no kernel of ours knows."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sentiment_core.config import ConfigError, TrainConfig
from sentiment_core.engines.device import choose_engine
from sentiment_core.engines.generic import GenericModel, generic_blocker
from sentiment_core.engines.packed.layout import PackShape, pack_sequences
from sentiment_core.engines.scorer import SentimentScorer
from sentiment_core.models.base_models import resolve
from sentiment_core.models.loading import add_lora, load_base
from sentiment_core.models.tokens import Encoded
from tests.conftest import make_tiny_model

SIZES = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.1, "pad_token_id": 0,
}  # fmt: skip
KINDS = ["sliding_attention", "full_attention"]
FAMILIES = {
    "llama": {},
    "mistral": {"sliding_window": 7},
    "qwen2": {"use_sliding_window": True, "sliding_window": 7, "layer_types": KINDS},
    "qwen3": {},
    "gemma3_text": {"sliding_window": 7, "layer_types": KINDS, "query_pre_attn_scalar": 32},
    "olmo2": {},
}
LENGTHS = (5, 23, 1, 14)


def tiny(family):
    """A tiny random model of that family, with an adapter whose B matrices are not zero."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SIZES | FAMILIES[family])
    base = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").requires_grad_(False)
    model = add_lora(base, rank=4, alpha=8, dropout=0.0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_equal_one_by_one_peft(family):
    """Of reviews longer and shorter than the window, with slots and a tail that no review uses."""
    model = tiny(family)
    assert generic_blocker(model, torch.device("cpu")) is None
    rows = [np.random.default_rng(n).integers(3, 300, n) for n in LENGTHS]
    labels, weights = np.array([1.0, 0, 0, 1]), np.full(4, 0.25, dtype=np.float32)
    alone = torch.stack([model(input_ids=torch.tensor(row)[None]).logits[0, -1] for row in rows])
    (-alone.log_softmax(-1)[range(4), [20 + int(label) for label in labels]].mean()).backward()
    wanted = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()

    before = dict(vars(model.get_base_model().config))
    shape = PackShape(tokens=96, reviews=6, longest=23)
    engine = GenericModel(model, shape, trainable=True, compiled=False, label_ids=(20, 21))
    pack = pack_sequences(Encoded.from_lists(rows, [False] * 4), np.arange(4), shape, labels, weights)
    torch.testing.assert_close(engine.logits(pack)[:4], alone, rtol=1e-5, atol=1e-5)
    engine.step(pack)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert wanted[name].norm() > 1e-4, name
            difference = (parameter.grad - wanted[name]).norm() / wanted[name].norm()
            assert difference < 1e-5, (name, difference)
    assert vars(model.get_base_model().config) == before, "other passes find the attention as it was"


def test_it_scores_and_takes_the_place_of_packed_where_that_knows_a_model_not(tmp_path):
    mistral = make_tiny_model(tmp_path / "mistral", family="mistral", sliding_window=40)
    loaded = load_base(resolve(str(mistral)))
    encoded = loaded.encoder.encode(["Fine acting, weak plot. " * n for n in (1, 9, 3, 5)], 256)
    assert encoded.lengths.min() > 40
    padded = SentimentScorer(loaded, engine="padded").log_likelihoods(encoded)
    generic = SentimentScorer(loaded, engine="generic", batch_tokens=200).log_likelihoods(encoded)
    np.testing.assert_allclose(generic, padded, atol=2e-5)

    asked = [choose_engine(TrainConfig(engine=name), loaded, None) for name in ("packed", "generic", "auto")]
    assert asked == ["generic", "generic", "dequantized"], "a CPU's own choice is padded"
    dropping = make_tiny_model(tmp_path / "dropping", family="mistral", attention_dropout=0.1)
    with pytest.raises(ConfigError, match="knows no attention_dropout, which mistral has; use --engine deq"):
        choose_engine(TrainConfig(engine="packed"), load_base(resolve(str(dropping))), None)
