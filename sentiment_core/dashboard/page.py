"""The page: header, run selector, six tabs, and what the address holds (tab, run, data, review, text)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from sentiment_core import config
from sentiment_core.artifacts import Run
from sentiment_core.dashboard import (
    api,
    guard,
    header,
    tab_accuracy,
    tab_confusion,
    tab_examples,
    tab_live,
    tab_loss,
    tab_method,
    theme,
)
from sentiment_core.dashboard.calls import LiveCalls
from sentiment_core.dashboard.context import TAB_IDS, Context, TabPart
from sentiment_core.dashboard.host import Classifier, ModelHost, load_live
from sentiment_core.dashboard.inputs import MAX_UPLOAD_BYTES
from sentiment_core.dashboard.store import Store
from sentiment_core.dashboard.texts import ReviewTexts

BUILDERS = {
    "live": tab_live.build,
    "accuracy": tab_accuracy.build,
    "loss": tab_loss.build,
    "confusion": tab_confusion.build,
    "examples": tab_examples.build,
    "method": tab_method.build,
}
MAX_WAITING = 500
"""Events in Gradio's queue, about eight for each page that opens. Requests for the model wait elsewhere
(`calls.LONGEST_LINES`), so that they never keep the page itself waiting."""

MAX_THREADS = 80
"""More than all that may wait for the model, so that the page is served beside them."""

HEAD_START_SECONDS = 4.0
"""From serving the page to what is loaded behind it: the model, and what its other tabs will want."""

PAGE_JS = """() => {
  window.qUrl = (changes) => {
    const url = new URL(window.location);
    for (const [key, value] of Object.entries(changes)) {
      if (value === null || value === undefined || value === '') url.searchParams.delete(key);
      else url.searchParams.set(key, value);
    }
    window.history.replaceState(null, '', url);
  };
  const tabs = () => [...document.querySelectorAll('.tab-container[role=tablist] button[role=tab]')];
  document.addEventListener('keydown', (event) => {
    const at = tabs().indexOf(document.activeElement);
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (at < 0 || !step) return;
    event.preventDefault();
    const next = tabs()[(at + step + tabs().length) % tabs().length];
    next.focus(); next.click();
  });
}"""
THEME_JS = """() => {
  const dark = document.body.classList.toggle('dark');
  window.qUrl({__theme: dark ? 'dark' : 'light'});
  return [];
}"""


def build(
    assets: Path | None = None,
    load_classifier: Callable[[Run | None], Classifier] = load_live,
    texts: Mapping[str, str] | None = None,
) -> gr.Blocks:
    """The dashboard as Blocks.

    Args:
        assets: the artifacts folder; by default `artifacts.ASSETS`.
        load_classifier: run -> the live model; called in a background thread.
        texts: review id -> text; by default looked up in the dataset at hand.
    """
    store = Store(Path(assets or config.ASSETS))
    host = ModelHost(load_classifier)
    context = Context(store, host, LiveCalls(store, host), ReviewTexts(texts))
    with gr.Blocks(title=header.TITLE, analytics_enabled=False, delete_cache=(3600, 86400)) as demo:
        with gr.Row(elem_id="head"):
            title = gr.HTML(header.title_html(context, store.run(None)), elem_id="title")
            with gr.Column(elem_classes="side", min_width=240), gr.Row(elem_id="side"):
                runs = store.finished_runs()
                run = gr.Dropdown(
                    [r.run_id for r in runs],
                    value=_id(store.run(None)),
                    label="Run",
                    elem_id="run",
                    visible=len(runs) > 1,
                    interactive=True,
                    min_width=150,
                )
                toggle = gr.Button("Light / dark", elem_id="theme-button", size="sm", scale=0)
        stats = gr.HTML(header.stats_html(context, store.run(None)), elem_id="stats")
        problems = gr.HTML(elem_id="problems")
        parts: dict[str, TabPart] = {}
        with gr.Tabs(selected="live", elem_id="tabs", overflow_behavior="wrap") as tabs:
            for tab_id, name in TAB_IDS.items():
                with gr.Tab(name, id=tab_id, elem_id=f"tab-{tab_id}") as tab:
                    parts[tab_id] = BUILDERS[tab_id](context, run)
                tab.select(
                    None,
                    None,
                    None,
                    js=f"() => {{ window.qUrl({{tab: {tab_id!r}}}); return [] }}",
                    api_visibility="private",
                )
        toggle.click(None, None, None, js=THEME_JS, api_visibility="private")
        _wire(demo, context, parts, run, tabs, [title, stats, problems])
        api.register(context)
    demo.queue(api_open=False, max_size=MAX_WAITING, default_concurrency_limit=4)
    demo.warm_up = lambda: _start(context)
    return demo


def launch(demo: gr.Blocks, *, prevent_thread_lock: bool = False, **more: Any) -> tuple[Any, str, str]:
    """Serve the page, then begin to load the model and the texts. `more` goes to `Blocks.launch`."""
    served = demo.launch(**(launch_options() | more), prevent_thread_lock=True)
    demo.warm_up()
    if not prevent_thread_lock:
        demo.block_thread()
    return served


def _start(context: Context) -> None:
    """Begin, in the background, what the first visitor should not wait for: the most wanted first.

    The page itself is wanted more than the model, whose imports would take half of its time on few cores.
    """
    context.host.hold(HEAD_START_SECONDS)
    context.host.start(context.store.run(None))
    threading.Thread(target=_warm, args=(context,), name="warm", daemon=True).start()


def _id(run: Run | None) -> str | None:
    return run.run_id if run else None


def _warm(context: Context) -> None:
    """Predictions and slow imports, what tabs need; then, once the model is there, the review texts."""
    context.store.problems()
    time.sleep(HEAD_START_SECONDS)  # whoever opens the page now brings in what it needs
    import scipy.stats  # noqa: F401
    import sklearn.metrics  # noqa: F401

    while context.host.state(context.store.run(None))[0] == "loading":
        time.sleep(0.5)
    context.texts.start()


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
    live = parts["live"]
    asked = gr.State("")
    hidden = {"api_visibility": "private", "show_progress": "hidden"}

    def header_values(chosen: Run | None) -> list[str]:
        return [
            header.title_html(context, chosen),
            header.stats_html(context, chosen),
            header.problems_html(context),
        ]

    def opened(request: gr.Request) -> list[object]:
        query = request.query_params
        chosen = context.store.run(query.get("run"))
        names = [r.run_id for r in context.store.finished_runs()]
        choices, dataset = context.dataset_choices(), context.dataset(query.get("data"))
        review = query.get("review", "")
        sample = next((s.text for s in context.store.samples_or_none() if s.id == review), "")
        text = sample or query.get("text", "")[: 2 * tab_live.SHORT] or tab_live.welcome_text(context)
        tab = query.get("tab", "live")
        return [
            gr.Tabs(selected=tab if tab in TAB_IDS else "live"),
            gr.Dropdown(choices=names, value=_id(chosen), visible=len(names) > 1),
            *(gr.Radio(choices=choices, value=dataset, visible=len(choices) > 1) for _ in datasets),
            text,
            "" if sample else review[:64],
            *header_values(chosen),
        ]

    loaded = demo.load(opened, None, [tabs, run, *datasets, live.extra["text"], asked, *head], **hidden)

    def answer_asked(run_id: str | None, text: str, latest: tab_live.Latest) -> Iterator[object]:
        if text:
            yield from live.extra["read"](run_id, text, latest)
        else:
            yield gr.skip()

    for name, part in parts.items():
        more = [asked] if name == "examples" else []
        loaded.then(part.render, [run, *part.inputs, *more], part.outputs, **hidden)
        run.input(part.render, [run, *part.inputs], part.outputs, **hidden)
    loaded.then(answer_asked, live.extra["asking"], live.extra["answers"], **live.extra["busy"])
    run.input(
        lambda run_id: header_values(context.store.run(run_id)),
        run,
        head,
        js="(v) => { window.qUrl({run: v}); return v }",
        **hidden,
    )


def launch_options() -> dict[str, object]:
    """Arguments for `Blocks.launch`: nothing from other origins, nothing told to anybody, bounded uploads."""
    return {
        "server_name": os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        "theme": theme.theme(),
        "css": theme.css(),
        "js": PAGE_JS,
        "footer_links": ["api"],
        "show_error": False,
        "max_file_size": MAX_UPLOAD_BYTES,
        "allowed_paths": [],
        "enable_monitoring": False,
        "run_history": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "strict_cors": True,
        "state_session_capacity": 1000,
        "max_threads": MAX_THREADS,
        "share": False,
        "app_kwargs": guard.app_kwargs(),
    }
