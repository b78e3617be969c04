"""Seconds from a click to the answer of `medrobust app`: `python benchmarks/app.py MODEL IMAGE`.

Starts the app, opens it in Chromium without a window (Playwright), uploads IMAGE, and then presses a key on the
slider of ε. Prints the time until the page shows the answer at that ε and, because other programs do not disturb
it, the processor time that the app took: medians and maxima, as a Markdown table. Ends with exit code 1 and the
text of the page if it shows another answer.
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

from playwright.sync_api import Page, TimeoutError, sync_playwright

from medrobust.app.attack_choices import attack_choices

#: Text of the answer, on one line.
ANSWER = "(document.querySelector('#shown .answer')?.textContent ?? '').replace(/\\s+/g, ' ')"
#: Milliseconds that a loaded machine may need for one step.
PATIENCE = 60_000


def main() -> None:
    """Measure an upload, and clicks on the slider of each attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument(
        "--attacks", nargs="+", choices=attack_choices(), default=["fgsm (Linf)", "pgd (Linf)", "pgd_l2 (L2)"]
    )
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
        report("upload", [timed(page, process, upload, f"{image.name} ")])
        slider = page.locator("#eps input[type=range]")
        for attack in attacks:
            page.locator("#attack input").click()
            page.get_by_role("option", name=attack, exact=True).click()
            page.locator("#attack").get_by_text(attack_choices()[attack].summary).wait_for()
            slider.focus()
            # The slider starts at 0.
            step = float(slider.get_attribute("step") or "nan")
            press = partial(page.keyboard.press, "ArrowRight")
            answers = [f"Attacked: {attack}, ε = {step * number:.3g} " for number in range(1, clicks + 1)]
            report(f"ε, {attack}", [timed(page, process, press, answer) for answer in answers])


def timed(page: Page, process: int, act: Callable[[], object], expected: str) -> tuple[float, float]:
    """Seconds until the answer on the page contains a text, and processor seconds that the app took.

    Exits with the text of the page if the answer has the text before the act, or does not get it.
    """
    if expected in page.evaluate(ANSWER):
        sys.exit(f"the page shows {expected!r} before the click")
    start, used = time.perf_counter(), processor_seconds(process)
    act()
    try:
        page.wait_for_function(f"expected => {ANSWER}.includes(expected)", arg=expected, polling=10)
    except TimeoutError:
        shown = " ".join(page.locator("#shown").inner_text().split())
        sys.exit(f"no answer with {expected!r} after {PATIENCE / 1000:g} s; the page shows: {shown}")
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
