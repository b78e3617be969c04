"""Time how long `make repro` takes to find that the files of `data.path` are as they were.

    python benchmarks/content.py                    # 100,000 files of 2 kB in 100 folders, in a temporary folder
    python benchmarks/content.py --files 1000000 --folder /mnt/disk

It prints a Markdown table of wall-clock and CPU seconds: to hash all files, to find them unchanged, and to find
that one of them was edited.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from medrobust.core import content
from medrobust.core.runtime import say


def make_files(folder: Path, number: int, size: int) -> None:
    """Write files of random bytes that were last edited an hour ago."""
    before = time.time() - 3600
    for index in range(number):
        path = folder / f"{index % 100:02d}" / f"image_{index:07d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(size))
        os.utime(path, (before, before))


def timed(path: Path) -> tuple[float, float]:
    """Wall-clock and CPU seconds of one `content_hash`."""
    begin, processor = time.perf_counter(), time.process_time()
    content.content_hash(path)
    return time.perf_counter() - begin, time.process_time() - processor


def main() -> None:
    """Make the files, hash them, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=2048, help="bytes of each file")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        images = Path(name, "images")
        images.mkdir()
        content.CACHE = Path(name, "cache")
        make_files(images, args.files, args.size)
        time.sleep(content.YOUNG + 0.5)  # a file that was written a moment ago is read again
        rows = {"all hashed": timed(images), "unchanged": min(timed(images) for _ in range(3))}
        next(images.rglob("*.png")).write_bytes(b"edited")
        rows["one edited"] = timed(images)
    say(f"| {args.files} files | wall-clock seconds | CPU seconds |\n|---|---|---|")
    for what, (seconds, processor) in rows.items():
        say(f"| {what} | {seconds:.2f} | {processor:.2f} |")


if __name__ == "__main__":
    main()
