"""A run's model card: what it is, how to load it without this program, what it reaches, and its limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from sentiment_core.artifacts.report import markdown_table
from sentiment_core.artifacts.schema import EvalRecord, Metric, RunRecord
from sentiment_core.artifacts.store import Run, list_artifacts, read_adapter_base, write_text
from sentiment_core.config import UserError
from sentiment_core.data.reviews import DEFAULT_DATASET
from sentiment_core.prompts import PROMPT, REVIEW_SLOT

TEMPLATE = Path(__file__).with_name("card.md")
METRICS = {"accuracy": "Accuracy", "macro_f1": "Macro F1", "roc_auc": "ROC AUC", "brier": "Brier score"}
"""Those that the card shows: our name -> title."""
ON_THE_HUB = {"macro_f1": "f1", "brier": "brier_score"}
"""Our name -> the Hub's, where they differ."""
CODE = """\
from {package} import {loader}
from transformers import AutoTokenizer

model = {loader}.from_pretrained("{location}")
tokenizer = AutoTokenizer.from_pretrained({tokenizer})
messages = {messages}
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
negative, positive = (tokenizer.encode(word, add_special_tokens=False)[0] for word in {words})
p_positive = model(**inputs).logits[0, -1, [negative, positive]].softmax(-1)[1].item()"""


class PublishError(UserError):
    """Something cannot be published; the message says why and what to do."""


def write_card(run: Run, root: Path) -> Path:
    """Write README.md beside the run's adapter, from what `root` holds of the run; its path."""
    path = run.adapter_path / "README.md"
    write_text(path, str(card_of(run, root)))
    return path


def card_of(run: Run, root: Path, *, location: str = "", merged: bool = False) -> ModelCard:
    """The card.

    Args:
        location: what loads it; by default its folder under assets/.
        merged: of the merged model instead of the adapter.
    Raises:
        PublishError: the run is unfinished. ArtifactError: its adapter cannot be read.
    """
    if (record := run.record) is None:
        raise PublishError(f"run {run.run_id!r} is unfinished; finish it with train.py --resume")
    base, revision = read_adapter_base(run)
    evals = evaluations(run, root)
    data = ModelCardData(
        base_model=base if "/" in base else None, datasets=sorted(_hub_datasets(record, evals)) or None,
        language="en", library_name="transformers" if merged else "peft",
        license=(record.base_model.licence or "other").lower(), metrics=["accuracy"],
        model_name=record.run_id, pipeline_tag="text-classification",
        tags=["qlora", "lora", "sentiment-analysis"],
        base_model_relation="finetune" if merged else "adapter",
        eval_results=list(_eval_results(record, evals)),
    )  # fmt: skip
    return ModelCard.from_template(
        data, template_path=str(TEMPLATE), run=record, exports="",
        what="A language model" if merged else "A LoRA adapter",
        base_link=f"[{base}](https://huggingface.co/{base})" if "/" in base else base,
        code=_code(location or f"assets/runs/{run.run_id}/adapter", base, revision, merged=merged),
        results=markdown_table(list(_result_rows(record, evals))),
        settings=markdown_table([{"Setting": k, "Value": str(v)} for k, v in record.config.items()]),
    )  # fmt: skip


def evaluations(run: Run, root: Path) -> list[EvalRecord]:
    """Those of this training, and not of one that had the same name before."""
    found = [evaluation.record for evaluation in list_artifacts(root).evals]
    return [
        r for r in found if r.run_id == run.run_id and run.record and r.created_at >= run.record.created_at
    ]


def hub_dataset(source: str) -> str:
    """The Hub id behind a data source, IMDB's local copies included; another's name as it is."""
    return DEFAULT_DATASET if source == Path(DEFAULT_DATASET).name else source


def _hub_datasets(record: RunRecord, evals: Sequence[EvalRecord]) -> set[str]:
    names = {hub_dataset(source) for source in (record.data.source, *(e.dataset.source for e in evals))}
    return {name for name in names if "/" in name}


def _measured(record: RunRecord, evals: Sequence[EvalRecord]) -> Iterator[tuple[str, str, str, Metric]]:
    """(data source, split, metric, value) of what was measured."""
    yield record.data.source, "validation", "accuracy", record.validation_accuracy
    for evaluation in evals:
        for name in filter(evaluation.metrics.get, METRICS):
            yield evaluation.dataset.source, evaluation.dataset.split, name, evaluation.metrics[name]


def _result_rows(record: RunRecord, evals: Sequence[EvalRecord]) -> Iterator[dict[str, str]]:
    for source, split, name, metric in _measured(record, evals):
        reviews = "left out of training" if split == "validation" else split
        yield {
            "Dataset": f"{source}, {reviews}", "Metric": METRICS[name],
            "Value (95 % interval)": f"{metric.value:.4f}{_interval(metric)}", "n": f"{metric.n:,}",
        }  # fmt: skip


def _eval_results(record: RunRecord, evals: Sequence[EvalRecord]) -> Iterator[EvalResult]:
    for source, split, name, metric in _measured(record, evals):
        yield EvalResult(
            task_type="text-classification", dataset_type=hub_dataset(source), dataset_name=source,
            dataset_split=split, metric_type=ON_THE_HUB.get(name, name), metric_value=round(metric.value, 4),
            metric_name=f"{METRICS[name]}{_interval(metric)}, n = {metric.n}",
        )  # fmt: skip


def _interval(metric: Metric) -> str:
    defined = metric.low is not None and metric.high is not None
    return f" ({metric.low:.4f}–{metric.high:.4f})" if defined else ""


def _code(location: str, base: str, revision: str | None, *, merged: bool) -> str:
    messages = [
        {**message, "content": message["content"].replace(REVIEW_SLOT, "A film that moves.")}
        for message in PROMPT.messages()
    ]
    at = f'"{base}"' + (f', revision="{revision}"' if revision else "")
    return CODE.format(
        package="transformers" if merged else "peft", location=location,
        loader="AutoModelForCausalLM" if merged else "AutoPeftModelForCausalLM",
        tokenizer=f'"{location}"' if merged else at, messages=messages, words=PROMPT.label_words,
    )  # fmt: skip
