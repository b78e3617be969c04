"""One page from every result: report/index.html, report/results.md, plots/report (seconds, no torch)."""

import argparse
from pathlib import Path

from medrobust.params.schema import load_params
from medrobust.records import atomic_dir
from medrobust.runtime import run_stage, say


def main() -> None:
    """Collect, draw, write, and print the short table."""
    from medrobust.report.collect import collect
    from medrobust.report.detection import read_detection
    from medrobust.report.figures import draw_all
    from medrobust.report.page import Settings, render_html, render_markdown
    from medrobust.report.tables import plain, short_table

    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("header", "metrics", "plots", "tuned", "out", "figures"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    params = load_params()
    run = collect(
        args.header, args.metrics, args.plots, args.tuned, list(params.models), list(params.attacks.suites)
    )
    read_detection(run, args.metrics, params.detect.cells())
    report = params.report
    settings = Settings(report.title, params.seed, params.split.strategy, params.adv.eps, report.confidence)
    with atomic_dir(args.figures) as folder, atomic_dir(args.out) as out:
        figures = draw_all(run, folder, params.adv.eps)
        (out / "index.html").write_text(render_html(run, figures, settings), encoding="utf-8")
        (out / "results.md").write_text(render_markdown(run, settings), encoding="utf-8")
        short = plain(short_table(run, params.adv.eps))
        (out / "summary.txt").write_text(short + "\n", encoding="utf-8")
    say(short)


if __name__ == "__main__":
    run_stage(main, "report")
