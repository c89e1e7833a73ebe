"""The page: header, run selector, six tabs, and what the address holds (tab, run, data, review, text)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from sentiment_core import config
from sentiment_core.artifacts.store import Run
from sentiment_core.dashboard import api, theme
from sentiment_core.dashboard.components import header
from sentiment_core.dashboard.context import QUIET, Context, TabPart
from sentiment_core.dashboard.guard import Guard, QuietBlocks
from sentiment_core.dashboard.inputs import MAX_UPLOAD_BYTES
from sentiment_core.dashboard.serving import ModelHost, Serving, load_live
from sentiment_core.dashboard.store import Store
from sentiment_core.dashboard.tabs.live import SHORT, welcome_text
from sentiment_core.dashboard.texts import ReviewTexts

TABS = {
    "live": "Live",
    "accuracy": "Accuracy",
    "loss": "Loss curves",
    "confusion": "Confusion matrices",
    "examples": "Example predictions",
    "method": "Method",
}
"""Name in the address -> title, in the order of the page. `tabs/<name>.py` has its
`build(context, run dropdown) -> TabPart`."""

MAX_WAITING = 500
"""Events in Gradio's queue, about eight for each page that opens. Requests for the model wait elsewhere
(`serving.LONGEST_QUEUES`), so that they never keep the page itself waiting."""

MAX_THREADS = 80
"""More than all that may wait for the model, so that the page is served beside them."""

OFF = ("show_error", "enable_monitoring", "run_history", "ssr_mode", "pwa", "mcp_server", "share")
"""What Gradio can do and this page does not."""

HEAD_START_SECONDS = 4.0
"""From serving the page to loading the model, whose imports take half of the page's time on few cores."""


def build(
    assets: Path | None = None,
    load_classifier: Callable[[Run | None], Any] = load_live,
    texts: Mapping[str, str] | None = None,
) -> gr.Blocks:
    """The dashboard as Blocks.

    Args:
        assets: the artifacts folder; by default `config.ASSETS`.
        load_classifier: run -> the live model; called in a background thread.
        texts: review id -> text; by default looked up in the dataset at hand.
    """
    store = Store(Path(assets or config.ASSETS))
    context = Context(store, Serving(ModelHost(load_classifier)), ReviewTexts(texts))
    first = store.run(None)
    with QuietBlocks(title=header.TITLE, analytics_enabled=False, delete_cache=(3600, 86400)) as demo:
        with gr.Row(elem_id="head"):
            title = gr.HTML(header.title_html(context, first), elem_id="title")
            with gr.Column(elem_classes="side", min_width=240), gr.Row(elem_id="side"):
                names = _run_names(context)
                run = gr.Dropdown(
                    names, value=first.run_id if first else None, label="Run", elem_id="run",
                    visible=len(names) > 1, interactive=True, min_width=150,
                )  # fmt: skip
                toggle = gr.Button("Light / dark", elem_id="theme-button", size="sm", scale=0)
        stats = gr.HTML(header.stats_html(context, first), elem_id="stats")
        problems = gr.HTML(elem_id="problems")
        parts: dict[str, TabPart] = {}
        with gr.Tabs(selected="live", elem_id="tabs", overflow_behavior="wrap") as tabs:
            for name, tab_title in TABS.items():
                with gr.Tab(tab_title, id=name, elem_id=f"tab-{name}") as tab:
                    parts[name] = resolve_name(f"sentiment_core.dashboard.tabs.{name}:build")(context, run)
                tab.select(None, js=f"() => {{ window.qUrl({{tab: {name!r}}}); return [] }}", **QUIET)
        toggle.click(None, js="() => window.qTheme()", **QUIET)
        _wire(demo, context, parts, run, tabs, [title, stats, problems])
        api.register(context)
    demo.queue(api_open=False, max_size=MAX_WAITING, default_concurrency_limit=4)
    # pyrefly: ignore[missing-attribute] of our own, for `launch`
    demo.warm_up = threading.Thread(target=_warm_up, args=(context,), name="warm-up", daemon=True).start
    return demo


def launch(demo: gr.Blocks, *, prevent_thread_lock: bool = False, **more: Any) -> tuple[Any, str, str]:
    """Serve the page, then begin to load the model and the texts. `more` goes to `Blocks.launch`."""
    served = demo.launch(**(launch_options() | more), prevent_thread_lock=True)
    demo.warm_up()  # pyrefly: ignore[missing-attribute]
    if not prevent_thread_lock:
        demo.block_thread()
    return served


def _warm_up(context: Context) -> None:
    """Predictions and slow imports, which tabs need; the model; and once that is there, the review texts."""
    host = context.serving.host
    host.hold(HEAD_START_SECONDS)
    host.start(context.store.run(None))
    context.store.problems()
    time.sleep(HEAD_START_SECONDS)  # whoever opens the page now brings in what it needs
    import scipy.stats  # noqa: F401
    import sklearn.metrics  # noqa: F401

    while host.state(context.store.run(None))[0] == "loading":
        time.sleep(0.5)
    context.texts.start()


def _run_names(context: Context) -> list[tuple[str, str]]:
    return [(title, run_id) for run_id, title in context.store.run_titles().items()]


def _wire(
    demo: gr.Blocks,
    context: Context,
    parts: dict[str, TabPart],
    run: gr.Dropdown,
    tabs: gr.Tabs,
    head: list[gr.HTML],
) -> None:
    """Opening the page, and changing the run, draw every tab; the address decides what is opened."""
    datasets = [part.dataset for part in parts.values() if part.dataset is not None]
    live = parts["live"].extra
    review_id = gr.State("")

    def draw_header(run_id: str | None) -> tuple[str, str, str]:
        chosen = context.store.run(run_id)
        title, stats = header.title_html(context, chosen), header.stats_html(context, chosen)
        return title, stats, header.problems_html(context)

    def opened(request: gr.Request) -> list[object]:
        query = request.query_params
        chosen, names = context.store.run(query.get("run")), _run_names(context)
        choices, dataset = context.dataset_choices(), context.dataset(query.get("data"))
        tab, review = query.get("tab"), query.get("review", "")
        sample = next((s.text for s in context.store.samples() if s.id == review), "")
        return [
            gr.Tabs(selected=tab if tab in TABS else "live"),
            gr.Dropdown(choices=names, value=chosen.run_id if chosen else None, visible=len(names) > 1),
            *(gr.Radio(choices=choices, value=dataset, visible=len(choices) > 1) for _ in datasets),
            sample or query.get("text", "")[: 2 * SHORT] or welcome_text(context),
            "" if sample else review[:64],
            *draw_header(query.get("run")),
        ]

    loaded = demo.load(opened, None, [tabs, run, *datasets, live["text"], review_id, *head], **QUIET)
    for name, part in parts.items():
        more = [review_id] if name == "examples" else []
        loaded.then(part.render, [run, *part.inputs, *more], part.outputs, **QUIET)
        run.input(part.render, [run, *part.inputs], part.outputs, **QUIET)
    live["ask"](loaded)
    run.input(draw_header, run, head, js="(v) => { window.qUrl({run: v}); return v }", **QUIET)


def launch_options() -> dict[str, Any]:
    """Arguments for `Blocks.launch`: nothing from other origins, nothing told to anybody, bounded uploads."""
    return {
        "server_name": os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        "theme": theme.theme(),
        "css": theme.css(),
        "head": f"<script>{theme.static('figures.js', 'figures.*.js')}</script>",
        "js": theme.static("page.js"),
        "footer_links": ["api"],
        "max_file_size": MAX_UPLOAD_BYTES,
        "allowed_paths": [],
        "state_session_capacity": 1000,
        "max_threads": MAX_THREADS,
        "app_kwargs": {"middleware": [Middleware(Guard)]},
        **dict.fromkeys(OFF, False),
    }
