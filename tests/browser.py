"""An installed Chromium, headless, driven by Playwright; nothing is downloaded."""

import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from playwright.sync_api import Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

_QUIET = ("--disable-gpu", "--disable-background-networking", "--disable-component-update")


def find_chromium() -> str | None:
    """Return the browser's path, or None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page of a browser of its own; use as a context manager."""

    def __init__(self) -> None:
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(
            executable_path=find_chromium(), args=list(_QUIET), chromium_sandbox=False
        )
        self._page: Page | None = None

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._browser.close()
        self._playwright.stop()

    def open(self, page: Path, *, width: int, height: int = 844, dark: bool = False) -> float:
        """Show a page in a window of so many CSS pixels; return the seconds until it was loaded."""
        if self._page is not None:
            self._page.context.close()
        self._page = self._browser.new_context(
            viewport={"width": width, "height": height},
            is_mobile=width < 600,
            color_scheme="dark" if dark else "light",
            offline=True,
        ).new_page()
        self._page.goto(page.resolve().as_uri(), wait_until="load")
        return float(
            self.evaluate("performance.getEntriesByType('navigation')[0].loadEventStart / 1000")
        )

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        assert self._page is not None
        return self._page.evaluate(expression)

    def screenshot(self) -> bytes:
        """Return what is in view as JPEG."""
        assert self._page is not None
        return self._page.screenshot(type="jpeg", quality=80)
