"""What a system is to an evaluation: what decides its result, and its work once it is loaded."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sentiment_core.artifacts.frames import answers
from sentiment_core.artifacts.schema import BaseModelInfo
from sentiment_core.engines.scorer import p_positive
from sentiment_core.evaluation.inputs import Inputs, safe_name

Parts = Iterator[tuple[np.ndarray, np.ndarray]]
"""(row indices, (rows, width) numbers) in whatever order is fastest."""


def from_scores(values: np.ndarray) -> dict[str, Any]:
    """(n, 2) log-likelihoods of the label words or (n, 1) P(positive) -> columns of the predictions."""
    values = values.astype(np.float32)
    p = p_positive(values) if values.shape[1] == 2 else values[:, 0]
    return {"prediction": answers(p), "p_positive": p}


@dataclass(frozen=True)
class Work:
    """A system that is loaded and ready: rows of the test set to values, values to answers."""

    stream: Callable[[np.ndarray], Parts]
    """Rows (m,) of draws · n -> parts whose indices count within those rows."""
    width: int = 2
    answers: Callable[[np.ndarray], dict[str, Any]] = from_scores
    """(draws · n, width) values -> {"prediction", "p_positive"}, and where there are any, the columns of
    further draws and "answer_forms"."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Further ones to record, which decide nothing or are known only now."""
    base_model: BaseModelInfo | None = None
    """What read the prompts; None for a system without a language model."""
    draws: int = 1  # how often it answers each review: row r is review r % n in draw r // n


class EvaluatedSystem(ABC):
    """One line of the registry in an evaluation; nothing heavy is loaded before `work`."""

    on_devices = True
    """The devices of a launch share its work; otherwise the first process does it all, on the CPU."""
    run_id: str | None = None  # the run that it comes from

    def __init__(self, system_id: str, inputs: Inputs) -> None:
        self.id, self.inputs, self.config = system_id, inputs, inputs.config

    @property
    def origin(self) -> str:
        """How the evaluation's name ends: by the base model, unless a run or training data decide."""
        return safe_name(self.inputs.base.name)

    def decisive(self) -> dict[str, Any]:
        """Every setting and input that decides the predictions, by name; in the record's settings."""
        return {"dataset_fingerprint": self.inputs.fingerprint}

    @abstractmethod
    def work(self) -> Work:
        """Load what it takes."""

    @property
    def eval_id(self) -> str:
        return f"{self.inputs.test.short_name}--{self.id}--{self.origin}"

    def identity(self, *apart: str) -> str:
        """First 16 hex digits of SHA-256 over what decides the predictions, `apart` from these settings."""
        decisive = {name: value for name, value in self.decisive().items() if name not in apart}
        return hashlib.sha256(json.dumps([self.id, decisive], sort_keys=True).encode()).hexdigest()[:16]
