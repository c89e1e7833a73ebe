"""Shared fixtures: a tiny random Llama with a real tokenizer, made on the spot; no network, no weights."""

import gc
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads that wait for each other cost more

from sentiment_core.artifacts.store import read_run
from sentiment_core.config import ASSETS
from sentiment_core.dashboard import store
from sentiment_core.models import base_models
from tests.browser.site import (  # noqa: F401
    axe_source,
    bare_site,
    context,
    corrupt_site,
    ladder_site,
    page,
    site,
)

store.FRESH = -1.0  # what a test changes is seen at once

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny_model(
    folder: Path, *, seed: int = 0, hidden: int = 64, layers: int = 2, family: str = "llama", **more: Any
) -> Path:  # fmt: skip
    """A random model and a byte-level tokenizer trained on our own sentences, as a transformers folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    from sentiment_core.labels import LABEL_WORDS
    from sentiment_core.prompts import PROMPT
    from tests import own_reviews

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = [PROMPT.system, PROMPT.user, *LABEL_WORDS, *own_reviews.frame(200, seed=0)["text"]]
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>",
        pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE,
    )  # fmt: skip
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        family, vocab_size=len(fast), hidden_size=hidden, intermediate_size=2 * hidden,
        num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.1,
        **more,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)  # else zero, and nobody would miss it
    model.save_pretrained(folder)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `pytest -n 2`: its processes begin with half each, pages first in one, models in the other."""

    def marked(*names: str) -> list[pytest.Item]:
        return [item for item in items if any(map(item.get_closest_marker, names))]

    pages = marked("browser")
    slow = [item for item in marked("model", "slow") if item not in pages]
    slow.sort(key=lambda item: not item.get_closest_marker("model"))  # in one process, as they share theirs
    quick = [item for item in items if item not in {*pages, *slow}]
    half = max(0, len(items) // 2 - len(pages))
    items[:] = [*pages, *quick[:half], *slow, *quick[half:]]


REAL, OWN = base_models.CACHE, tempfile.TemporaryDirectory(prefix="sentiment-cache-")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """The user's cache, which keeps few live weights, is for the real models; tiny ones have another."""
    base_models.CACHE = REAL if item.get_closest_marker("model") else Path(OWN.name)
    os.environ["SENTIMENT_CACHE"] = str(base_models.CACHE)


def pytest_collection() -> None:
    gc.disable()  # while the tests are imported


def pytest_collection_finish() -> None:
    """What is imported stays: collecting garbage, as each evaluation does often, goes through it no more."""
    gc.enable()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(scope="session")
def here() -> None:
    """Live weights are made in this process, as that is sooner."""
    from sentiment_core.live import weights

    def make(base: base_models.BaseModel, adapter: Path | None, number_format: str, folder: Path) -> None:
        assert weights._make(base.spec, str(adapter or ""), number_format, str(folder)) == 0

    weights._make_in_child = make


@pytest.fixture(scope="session")
def real_classifier(here: None) -> Any:
    """The committed run's models, loaded once as the app does, in float32 as what is stored was computed."""
    from sentiment_core.dashboard.host import load_live

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SENTIMENT_LIVE_FORM", "fp32")
            return load_live(read_run(ASSETS / "runs" / "smollm2-135m"))
    except base_models.BaseModelError as error:
        pytest.skip(f"the base model cannot be had here: {error}")


@pytest.fixture(scope="session")
def tiny_model(here: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny random model."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny-llama") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of another family, whose q, k and v have biases."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny-qwen2") / "tiny-qwen2", family="qwen2")
