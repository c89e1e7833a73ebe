"""Encoders trained on the other systems' train rows: float32 weights, bf16 autocast where the GPU has it.

All classify by the mean of the last layer's vectors, scaled to a root mean square of 1. Reviews of more than
512 tokens, or what the encoder reads at most, keep head and tail (Sun et al. 2019, How to Fine-Tune BERT). A
trained one stays in the cache, so that each further data set is answered by the same.
"""

import json
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import AutoModel, get_linear_schedule_with_warmup
from transformers.trainer_pt_utils import get_length_grouped_indices
from transformers.utils import cached_file

from sentiment_core.artifacts import provenance
from sentiment_core.data.reviews import TrainSplit
from sentiment_core.engines.batching import batches_by_tokens
from sentiment_core.engines.scorer import run_ahead
from sentiment_core.evaluation.inputs import Inputs
from sentiment_core.evaluation.systems.base import EvaluatedSystem, Parts, Work
from sentiment_core.models import loading
from sentiment_core.models.base_models import base_identity, sealed_folder, writing
from sentiment_core.models.tokens import Encoded
from sentiment_core.prompts import cut_middle


class Encoder(EvaluatedSystem):
    own: ClassVar[dict[str, Any]]  # the settings that decide its training

    def __init__(self, system_id: str, inputs: Inputs) -> None:
        super().__init__(system_id, inputs)
        self.device, self.bf16 = inputs.context.device, inputs.context.precision == "bf16"
        self.tokenizer, self.identified = loading.load_tokenizer(inputs.base), base_identity(inputs.base)
        inputs.max_length = min(self.config.max_length_tokens or 512, self.tokenizer.model_max_length)

    def decisive(self) -> dict[str, Any]:
        split, which = self.inputs.train_split, "sha256" if self.inputs.base.is_local else "revision"
        return super().decisive() | self.own | {
            "encoder": self.origin, f"encoder_{which}": self.identified, "seed": self.config.seed,
            "max_length_tokens": self.inputs.max_length, "precision": "bf16" if self.bf16 else "fp32",
            "train_fingerprint": split.train.fingerprint,
            "validation_fingerprint": split.validation.fingerprint,
        }  # fmt: skip

    def work(self) -> Work:
        name = f"{self.id}-{self.origin}-{self.identity('dataset_fingerprint')}"
        folder = sealed_folder("encoders", name, self.make)
        self.build().load_state_dict(load_file(folder / "trained.safetensors"), strict=False)
        settings = json.loads((folder / "trained.json").read_text(encoding="utf-8"))
        self.inputs.encoded = encoded = self.encode(self.inputs.test.reviews.texts)
        return Work(partial(self.stream, self.logits, encoded), settings=settings)

    def make(self, folder: Path) -> None:
        split = self.inputs.train_split
        self.inputs.say(f"Training {self.id} …")
        torch.manual_seed(self.config.seed)
        weights, started = dict(self.build().named_parameters()), time.perf_counter()
        settings = {"train_source": split.train.source, "train_reviews": len(split.train)}
        settings |= self.train(split) | {"train_seconds": round(time.perf_counter() - started, 2)} | {
            "peak_memory_bytes": torch.cuda.max_memory_allocated() or provenance.peak_memory(),
            "parameters": sum(w.numel() for name, w in weights.items() if "lora_" not in name),
            "trained_parameters": sum(w.numel() for w in weights.values() if w.requires_grad),
        }  # fmt: skip
        with writing(folder):
            save_file(self.trained(), folder / "trained.safetensors")
            (folder / "trained.json").write_text(json.dumps(settings), encoding="utf-8")

    def build(self) -> torch.nn.Module:
        """The encoder, of which is trained what the settings say, and a linear layer behind it."""
        encoder = loading.pretrained(AutoModel, self.inputs.base, use_safetensors=True, dtype=torch.float32)
        encoder.requires_grad_("learning_rate" in self.own)
        if rank := self.own.get("lora_rank"):
            lora = LoraConfig(r=rank, lora_alpha=self.own["lora_alpha"], target_modules="all-linear")
            inject_adapter_in_model(lora, encoder)
        head = torch.nn.Linear(encoder.config.hidden_size, 2)
        self.model = torch.nn.ModuleDict({"encoder": encoder, "head": head}).to(self.device)
        return self.model

    def trained(self) -> dict[str, torch.Tensor]:
        """A copy of the weights that are trained."""
        named = self.model.named_parameters()
        return {name: w.detach().cpu().clone() for name, w in named if w.requires_grad}

    @abstractmethod
    def train(self, split: TrainSplit) -> dict[str, Any]:
        """Train what `build` made. Returns what was found, for the record."""

    @cached_property
    def task(self) -> str:
        """What the encoder wants in front of a text to classify; empty for most."""
        place, name = loading.model_folder(self.inputs.base), "config_sentence_transformers.json"
        path = cached_file(place, name, _raise_exceptions_for_missing_entries=False)
        about = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
        return about.get("prompts", {}).get("Classification", "")

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Within the encoder's own first and last token; control tokens in a review stay plain text."""
        bare = json.loads(self.tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
        bare["added_tokens"] = [one for one in bare["added_tokens"] if not one["special"]]
        plain, (first, *last) = Tokenizer.from_str(json.dumps(bare)), self.tokenizer("")["input_ids"]
        found = plain.encode_batch_fast([self.task + text for text in texts], False, False)
        cut = [cut_middle(one.ids, self.inputs.max_length - 1 - len(last), ()) for one in found]
        return Encoded.from_lists([[first, *ids, *last] for ids, _ in cut], [shorter for _, shorter in cut])

    def embed(self, encoded: Encoded, rows: np.ndarray) -> torch.Tensor:
        """(rows, hidden) float32."""
        ids = {"input_ids": [encoded[row].tolist() for row in rows]}
        batch = self.tokenizer.pad(ids, return_tensors="pt").to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            last = self.model["encoder"](**batch).last_hidden_state.float()
        mask = batch["attention_mask"][..., None]
        mean = (last * mask).sum(1) / mask.sum(1)
        return functional.rms_norm(mean, mean.shape[1:])

    def logits(self, encoded: Encoded, rows: np.ndarray) -> torch.Tensor:
        return self.model["head"](self.embed(encoded, rows))

    def stream(self, what: Callable, encoded: Encoded, rows: np.ndarray) -> Parts:
        """Values: (rows, width) of `embed` or `logits`."""
        self.model.eval()
        batches = batches_by_tokens(encoded.lengths[rows], self.config.batch_tokens or 16_384)
        yield from run_ahead(lambda batch: what(encoded, rows[batch]), batches)

    def values(self, what: Callable, encoded: Encoded) -> np.ndarray:
        rows, found = zip(*self.stream(what, encoded, np.arange(len(encoded))), strict=True)
        return np.concatenate(found)[np.argsort(np.concatenate(rows))]

    def epochs(self, lengths: np.ndarray, loss: Callable[[np.ndarray], torch.Tensor]) -> Iterator[int]:
        """AdamW over length-grouped batches; the rate rises over a tenth of the steps, then falls to 0.
        loss: example numbers (m,) -> their mean loss. Yields after each epoch."""
        weights = [one for one in self.model.parameters() if one.requires_grad]
        optimizer = torch.optim.AdamW(weights, self.own["learning_rate"], weight_decay=0.01)
        size, epochs = self.own["batch_size"], self.own["epochs"]
        steps = epochs * -(-len(lengths) // size)
        schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
        for epoch in range(epochs):
            self.model.train()
            order = np.array(get_length_grouped_indices(lengths.tolist(), size))
            for rows in np.split(order, range(size, len(order), size)):
                loss(rows).backward()
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            yield epoch


class Full(Encoder):
    """Batch size, epochs and learning rate of Devlin et al. 2019, BERT; the best epoch is kept."""

    own: ClassVar = {"epochs": 3, "batch_size": 32, "learning_rate": 2e-5}

    def train(self, split: TrainSplit) -> dict[str, Any]:
        encoded, held = (self.encode(part.texts) for part in (split.train, split.validation))
        labels = torch.from_numpy(split.train.labels.astype(np.int64)).to(self.device)
        scores, best = list[float](), {}

        def loss(rows: np.ndarray) -> torch.Tensor:
            return functional.cross_entropy(self.logits(encoded, rows), labels[rows])

        for _ in self.epochs(encoded.lengths, loss):
            right = self.values(self.logits, held).argmax(1) == split.validation.labels
            scores.append(float(right.mean()))
            if scores[-1] == max(scores):
                best = self.trained()
        self.model.load_state_dict(best, strict=False)
        return {"selected_on": "validation", "validation_accuracy": max(scores), "validated": scores}


class Lora(Full):
    """The learning rate of Hu et al. 2021 for SST-2; rank and alpha of our runs."""

    own: ClassVar = Full.own | {"learning_rate": 5e-4, "lora_rank": 16, "lora_alpha": 32}


class Linear(Encoder):
    """Logistic regression on the embeddings; of several C the best is kept."""

    own: ClassVar = {"C": [0.001, 0.01, 0.1, 1.0]}

    def train(self, split: TrainSplit) -> dict[str, Any]:
        from sklearn.linear_model import LogisticRegression

        train, held = split.train, split.validation
        x, unseen = (self.values(self.embed, self.encode(part.texts)) for part in (train, held))
        fits = [LogisticRegression(C=C, max_iter=5000).fit(x, train.labels) for C in self.own["C"]]
        scores = [float(one.score(unseen, held.labels)) for one in fits]
        best = fits[at := int(np.argmax(scores))]
        found = {"weight": [0 * best.coef_[0], best.coef_[0]], "bias": [0.0, best.intercept_[0]]}
        self.model["head"].load_state_dict({name: torch.tensor(np.array(one)) for name, one in found.items()})
        selected = "validation" if len(fits) > 1 else "nothing"
        return {"selected_on": selected, "validation_accuracy": max(scores), "chosen_C": self.own["C"][at]}


class SetFit8(Linear):
    """Tunstall et al. 2022: an encoder moved by pairs of few reviews, then a regression on these.
    Settings of their program; one seeded draw of reviews."""

    own: ClassVar = {
        "shots": 8, "rounds": 20, "epochs": 1, "batch_size": 16, "learning_rate": 2e-5, "C": [1.0],
    }  # fmt: skip

    def train(self, split: TrainSplit) -> dict[str, Any]:
        rng, shots, labels = np.random.default_rng(self.config.seed), self.own["shots"], split.train.labels
        classes = [rng.choice(np.flatnonzero(labels == label), shots, replace=False) for label in (0, 1)]
        few = split.train.take(np.concatenate(classes))
        encoded, one = self.encode(few.texts), np.tile(np.arange(4 * shots) // 2, self.own["rounds"])
        alike = np.arange(len(one)) % 2  # each review is paired with one of its class, and one of the other
        other = shots * ((one // shots + 1 - alike) % 2) + rng.integers(shots, size=len(one))
        wanted = torch.from_numpy(alike).float().to(self.device)

        def loss(rows: np.ndarray) -> torch.Tensor:
            left, right = self.embed(encoded, np.concatenate([one[rows], other[rows]])).chunk(2)
            return functional.mse_loss(functional.cosine_similarity(left, right), wanted[rows])

        list(self.epochs(np.maximum(encoded.lengths[one], encoded.lengths[other]), loss))
        return {"train_reviews": len(few)} | super().train(replace(split, train=few))


class SetFit64(SetFit8):
    own: ClassVar = SetFit8.own | {"shots": 64}
