"""What every tab is given: the artifacts, the live model, the texts, and how a tab plugs into the page."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from sentiment_core.artifacts.store import Evaluation, Run
from sentiment_core.dashboard.host import ModelHost
from sentiment_core.dashboard.serving import Serving
from sentiment_core.dashboard.store import DATASET_TITLES, Store
from sentiment_core.dashboard.texts import ReviewTexts

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}  # of the page's own events
VERSUS: dict[str, Any] = {"label": "Compare with", "value": "", "min_width": 260, "interactive": True}
VERSUS |= {"allow_custom_value": True}  # an address may name any run; see `pairs.Sides`


@dataclass(frozen=True)
class Context:
    store: Store
    serving: Serving = field(default_factory=lambda: Serving(ModelHost()))
    texts: ReviewTexts = field(default_factory=lambda: ReviewTexts({}))

    def evals(self, run_id: str | None, dataset: str | None) -> tuple[Run | None, dict[str, Evaluation]]:
        """The run and its evaluations on the dataset, or on the largest one where that name is unknown."""
        run = self.store.run(run_id)
        return run, self.store.evals(run, self.dataset(dataset))

    def dataset(self, name: str | None) -> str | None:
        names = self.store.datasets()
        return name if name in names else next(iter(names), None)

    def drawn_once(self, name: str, render: Callable[..., Sequence[Any]]) -> Callable[..., Sequence[Any]]:
        """A tab's `render`, whose results are sent from memory until an artifact changes."""

        def draw(*inputs: Any) -> Sequence[Any]:
            version = self.store.signature(), len(self.texts.wait(0))
            return self.store.keep((name, json.dumps(inputs)), version, lambda: render(*inputs))

        return draw

    def dataset_choice(self, name: str | None = None) -> dict[str, Any]:
        """What a tab's radio of datasets offers, and the chosen one."""
        choices = [(DATASET_TITLES.get(one, one), one) for one in self.store.datasets()]
        return {"choices": choices, "value": self.dataset(name), "visible": len(choices) > 1}


@dataclass
class TabPart:
    """A built tab. `render(run_id, *inputs)` gives values for `outputs`; the page calls it when needed."""

    render: Callable[..., Sequence[Any]]
    inputs: Sequence[gr.components.Component]
    outputs: Sequence[gr.components.Component | gr.blocks.BlockContext]
    dataset: gr.Radio | None = None
    addressed: Sequence[gr.components.Component] = ()  # what else the page fills, from the address


def dataset_switch(context: Context, tab: str) -> gr.Radio:
    """The dataset radio of a tab; it writes its choice to the address."""
    look = {"label": "Test set", "elem_id": f"{tab}-dataset", "elem_classes": "pills", "interactive": True}
    radio = gr.Radio(**context.dataset_choice(), **look)
    radio.input(None, radio, None, js="(v) => window.qUrl({data: v})", api_visibility="private")
    return radio
