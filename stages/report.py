"""One page from every result, with tables and figures (ten seconds on two cores, no torch)."""

import argparse
from pathlib import Path

from medrobust.core.params.schema import load_params
from medrobust.core.runtime import run_stage, say


def main() -> None:
    """Collect, draw, write, and print the short table."""
    from medrobust.report.collect import Folders, collect
    from medrobust.report.page.page import Settings
    from medrobust.report.page.write import Outputs, write_report
    from medrobust.report.provenance.commit import built_on
    from medrobust.report.provenance.lineage import Lineage
    from medrobust.report.tables.detection import read_detection
    from medrobust.report.tables.ensemble import read_ensemble
    from medrobust.report.tables.explanations import read_explanations

    parser = argparse.ArgumentParser(description=__doc__)
    tables = ("robust_accuracy", "training", "confusion")
    read = ("prepared", "metrics", "plots", "tuned", "checkpoints")
    for name in ("code", *read, "predictions", "lock", "out", "figures", "vectors", *tables):
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, required=True)
    args = parser.parse_args()
    params = load_params()
    folders = Folders(*(getattr(args, name) for name in read))
    suites = {name: suite.norm for name, suite in params.attacks.suites.items()}
    lineage = Lineage.of(args.lock, "report")
    run = collect(folders, list(params.models), list(suites), lineage, params.ensemble.regime)
    read_ensemble(run, folders, params.ensemble.attacked, args.predictions)
    read_detection(run, folders, params.detect.cells(params.models))
    read_explanations(run, args.metrics, [name for name, model in params.models.items() if model.explain])
    report = params.report
    points = {name: getattr(args, name) for name in tables}
    products = [*(lineage.writers if lineage else ()), args.out, args.figures, args.vectors, *points.values()]
    settings = Settings(
        report.title, params.seed, params.split.strategy, report.confidence, suites,
        built_on(args.lock.parent, products),
    )  # fmt: skip
    outputs = Outputs(args.out, args.figures, args.vectors, points)
    say(write_report(run, settings, outputs, folders, report.sheet))


if __name__ == "__main__":
    run_stage(main, "report")
