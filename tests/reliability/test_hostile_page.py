"""Hostile links and texts in Chromium: no script of theirs runs, none asks elsewhere, none fails."""

from __future__ import annotations

import base64
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from sentiment_core.dashboard.app import TABS
from sentiment_core.dashboard.inputs import MAX_CHARACTERS
from tests.browser.site import Site, settle
from tests.reliability.reports import report

pytestmark = pytest.mark.browser

MARKUP = (
    "<img src=x onerror=\"window.hacked='{}'\"><script>window.hacked='{}'</script>"
    "<svg onload=\"window.hacked='{}'\">"
    "${{window.hacked='{}'}} {{{{window.hacked}}}} `${{window.hacked='{}'}}` \\u0027 C:\\users "
    "<a href=\"javascript:window.hacked='{}'\">x</a> <link rel=stylesheet href=http://example.org/x.css>"
)
"""What runs somewhere if a text is taken for HTML, a template or a script; it leaves where it stood."""


def markup(place: str) -> str:
    return MARKUP.replace("{}", place).replace("{{", "{").replace("}}", "}")


def coded(content: bytes) -> str:
    """As `figures.link.js` writes a text into the fragment."""
    deflated = zlib.compressobj(9, zlib.DEFLATED, -15)
    return base64.urlsafe_b64encode(deflated.compress(content) + deflated.flush()).decode().rstrip("=")


NO_TEXT = ", ".join(f"[type={kind}]" for kind in ("file", "checkbox", "radio", "range", "number"))
FIXED, RUN = "what takes no text", "Run, or user/name on the Hub"
NAMED = f"""(all) => all.map((one) =>
  one.readOnly || one.disabled ? ['{FIXED}', ''] : [one.ariaLabel, one.dataset.testid])"""
NAMES = ("tab", "run", "data", "review", "show", "__theme")
LINKS = {
    "a query": "?" + "&".join(f"{name}={quote(markup(name))}" for name in NAMES),
    "a text, and a fragment that is markup": f"?__theme=dark&text={quote(markup('text'))}#{markup('hash')}",
    "a name twice, nulls, JSON": f"?tab=examples&tab=%00&run=%ff&review=%ED%A0%80&show={quote('[' * 5000)}",
    "a fragment": f"#t={coded(markup('fragment').encode())}",
    "a fragment that is no text": f"#t={coded(bytes(range(256)))}",
    "a fragment that is not deflated": "#t=" + "A" * 24_000,
    "a bomb": f"#t={coded(bytes(17_000_000))}",
}


class Watched:
    """A page and what went wrong on it."""

    def __init__(self, page: Any, site: Site) -> None:
        self.page, self.site, self.wrong, self.seen = page, site, list[str](), Counter[str]()
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on(
            "console",
            lambda said: self.wrong.append(f"console: {said.text}") if said.type == "error" else None,
        )
        page.on(
            "request", lambda request: self.wrong.append(request.url) if self.foreign(request.url) else None
        )
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))

    def foreign(self, url: str) -> bool:
        return urlsplit(url).scheme not in ("data", "blob") and not url.startswith(self.site.url)

    def open(self, link: str) -> None:
        """In a document of its own; what the one before says on being left is no fault."""
        self.page.goto("about:blank")
        self.wrong.clear()
        self.page.goto(self.site.url + link)
        settle(self.page)

    def check(self, what: str) -> None:
        self.seen[what] += 1
        assert self.page.evaluate("window.hacked") is None, what
        assert self.wrong == [], what


@pytest.fixture(scope="module")
def watched(context: Any, site: Site) -> Iterator[Watched]:
    page = Watched(context.new_page(), site)
    yield page
    page.page.close()
    report("page", page.seen)


def test_hostile_links_open_the_page_and_nothing_else(watched: Watched) -> None:
    page = watched.page
    for name, link in LINKS.items():
        watched.open(link)
        assert len(page.locator("#review textarea").input_value()) <= MAX_CHARACTERS, name
        watched.check("link")


def test_hostile_texts_in_every_field_of_every_tab_stay_texts(watched: Watched, tmp_path) -> None:
    page = watched.page
    watched.open("")
    page.locator("#batch button").first.click()
    table = tmp_path / "<img src=x onerror=hacked=1>.csv"
    table.write_text(f'text,label\n"{markup("table").replace(chr(34), chr(34) * 2)}",1\n', encoding="utf-8")
    page.locator("#batch input[type=file]").set_input_files(table)
    page.locator("#batch-go").click()
    page.locator("#batch-summary", has_text="1 reviews").wait_for()
    watched.check("file")
    filled = {FIXED, RUN}  # a run with a slash opens the page anew, as the links above do with theirs
    for title in TABS.values():
        page.get_by_role("tab", name=title, exact=True).click()
        settle(page)
        fields = page.locator(f"input:visible:not({NO_TEXT}), textarea:visible")
        while True:  # what one is given may take others away, or bring some
            names = [name or f"{kind} of {title}" for name, kind in fields.evaluate_all(NAMED)]
            place = next((name for name in names if name not in filled), None)
            if place is None:
                break
            field = fields.nth(names.index(place))
            filled.add(place)  # once, if it stands on several tabs
            field.fill(markup(place.replace("'", "")))
            field.press("Enter")
            watched.check("field")
    settle(page)
    page.get_by_role("tab", name="Live", exact=True).click()
    page.locator("#review textarea").fill(markup("review"))
    page.locator("#ask").click()
    page.locator("#trace li", has_text="window.hacked").first.wait_for()
    watched.check("answer")
