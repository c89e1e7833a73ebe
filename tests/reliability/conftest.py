"""The browser's fixtures."""

from tests.browser.conftest import chromium, context, site  # noqa: F401
