"""A run's model card: what it is, how to load it without this program, what it reaches, and its limits."""

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from sentiment_core.artifacts.report import export_rows
from sentiment_core.artifacts.schema import EvalRecord, RunRecord
from sentiment_core.artifacts.store import Run, list_artifacts, read_adapter_config, write_text
from sentiment_core.config import TrainConfig, UserError, split_name
from sentiment_core.prompts import PROMPT, REVIEW_SLOT

TEMPLATE = Path(__file__).with_name("card.md")
METRICS = {"accuracy": "accuracy", "macro_f1": "f1", "roc_auc": "roc_auc", "brier": "brier_score"}
"""Those that the card shows: our name -> the Hub's."""


class PublishError(UserError):
    """Something cannot be published; the message says why and what to do."""


def write_card(run: Run, root: Path) -> Path:
    """Write README.md beside the run's adapter, from what `root` holds of the run; its path."""
    path = run.adapter_path / "README.md"
    write_text(path, f"{card_of(run, root)}\n")
    return path


def card_of(run: Run, root: Path, *, repo: str = "", merged: bool = False) -> ModelCard:
    """The card of a finished run.

    Args:
        repo: where it will be; by default the run's folder under assets/.
        merged: of the merged model instead of the adapter.
    Raises ArtifactError: its adapter cannot be read.
    """
    record, config = run.record, read_adapter_config(run)
    assert record
    base, revision = config.get("base_model_name_or_path") or "", config.get("revision")
    results = list(_results(record, evaluations(run, root)))
    data = ModelCardData(
        base_model=base if "/" in base else None, base_model_relation="finetune" if merged else "adapter",
        datasets=sorted({r.dataset_type for r in results if "/" in r.dataset_type}) or None,
        language="en", library_name="transformers" if merged else "peft",
        license=(record.base_model.licence or "other").lower(), metrics=["accuracy"],
        model_name=record.run_id, pipeline_tag="text-classification",
        tags=["qlora", "lora", "sentiment-analysis"], eval_results=results,
    )  # fmt: skip
    return ModelCard.from_template(
        data, template_path=str(TEMPLATE), run=record, results=results, base=base, revision=revision,
        location=repo or f"assets/runs/{run.run_id}/adapter", merged=merged, prompt=PROMPT, slot=REVIEW_SLOT,
        exports=export_rows(run, root),
    )  # fmt: skip


def evaluations(run: Run, root: Path) -> list[EvalRecord]:
    """Those of this training, and not of one that had the same name before."""
    began = run.record.created_at if run.record else None
    records = (one.record for one in list_artifacts(root).evals)
    return [one for one in records if began and one.run_id == run.run_id and one.created_at >= began]


def hub_dataset(source: str) -> str:
    """The data source without what it says of columns, a local copy of IMDB by its Hub id."""
    name, _ = split_name(source)
    return TrainConfig.dataset if name == Path(TrainConfig.dataset).name else name


def _results(run: RunRecord, evals: list[EvalRecord]) -> Iterator[EvalResult]:
    found = [(run.data.source, "validation", "accuracy", run.validation_accuracy)]
    for one in evals:
        names = filter(one.metrics.get, METRICS)
        found += [(one.dataset.source, one.dataset.split, name, one.metrics[name]) for name in names]
    for source, split, name, metric in found:
        interval = f"{metric.low:.4f}–{metric.high:.4f}, " if metric.low is not None else ""
        yield EvalResult(
            task_type="text-classification", dataset_name=source, dataset_split=split,
            dataset_type=hub_dataset(source), metric_type=METRICS[name], metric_value=round(metric.value, 4),
            metric_name=f"{name.replace('_', ' ')} ({interval}n = {metric.n:,})",
        )  # fmt: skip
