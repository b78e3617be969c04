"""A real browser for tests: Chromium without a window, driven by Playwright."""

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SWITCHES = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
#: Milliseconds that a loaded machine may need for one step.
PATIENCE = 180_000


def launch(playwright: Playwright) -> Browser:
    """The Chromium of this machine; Playwright's own download is not needed."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES, timeout=PATIENCE)


class Tab:
    """One open page with the addresses that it requested and the messages and exceptions on its console."""

    def __init__(self, browser: Browser, file: Path | str, width: int, *, dark: bool = False) -> None:
        """Open a file or an address in a window of that width (a phone's below 600 pixels)."""
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            is_mobile=width < 600,
            color_scheme="dark" if dark else "light",
        )
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(file.as_uri() if isinstance(file, Path) else file)

    def evaluate(self, code: str) -> Any:
        """The value of a JavaScript expression; an exception in it fails the test."""
        return self.page.evaluate(code)

    def processor_times(self, events: list[str]) -> list[float]:
        """Milliseconds of processor time that the page's script takes for each JavaScript expression.

        Other processes of a loaded machine do not count, in contrast to `performance.now()`.
        """
        tools = self.page.context.new_cdp_session(self.page)
        tools.send("Performance.setTimeDomain", {"timeDomain": "threadTicks"})
        tools.send("Performance.enable")
        ends = [0.0]
        for code in ["0", *events]:
            self.page.evaluate(code)
            metrics = tools.send("Performance.getMetrics")["metrics"]
            ends += [1000 * metric["value"] for metric in metrics if metric["name"] == "ScriptDuration"]
        tools.detach()
        return [end - start for start, end in pairwise(ends[1:])]

    def paper(self, width: int) -> None:
        """Lay the page out as the printer would, on paper of that width in pixels."""
        self.evaluate("dispatchEvent(new Event('beforeprint')) && 0")
        self.page.set_viewport_size({"width": width, "height": 1000})
        self.page.emulate_media(media="print")

    def close(self) -> None:
        """Close the page and forget its state."""
        self.page.context.close()
