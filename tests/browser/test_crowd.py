"""What a visitor sees when many are there, and when asking again before the last answer is complete."""

from __future__ import annotations

import time

import pytest
from gradio_client import Client

from sentiment_core.dashboard import serving
from sentiment_core.dashboard.serving import TOO_MANY
from sentiment_core.dashboard.tabs import batch
from tests.browser.site import Site, opened, settle
from tests.fake_artifacts import write_assets
from tests.fake_live import FakeClassifier, HeldClassifier

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def held_site(tmp_path_factory):
    """A site whose model is held until `HeldClassifier.go` is set; three may wait for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(serving.KINDS, "answers", serving.Kind(serving.Rank.ANSWER, 3, 300))
        patch.setattr(serving, "LOOK_AGAIN", 0.1)
        served = Site(write_assets(tmp_path_factory.mktemp("held"), n=60, pairs=10), HeldClassifier)
        yield served
        served.close()


@pytest.fixture
def held(held_site):
    """Not held when a test begins and ends."""
    HeldClassifier.go.set()
    yield held_site
    HeldClassifier.go.set()


@pytest.fixture(scope="module")
def asking(context, held_site):
    """One page for the tests that need no fresh one."""
    HeldClassifier.go.set()
    with opened(context) as page:
        page.goto(held_site.url)
        settle(page)
        page.locator("#trace h3", has_text="the base model").wait_for()  # the page asked by itself
        yield page


def ask(page, text: str) -> None:
    page.locator("#review textarea").fill(text)
    page.locator("#ask").click()


def test_who_waits_is_told_how_long_the_queue_is_and_who_cannot_is_told_to_return(
    page, context, held
) -> None:
    HeldClassifier.go.clear()
    program = Client(held.url, verbose=False, analytics_enabled=False)
    asked = [program.submit("A great film", api_name="/classify") for _ in range(2)]
    page.goto(held.address(text="A%20great%20film"))
    page.locator("#answers", has_text="2 visitors come before you").wait_for()
    looking = context.new_page()
    looking.goto(held.address(tab="confusion"))
    settle(looking)
    looking.get_by_role("tab", name="Live", exact=True).click()
    looking.locator("#answers .queue", has_text="3 visitors wait for answers").wait_for()
    looking.close()
    other = context.new_page()
    other.goto(held.address(text="A%20great%20film"))
    other.locator("#verdict", has_text=TOO_MANY).wait_for()
    other.get_by_role("tab", name="Confusion matrices", exact=True).click()
    other.locator("#matrix-after-notes", has_text="Threshold").wait_for()
    HeldClassifier.go.set()
    page.locator("#answers .num.positive").first.wait_for()
    assert [job.result(timeout=120)["fine_tuned_label"] for job in asked] == ["Positive"] * 2
    other.get_by_role("tab", name="Live", exact=True).click()
    other.locator("#ask").click()
    other.locator("#answers .num.positive").first.wait_for()
    other.close()
    program.close()
    assert page.errors == []


def test_a_full_queue_is_one_polite_sentence(asking, held) -> None:
    page = asking
    longest, held.demo._queue.max_size = held.demo._queue.max_size, 0
    try:
        ask(page, "A great film")
        page.get_by_test_id("toast-body").filter(has_text="busy. Please try again").first.wait_for()
    finally:
        held.demo._queue.max_size = longest
    assert "Max size" not in page.locator("body").inner_text()
    ask(page, "A great film")
    page.locator("#answers .num.positive").first.wait_for()


def test_asking_again_ends_the_older_question(asking, held) -> None:
    page = asking
    HeldClassifier.go.clear()
    ask(page, "great " * 60)
    page.locator("#answers", has_text="Reading").wait_for()
    ask(page, "A dreadful film")
    HeldClassifier.go.set()
    page.locator("#trace li", has_text="A dreadful film").wait_for()
    page.locator("#trace h3", has_text="the base model").wait_for()
    assert "great" not in page.locator("#trace").inner_text()
    assert page.errors == []


def test_an_answer_that_comes_before_its_question_is_confirmed_is_shown(asking, held) -> None:
    """The page then reads all the answer's messages at once, over one object, which they change in place."""
    page = asking
    ask(page, "A great film, seen twice")
    page.locator("#trace li", has_text="seen twice").wait_for()
    page.evaluate("figs.LOST = 1e9")  # without asking again
    HeldClassifier.go.clear()
    ask(page, "A film that is still read")
    page.locator("#answers", has_text="Reading").wait_for()

    def late(route) -> None:
        answer = route.fetch()
        time.sleep(0.5)
        route.fulfill(response=answer)

    page.route("**/queue/join*", late, times=1)
    ask(page, "A great film, seen twice")  # known, so that its answer comes in a few milliseconds
    page.locator("#trace li", has_text="seen twice").wait_for(timeout=20_000)


def test_a_batch_ends_when_its_visitor_leaves(context, tmp_path, monkeypatch) -> None:
    done: list[int] = []

    class Counted(FakeClassifier):
        def batches(self, texts, system):
            for step in super().batches(texts, system):
                done.append(len(step[0]))
                yield step

    monkeypatch.setattr(batch, "LOOK_AGAIN", 0.1)
    (path := tmp_path / "many.csv").write_text("text\n" + "great film\n" * 5000, encoding="utf-8")
    served = Site(write_assets(tmp_path / "assets", n=60, pairs=10), lambda run: Counted(run, wait=0.05))
    try:
        with opened(context) as page:
            page.goto(served.url)
            settle(page)
            page.locator("#batch button").first.click()
            page.locator("#batch input[type=file]").set_input_files(path)
            page.locator("#batch-chosen", has_text="5,000 rows").wait_for()
            page.locator("#batch-go").click()
            page.locator("#batch", has_text="of 5,000 texts by both models").wait_for()
        time.sleep(2)
        left = sum(done)
        time.sleep(1)
        assert 0 < sum(done) == left < 10_000
    finally:
        served.close()
