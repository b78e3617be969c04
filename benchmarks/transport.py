"""Measure how long one cell takes through an object store, against the number of entries in DVC's run cache.

    python -m benchmarks.transport                  # 10, 100 and 300 entries

A worker pushes a cell (`dvc push --run-cache`), and the head, which has neither its results nor its entry in
dvc.lock, gets them (`dvc fetch --run-cache`, `dvc repro --pull`). The store is moto's S3 server on this machine,
so the times have no network in them. The other entries of the run cache have an output of 1 kB each. `again` is a
push of what the store has already, which is what each further cell costs. `checkout` is the copy from a cache in a
folder, to compare with. Seconds are of the clock and, in brackets, of the processor. The last line says whether a
cell comes back that has a metric outside DVC's cache (`cache: false`). Needs the extras s3 and dev.
"""

import argparse
import hashlib
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from medrobust.core.runtime import say

CELL = """
import random, sys
from pathlib import Path
draw = random.Random(1)
Path("result").write_bytes(b"".join(draw.randbytes(10**6) for _ in range(int(sys.argv[1]))))
Path("metrics.json").write_text("{}")
"""
KEYS = {
    "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1",
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}  # fmt: skip


def run(folder: Path, *command: str) -> tuple[str, str]:
    """What a command prints, and its seconds."""
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **KEYS}, capture_output=True, text=True, check=False
    )
    taken, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, f"{taken:.1f} ({processor:.1f})"


def make_repository(folder: Path, endpoint: str, bucket: str, size: int, *, metric: bool) -> None:
    """A repository with one stage, whose result has `size` MB, with or without a metric; and a remote."""
    folder.mkdir()
    (folder / "cell.py").write_text(CELL)
    stage: dict[str, Any] = {"cmd": f"python cell.py {size}", "deps": ["cell.py"], "outs": ["result"]}
    if metric:
        stage["metrics"] = [{"metrics.json": {"cache": False}}]
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"cell": stage}}))
    run(folder, "dvc", "init", "--quiet", "--no-scm")
    run(folder, "dvc", "remote", "add", "--default", "store", f"s3://{bucket}/medrobust")
    run(folder, "dvc", "remote", "modify", "store", "endpointurl", endpoint)


def add_entries(cache: Path, count: int) -> None:
    """Add records of other runs, each with an output of its own in the cache."""
    for number in range(count):
        content = f"{number:1000}".encode()
        md5, key = hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest()
        out = {"path": f"out{number}", "hash": "md5", "md5": md5, "size": len(content)}
        for path, text in (
            (cache / "files" / "md5" / md5[:2] / md5[2:], content),
            (
                cache / "runs" / key[:2] / key / key,
                yaml.safe_dump({"cmd": f"run {number}", "outs": [out]}).encode(),
            ),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)


def measure(
    folder: Path, endpoint: str, bucket: str, entries: int, size: int, *, metric: bool = False
) -> tuple[list[str], bool]:  # fmt: skip
    """Seconds of each column of the table; whether the last one was a restoration."""
    worker, head = folder / "worker", folder / "head"
    for repository in (worker, head):
        make_repository(repository, endpoint, bucket, size, metric=metric)
    run(worker, "dvc", "repro", "--quiet", "--single-item", "cell")
    add_entries(worker / ".dvc" / "cache", entries - 1)
    (worker / "result").unlink()
    times = [run(worker, "dvc", "checkout", "--quiet", "cell")[1]]
    times += [run(worker, "dvc", "push", "--quiet", "--run-cache", "cell")[1] for _ in range(2)]
    times.append(run(head, "dvc", "fetch", "--quiet", "--run-cache", "cell")[1])
    said, taken = run(head, "dvc", "repro", "--pull", "--single-item", "cell")
    return [*times, taken], "is cached - skipping run" in said


def main() -> None:
    """Print the table."""
    import boto3
    from moto.server import ThreadedMotoServer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[10, 100, 300])
    parser.add_argument("--size", type=int, default=40, help="MB of the cell's result")
    args = parser.parse_args()
    os.environ.update(KEYS)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line per request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        say(f"{args.size} MB, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
        say(
            "| entries | checkout / s | push / s | push again / s | fetch / s | repro --pull / s |\n|" + 6 * "--:|"
        )
        client = boto3.client("s3", endpoint_url=endpoint)
        for entries in args.entries:
            client.create_bucket(Bucket=f"entries{entries}")
            with tempfile.TemporaryDirectory() as folder:
                times, restored = measure(Path(folder), endpoint, f"entries{entries}", entries, args.size)
            assert restored
            say(f"| {entries} | {' | '.join(times)} |")
        client.create_bucket(Bucket="metric")
        with tempfile.TemporaryDirectory() as folder:
            _, restored = measure(Path(folder), endpoint, "metric", 1, 1, metric=True)
        say(f"\nA cell with a metric outside the cache is {'restored' if restored else 'computed again'}.")
        say(f"load at the end {os.getloadavg()[0]:.1f}")
    finally:
        server.stop()


if __name__ == "__main__":
    main()
