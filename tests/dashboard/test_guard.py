"""Requests to the page: sizes are counted as bytes arrive, and a broken one is the sender's."""

import logging
from collections.abc import Iterator

import gradio as gr
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from sentiment_core.dashboard import guard
from tests import waiting


async def read(request: Request) -> PlainTextResponse:
    taken.append(0)
    async for piece in request.stream():
        taken[-1] += len(piece)
    return PlainTextResponse("read")


async def broken(request: Request) -> PlainTextResponse:
    raise KeyError(await request.body())


async def half(request: Request) -> StreamingResponse:
    def pieces() -> Iterator[str]:
        yield "half"
        raise OSError("gone")

    return StreamingResponse(pieces())


taken: list[int] = []
ROUTES = [Route(f"/{f.__name__}", f, methods=["GET", "POST"]) for f in (read, broken, half)]


@pytest.fixture
def client() -> TestClient:
    return TestClient(Starlette(routes=ROUTES, middleware=[Middleware(guard.Guard)]))


def test_a_chunked_body_is_cut_off_where_it_becomes_too_large(client, monkeypatch) -> None:
    monkeypatch.setattr(guard, "MAX_BODY_BYTES", 1000)
    answer = client.post("/read", content=(b"x" * 100 for _ in range(50)))
    assert answer.status_code == 413
    assert "24,000,000" in answer.json()["detail"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert max(taken, default=0) <= 1000
    assert client.post("/read", content=(b"x" * 100 for _ in range(10))).text == "read"


def test_a_request_that_breaks_a_route_is_refused_in_one_line_without_its_text(client, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        answer = client.post("/broken", content=b"a visitor's own words")
    assert answer.status_code == 400
    assert "cannot be read" in answer.json()["detail"]
    [line] = caplog.messages
    assert line == "broken: malformed (KeyError)"
    assert "own words" not in line + (caplog.records[0].exc_text or "")


def test_an_answer_that_has_begun_is_not_answered_twice(client, caplog) -> None:
    assert client.get("/half").text == "half"
    assert caplog.messages == ["half: broke off (OSError)"]


def test_the_page_is_made_once_for_each_address_it_is_asked_under() -> None:
    made = []

    async def page(request: Request) -> PlainTextResponse:
        made.append(request.headers["host"])
        return PlainTextResponse(f"at {request.headers['host']}", status_code=500 if len(made) == 1 else 200)

    app = Starlette(routes=[Route("/", page)], middleware=[Middleware(guard.KeptPage)])
    client = TestClient(app, raise_server_exceptions=False)
    assert client.get("/").status_code == 500  # not kept
    for host in ("one.org", "two.org", "one.org"):
        for query in ("", "?tab=loss"):
            assert client.get(f"/{query}", headers={"host": host}).text == f"at {host}"
    assert made == ["testserver", "one.org", "two.org"]
    for n in range(20):
        client.get("/", headers={"host": f"{n}.org"})
    [kept] = [one for one in _stack(app) if isinstance(one, guard.KeptPage)]
    assert len(kept.kept) == guard.KeptPage.MOST
    assert client.get("/?deep_link=x", headers={"host": "19.org"}).status_code == 200
    assert made[-1] == "19.org"
    assert made.count("19.org") == 2


def _stack(app: Starlette) -> Iterator[object]:
    one = app.middleware_stack
    while one is not None:
        yield one
        one = getattr(one, "app", None)


def call_of(page: guard.QuietBlocks, inputs: list) -> dict:
    """The page's one endpoint called."""
    [call] = page.fns.values()
    return waiting.run(page.process_api(call, inputs))


def fails(text: str) -> float:
    return 1 / len(text[:0])


def test_a_failing_call_is_one_line_in_the_log_without_what_was_sent(caplog) -> None:
    with guard.QuietBlocks() as page:
        gr.api(fails)
    for sent in (["a visitor's own words"], []):
        with caplog.at_level(logging.ERROR), pytest.raises(gr.Error, match="went wrong") as refused:
            call_of(page, sent)
        assert not refused.value.print_exception
    assert len(caplog.messages) == 2
    assert "own words" not in caplog.text


@pytest.mark.parametrize("nest", [lambda file: file, lambda file: [{"files": [file]}]])
def test_a_file_at_an_address_is_never_fetched(nest) -> None:
    with guard.QuietBlocks() as page:
        gr.api(fails)
    given = nest({"path": "http://localhost:9/secret", "meta": {"_type": "gradio.FileData"}})
    with pytest.raises(gr.Error, match="uploads only"):
        call_of(page, [given])
