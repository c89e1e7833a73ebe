"""The page: header, run selector, six tabs, and what the address holds (tab, run, data, review, text)."""

import asyncio
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from sentiment_core import config
from sentiment_core.artifacts import remote
from sentiment_core.artifacts.store import ArtifactError, Run
from sentiment_core.dashboard import api
from sentiment_core.dashboard.components import header
from sentiment_core.dashboard.components.parts import css, notice, static, theme
from sentiment_core.dashboard.context import QUIET, Context, TabPart
from sentiment_core.dashboard.guard import Guard, KeptPage, QuietBlocks, told_in_log
from sentiment_core.dashboard.host import ModelHost, ModelUnavailable, load_live
from sentiment_core.dashboard.inputs import MAX_UPLOAD_BYTES
from sentiment_core.dashboard.serving import BROKE, Serving
from sentiment_core.dashboard.store import Store
from sentiment_core.dashboard.texts import ReviewTexts

TABS = {
    "live": "Live", "accuracy": "Accuracy", "loss": "Loss curves", "confusion": "Confusion matrices",
    "examples": "Example predictions", "method": "Method",
}  # fmt: skip
"""Name in the address -> title, in the order of the page. `tabs/<name>.py` has its
`build(context, run dropdown) -> TabPart`."""


def build(
    assets: Path | None = None,
    load_classifier: Callable[[Run | None], Any] = load_live,
    texts: Mapping[str, str] | None = None,
) -> gr.Blocks:
    """The dashboard as Blocks, of the artifacts in `assets`, by default `config.ASSETS`.
    load_classifier: run -> the live model; called in a background thread.
    texts: review id -> text; by default looked up in the dataset at hand."""
    store = Store(Path(assets or config.ASSETS))
    # on a ZeroGPU Space the processor answers, and batches go to the GPU
    batch_host = ModelHost(partial(load_live, cuda=True)) if os.environ.get("SPACES_ZERO_GPU") else None
    context = Context(store, Serving(ModelHost(load_classifier), batch_host), ReviewTexts(texts))
    first = store.run(None)
    with QuietBlocks(title=header.TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as demo:
        with gr.Row(elem_id="head"):
            told = header.head_html(context, first)
            title = gr.HTML(told[0], elem_id="title")
            with gr.Column(elem_classes="side", min_width=240), gr.Row(elem_id="side"):
                choice = _run_choice(context, None)
                label = "Run, or user/name on the Hub" if remote.allowed() else "Run"
                run = gr.Dropdown(**choice, label=label, elem_id="run", interactive=True, min_width=150)
                copy = gr.Button("Copy link", elem_id="copy-link", size="sm", scale=0)
        stats = gr.HTML(told[1], elem_id="stats")
        problems = gr.HTML(elem_id="problems")
        parts: dict[str, TabPart] = {}
        with gr.Tabs(selected="live", elem_id="tabs", overflow_behavior="wrap") as tabs:
            for name, tab_title in TABS.items():
                with gr.Tab(tab_title, id=name, elem_id=f"tab-{name}") as tab:
                    parts[name] = resolve_name(f"sentiment_core.dashboard.tabs.{name}:build")(context, run)
                tab.select(None, js=f"() => {{ window.qUrl({{tab: {name!r}}}); return [] }}", **QUIET)
        if os.environ.get("SPACE_ID"):
            gr.DuplicateButton("Duplicate this Space", size="sm", elem_id="duplicate")
        copy.click(None, js="() => { figs.copyLink(); return [] }", **QUIET)
        draws = _wire(demo, context, parts, run, tabs, [title, stats, problems])
        api.register(context)
    # about four events a page that opens; the model's wait in `serving.KINDS`, so that they never hold it up
    demo.queue(api_open=False, max_size=2000, default_concurrency_limit=4)
    demo._queue.ANALYTICS_MAX_EVENTS = 0  # a table of all events, made anew at each of them
    warm_up = threading.Thread(target=_warm_up, args=(context, draws), name="warm-up", daemon=True)

    async def queue(_: Request) -> JSONResponse:
        return JSONResponse(context.serving.queue())

    exports = StaticFiles(directory=store.root / "browser", check_dir=False)  # `publishing browser`'s
    routes = Route("/queue", queue), Mount("/browser", exports)
    demo.ours = warm_up, routes  # pyrefly: ignore[missing-attribute] for `launch`
    return demo


def launch(demo: gr.Blocks, *, prevent_thread_lock: bool = False, **more: Any) -> tuple[Any, str, str]:
    """Serve the page, then begin to load the model and the texts. `more` goes to `Blocks.launch`."""
    warm_up, routes = demo.ours  # pyrefly: ignore[missing-attribute] `build` made them
    served = demo.launch(**(launch_options(routes) | more), prevent_thread_lock=True)
    warm_up.start()
    sys.setswitchinterval(0.0001)  # the model's thread comes back from PyTorch hundreds of times an answer
    sys.modules.setdefault("matplotlib", None)  # pyrefly: ignore Gradio looks for it on the disk at every event
    if not prevent_thread_lock:
        demo.block_thread()
    return served


def _warm_up(context: Context, draws: dict[str, Callable[[], object]]) -> None:
    """Every tab, so that it is sent from memory; the model; and once that is there, the review texts."""
    host, first, with_texts = context.serving.host, context.store.run(None), draws.pop("examples")
    host.not_before = time.monotonic() + 4.0  # first the page: on few cores its imports take half of the time
    host.start(first)
    for draw in draws.values():
        draw()
    wait([host.slot(first)])
    with_texts()
    with suppress(ModelUnavailable):  # who asks is told why
        asyncio.run(context.serving.warm_up(first))
    gc.freeze()  # what is there now stays: looking through it for garbage holds everybody up


def _run_choice(context: Context, run_id: str | None) -> dict[str, Any]:
    """What the run selector offers, and the chosen one (the default where there is no such run)."""
    chosen = context.store.run(run_id)
    names = [(title, name) for name, title in header.run_titles(context, chosen, story=True).items()]
    value, visible = chosen.run_id if chosen else None, len(names) > 1 or remote.allowed()
    return {"choices": names, "value": value, "visible": visible, "allow_custom_value": remote.allowed()}


def _wire(
    demo: gr.Blocks, context: Context, parts: dict[str, TabPart], run: gr.Dropdown, tabs: gr.Tabs,
    head: list[gr.HTML],
) -> dict[str, Callable[[], object]]:  # fmt: skip
    """Opening the page, and changing the run, draw every tab; the address decides what is opened.

    The text of a review stands in the fragment of the address, which only the page's script reads. Returns
    what draws the page and each tab for a visitor with a bare address.
    """
    datasets = [part.dataset for part in parts.values() if part.dataset is not None]

    def choose(run_id: str | None) -> tuple[Any, ...]:
        chosen = context.store.run(run_id)
        context.serving.host.start(chosen)
        if not chosen or chosen.run_id == run_id:
            return gr.skip(), *draw_header(run_id)
        refused = f"{str(run_id)[:90]!r} is no run here, and on the Hub one is called user/name"
        return chosen.run_id, *draw_header(run_id, refused)

    def draw_header(run_id: str | None, refused: str = "") -> tuple[str, str, str]:
        chosen = context.store.run(run_id)
        told = notice(f"{refused}; another run is shown.", warn=True) if refused else ""
        return *header.head_html(context, chosen), told + header.problems_html(context)

    @partial(context.drawn_once, "page")
    def page(run_id: str | None, data: str | None, refused: str) -> tuple[Any, ...]:
        radios = [gr.Radio(**context.dataset_choice(data))] * len(datasets)
        return gr.Dropdown(**_run_choice(context, run_id)), radios, draw_header(run_id, refused)

    def opened(request: gr.Request) -> list[object]:
        query = request.query_params
        run_id, refused = query.get("run"), ""
        try:
            run_id = context.store.hub_run(run_id).run_id if "/" in (run_id or "") else run_id
        except ArtifactError as error:
            run_id, refused = None, str(error)
        context.serving.host.start(context.store.run(run_id))
        choice, radios, head = page(run_id, query.get("data"), refused)
        # without one the visitor may have gone to another by now
        tab = gr.Tabs(selected=query["tab"]) if query.get("tab") in TABS else gr.skip()
        shown = {name: query[name] for name in ("show", "versus") if name in query}
        given = query.get("review", "")[:64], json.dumps(shown) if shown else "", query.get("versus", "")
        return [tab, choice, *radios, *given, *head]

    given = [*parts["examples"].addressed, *parts["accuracy"].addressed]
    loaded = demo.load(opened, None, [tabs, run, *datasets, *given, *head], **QUIET)
    draws: dict[str, Callable[[], object]] = {"page": partial(page, None, None, "")}
    for name, part in parts.items():
        part.render = context.drawn_once(name, part.render)
        draws[name] = partial(part.render, *(one.value for one in (run, *part.inputs)))
        run.input(part.render, [run, *part.inputs], part.outputs, **QUIET)
    live, others = parts["live"], [part for name, part in parts.items() if name != "live"]
    drawn = loaded.then(live.render, [run, *live.inputs], live.outputs, **QUIET)
    drawn.then(None, js="() => { figs.ready(); return [] }", **QUIET)

    def draw_others(run_id: str | None, *given: Any) -> list[Any]:
        """All other tabs in one event, which costs a crowd half of what one each does; where one breaks, it
        says so, and the others are drawn."""
        left, values = iter(given), list[Any]()
        for part in others:
            try:
                values += part.render(run_id, *islice(left, len(part.inputs)))
            except Exception as error:
                told_in_log("a tab", error)
                gr.Warning(BROKE)
                values += [gr.skip()] * len(part.outputs)
        return values

    inputs = [one for part in others for one in part.inputs]
    outputs = [one for part in others for one in part.outputs]
    loaded.then(draw_others, [run, *inputs], outputs, **QUIET)
    # another run, of the Hub: the page opens anew, as from a link
    to_address = (
        "(v) => { window.qUrl({run: v}); if (/[/]/.test(v) && v !== figs.at.run) location.reload();"
        " figs.set('run', v); return v }"
    )
    run.input(choose, run, [run, *head], js=to_address, **QUIET)
    return draws


def launch_options(routes: Sequence[BaseRoute] = ()) -> dict[str, Any]:
    """Arguments for `Blocks.launch`: nothing from other origins, nothing told to anybody, bounded uploads."""
    about = f'description" content="{header.ABOUT}">'  # which a link to the page shows elsewhere, too
    off = "show_error", "enable_monitoring", "run_history", "ssr_mode", "pwa", "mcp_server", "share"
    return {
        "theme": theme(),
        "css": css(),
        "head": f'<meta name="{about}<meta property="og:{about}<meta name="twitter:{about}'
        f"<script>{static('figures.js', 'figures.*.js')}</script>",
        "js": static("page.js"),
        "footer_links": ["api", "settings"],  # light or dark, among them
        "max_file_size": MAX_UPLOAD_BYTES,
        "state_session_capacity": 1000,
        "app_kwargs": {"middleware": [Middleware(Guard), Middleware(KeptPage)], "routes": list(routes)},
        **dict.fromkeys(off, False),
    }
