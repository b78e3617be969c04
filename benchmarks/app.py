"""Seconds from a click to the answer of `medrobust app`: `python benchmarks/app.py MODEL IMAGE`.

Starts the app, opens it in Chromium without a window (Playwright), uploads IMAGE, and then presses a key on the
slider of ε. Prints the time until the page has changed and, because other programs do not disturb it, the
processor time that the app took: medians and maxima, as a Markdown table.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from playwright.sync_api import Page, sync_playwright

ANSWER = "document.querySelector('#shown .answer')?.textContent ?? null"
#: Milliseconds that a loaded machine may need for one step.
PATIENCE = 180_000


def main() -> None:
    """Measure an upload, and clicks on the slider of each attack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--attacks", nargs="+", default=["fgsm (Linf)", "pgd (Linf)", "pgd_l2 (L2)"])
    parser.add_argument("--clicks", type=int, default=10)
    args = parser.parse_args()
    command = [sys.executable, "-m", "medrobust", "app", str(args.model), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as app:
        try:
            assert app.stdout is not None
            found = next(filter(None, (re.search(r"http://\S+:\d+", line) for line in app.stdout)))
            measure(found[0], app.pid, args.image, args.attacks, args.clicks)
        finally:
            app.terminate()


def measure(address: str, process: int, image: Path, attacks: Sequence[str], clicks: int) -> None:
    """Drive the page at an address and print the table."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        page = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]).new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        page.wait_for_selector("#file input[type=file]", state="attached")
        print("| event | clicks | seconds, median (max) | processor seconds, median (max) |\n|---|---|---|---|")
        upload = partial(page.set_input_files, "#file input[type=file]", image)
        report("upload", [timed(page, process, upload)])
        press = partial(page.keyboard.press, "ArrowRight")
        for attack in attacks:
            page.locator("#attack input").click()
            page.get_by_role("option", name=attack, exact=True).click()
            page.wait_for_timeout(3000)  # the slider is set to 0
            page.locator("#eps input[type=range]").focus()
            report(f"ε, {attack}", [timed(page, process, press) for _ in range(clicks)])


def timed(page: Page, process: int, act: Callable[[], object]) -> tuple[float, float]:
    """Seconds until the answer on the page has changed, and processor seconds that the app took."""
    before, start, used = page.evaluate(ANSWER), time.perf_counter(), processor_seconds(process)
    act()
    page.wait_for_function(f"before => {ANSWER} !== before", arg=before, polling=10)
    return time.perf_counter() - start, processor_seconds(process) - used


def processor_seconds(process: int) -> float:
    """Processor time of a process and all its threads since its start (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(name: str, measured: list[tuple[float, float]]) -> None:
    """Print one row."""
    wall, processor = zip(*measured, strict=True)
    cells = [f"{median(values):.2f} ({max(values):.2f})" for values in (wall, processor)]
    print(f"| {name} | {len(measured)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
