"""Live answers from an engine elsewhere: any OpenAI-compatible completions server with base and adapter.

SENTIMENT_ENDPOINT is its address, SENTIMENT_ENDPOINT_BASE what it calls the base model, and
SENTIMENT_ENDPOINT_ADAPTER the adapter: named as its run, or "run=name", also several of them with commas. The
prompt goes there as token ids, so that a review stays text; back comes how likely each label word is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import httpx
import numpy as np

from sentiment_core.artifacts.store import Run, adapter_sha256
from sentiment_core.config import UserError
from sentiment_core.live.transformers import LiveTransformers
from sentiment_core.models.base_models import BaseModel, base_identity
from sentiment_core.models.tokens import PromptEncoder

VARIABLE = "SENTIMENT_ENDPOINT"
IN_FLIGHT = 64  # requests at once; the engine makes batches of them
LIKELIEST = 200
"""Next tokens whose log-probabilities an engine gives that does not go by the labels' ids (vLLM does; an old
one needs --max-logprobs); the base's Negative is not always among the first 20."""
BACK_OFF = (0.25, 1.0)  # seconds until an engine that is busy or away is asked again
AWAY = (429, 502, 503, 504)
WAIT = 180  # seconds for an answer, with its turn among those in flight: a slow engine's last one waits long


class EngineError(UserError):
    """The engine is away, or what it answered is no answer; the message is one sentence for visitors."""


@dataclass(frozen=True)
class Engine:
    """The server, as `LiveClassifier.load` takes it in place of weights."""

    client: httpx.Client
    base: str  # what it calls the base model
    adapters: dict[str, str]  # run id -> what it calls the run's adapter

    @staticmethod
    def of_environment() -> Engine | None:
        """None where no engine is set. Raises EngineError where its models are not named."""
        if not (address := os.environ.get(VARIABLE)):
            return None
        base, adapters = (os.environ.get(f"{VARIABLE}_{which}") for which in ("BASE", "ADAPTER"))
        if not base or not adapters:
            raise EngineError(f"{VARIABLE}_BASE and {VARIABLE}_ADAPTER do not name the models of {VARIABLE}")
        pairs = [part.strip().partition("=") for part in adapters.split(",")]
        headers = {"Authorization": f"Bearer {os.environ.get(f'{VARIABLE}_KEY', 'none')}"}
        client = httpx.Client(base_url=address, headers=headers, timeout=httpx.Timeout(WAIT, connect=3))
        return Engine(client, base, {run_id: name or run_id for run_id, _, name in pairs})

    @property
    def host(self) -> str:
        return self.client.base_url.netloc.decode()

    def connect(self, run: Run | None, base: BaseModel, encoder: PromptEncoder) -> dict[float, EngineModel]:
        """The base (0), and of a finished run the fine-tuned model (1).
        Raises EngineError where the engine is away, or does not hold one of them."""
        models = {model["id"]: {} for model in self.ask("GET", "models").get("data", ())}
        with suppress(EngineError, LookupError, TypeError):  # llama.cpp's adapters are there, named by file
            listed = self.ask("GET", f"{self.client.base_url.join('/lora-adapters')}")
            loras = {PurePath(one["path"]).stem: one["id"] for one in listed}
            for name in (*models, *loras) if loras else ():
                models[name] = {"lora": [{"id": i, "scale": float(of == name)} for of, i in loras.items()]}
        told = f"base {self.base} {(base_identity(base) or '')[:8]}"
        wanted = {0.0: (self.base, f"{told} on {self.host}")}
        if run and run.record:
            if not (name := self.adapters.get(run.run_id)):
                what = f"{VARIABLE}_ADAPTER names it by {run.run_id}=NAME"
                raise EngineError(f"The engine {self.host} has no adapter for run {run.run_id!r}; {what}")
            wanted[1.0] = name, f"adapter {name} {adapter_sha256(run)[:8]} and {told} on {self.host}"
        if missing := [name for name, _ in wanted.values() if name not in models]:
            held = ", ".join(models) or "none"
            raise EngineError(f"The engine {self.host} holds no model {missing[0]!r}; it has: {held}")
        return {
            alpha: EngineModel(self, encoder, about, {"model": name} | models[name])
            for alpha, (name, about) in wanted.items()
        }

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """The JSON of its answer. Raises EngineError: it is away, after some tries too, or refuses."""
        away = ""
        for wait in (*BACK_OFF, 0):
            try:
                answer = self.client.request(method, path, **more)
                if answer.status_code not in AWAY:
                    break
                away = f"status {answer.status_code}"
            except httpx.TransportError as error:
                away = type(error).__name__
                if away == "ReadTimeout":  # asked again, it would begin anew
                    raise EngineError(f"The engine {self.host} gave no answer in {WAIT} seconds") from error
            time.sleep(wait)
        else:
            raise EngineError(f"The engine {self.host} is away ({away}); please try again in a minute")
        with suppress(ValueError):
            if answer.is_success:
                return answer.json()
        said = " ".join(answer.text.split())[:200]
        raise EngineError(f"The engine {self.host} refused with status {answer.status_code}: {said}")


@dataclass(frozen=True)
class EngineModel(LiveTransformers):
    """One model of the engine, asked with whole prompts as `LiveTransformers` is."""

    engine: Engine
    encoder: PromptEncoder
    about: str  # names and hashes of adapter and base, and where they are
    chosen: dict[str, Any]  # what a request says to choose it

    def log_odds(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """(n,) float64 log-odds of Positive against Negative, of token ids after the prefix; all at once."""
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            return np.array(list(pool.map(self._log_odds, rows)), dtype=float)

    def _log_odds(self, row: np.ndarray) -> float:
        asked = {"prompt": [*self.encoder.prefix_ids, *row.tolist()], "max_tokens": 1, "temperature": 0}
        own = {"return_tokens_as_token_ids": True, "logprob_token_ids": self.encoder.label_ids}  # vLLM's
        asked |= {"logprobs": LIKELIEST} | own | self.chosen
        found = _next_tokens(self.engine.ask("POST", "completions", json=asked))
        negative, positive = (self._of(label, found) for label in self.encoder.label_ids)
        return positive - negative

    def _of(self, label: int, found: dict[Any, float]) -> float:
        """The label's log-probability, by its id where the engine gives ids, else by its text."""
        word = self.encoder.tokenizer.decode([label])
        for key in (label, f"token_id:{label}", word):
            if key in found:
                return float(found[key])
        raise EngineError(f"The engine {self.engine.host} did not say how likely {word!r} is as next token")


def _next_tokens(answer: Any) -> dict[Any, float]:
    """Token id or text -> log-probability at the first new position; llama.cpp's server gives both."""
    with suppress(LookupError, TypeError):
        given = answer["choices"][0]["logprobs"]
        if "content" not in given:
            return given["top_logprobs"][0]
        listed = given["content"][0]["top_logprobs"]
        return {key: one["logprob"] for one in listed for key in (one["token"], one.get("id"))}
    return {}
