"""Hostile links and texts in Chromium: no script of theirs runs, none asks elsewhere, none fails."""

import base64
import zlib
from urllib.parse import quote

import pytest

from sentiment_core.dashboard.app import TABS
from sentiment_core.dashboard.inputs import MAX_CHARACTERS
from tests.browser.site import settle

pytestmark = pytest.mark.browser


def markup(place):
    """What runs somewhere if a text is taken for HTML, a template or a script; it leaves where it stood."""
    return (
        "<img src=x onerror=\"window.hacked='PLACE'\"><script>window.hacked='PLACE'</script>"
        "<svg onload=\"window.hacked='PLACE'\">"
        "${window.hacked='PLACE'} {{window.hacked}} `${window.hacked='PLACE'}` \\u0027 C:\\users "
        "<a href=\"javascript:window.hacked='PLACE'\">x</a> "
        "<link rel=stylesheet href=http://example.org/x.css>"
    ).replace("PLACE", place)


def coded(content):
    """As `figures.link.js` writes a text into the fragment."""
    deflated = zlib.compress(content, wbits=-15)
    return base64.urlsafe_b64encode(deflated).decode().rstrip("=")


FIELDS = "input:read-write:not([type=number]):visible, textarea:read-write:visible"
LABELS = "(all, title) => all.map((one) => one.ariaLabel || `${one.dataset.testid} of ${title}`)"
NAMES = ("tab", "run", "data", "review", "show", "__theme")
LINKS = (
    "?" + "&".join(f"{name}={quote(markup(name))}" for name in NAMES),
    f"?__theme=dark&text={quote(markup('text'))}#{markup('hash')}",
    f"?tab=examples&tab=%00&run=%ff&review=%ED%A0%80&show={quote('[' * 5000)}#t={coded(bytes(range(256)))}",
    f"?tab=live#t={coded(markup('fragment').encode())}",
    "?tab=live#t=" + "A" * 24_000,  # not deflated
    f"#t={coded(bytes(17_000_000))}",  # a bomb
)


def check_harmless(page, site, what):
    foreign = [url for url in page.asked if not url.startswith((site.url, "data:", "blob:"))]
    assert (page.evaluate("window.hacked"), page.errors, page.said, foreign) == (None, [], [], []), what


def test_hostile_links_open_the_page_and_nothing_else(page, site, record_property):
    for link in LINKS:
        page.goto(site.url + link)
        settle(page)
        assert len(page.locator("#review textarea").input_value()) <= MAX_CHARACTERS, link
        check_harmless(page, site, link)
        page.goto("about:blank")  # so that the next one, too, is a document of its own
        page.errors.clear(), page.said.clear()
    record_property("page", {"link": len(LINKS)})


def test_hostile_texts_in_every_field_of_every_tab_stay_texts(page, site, tmp_path, record_property):
    page.goto(site.url)
    settle(page)
    page.locator("#batch button").first.click()
    table = tmp_path / "<img src=x onerror=hacked=1>.csv"
    table.write_text(f'text,label\n"{markup("table").replace(chr(34), chr(34) * 2)}",1\n', encoding="utf-8")
    page.locator("#batch input[type=file]").set_input_files(table)
    page.locator("#batch-go").click()
    page.locator("#batch-summary", has_text="1 texts").wait_for()
    check_harmless(page, site, "file")
    filled = {"Run, or user/name on the Hub"}  # one with a slash opens the page anew, as the links above do
    for title in TABS.values():
        page.get_by_role("tab", name=title, exact=True).click()
        settle(page)
        fields = page.locator(FIELDS)  # what one is given may take others away, or bring some
        while new := [one for one in enumerate(fields.evaluate_all(LABELS, title)) if one[1] not in filled]:
            number, place = new[0]
            filled.add(place)  # once, if it stands on several tabs
            (field := fields.nth(number)).fill(markup(place.replace("'", "")))
            field.press("Enter")
            check_harmless(page, site, place)
    settle(page)
    page.get_by_role("tab", name="Live", exact=True).click()
    page.locator("#review textarea").fill(markup("review"))
    page.locator("#ask").click()
    page.locator("#trace li", has_text="window.hacked").first.wait_for()
    check_harmless(page, site, "answer")
    record_property("page", {"file": 1, "field": len(filled) - 1, "answer": 1})
