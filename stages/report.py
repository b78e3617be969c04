"""Write one page from all results, with tables and figures (ten seconds on two cores, no torch)."""

import argparse
from pathlib import Path
from typing import Any

from medrobust.core.errors import UserError
from medrobust.core.params.schema import load_params
from medrobust.core.records import read_json
from medrobust.core.runtime import run_stage, say


def main() -> None:
    """Collect, draw, write, and print the short table."""
    from medrobust.report.answers import read_answers
    from medrobust.report.collect import Folders, collect
    from medrobust.report.comparisons import compare_models, compare_under_corruptions
    from medrobust.report.page.sections import ReportSettings
    from medrobust.report.page.write import ReportOutputs, write_report
    from medrobust.report.provenance import Provenance
    from medrobust.report.repeated import read_repeated
    from medrobust.report.run import Ensemble, Patients
    from medrobust.report.sample_size import plan_sample
    from medrobust.report.scores import score_models
    from medrobust.report.tables.accuracy import attacks_text
    from medrobust.report.tables.corruptions import read_corruptions
    from medrobust.report.tables.detection import read_detection
    from medrobust.report.tables.explanations import read_explanations
    from medrobust.report.tables.external import read_external
    from medrobust.report.tables.groups import read_groups

    parser = argparse.ArgumentParser(description=__doc__)
    tables = ("robust_accuracy", "training", "confusion")
    read = (
        "prepared", "metrics", "plots", "tuned", "checkpoints", "predictions", "attacks", "scores", "suites",
        "audit", "code", "cases", "transferred",
    )  # fmt: skip
    for name in (*read, "cards", "chosen", "tables", "corrupted", "lock", "out", "figures", "vectors", *tables):
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, required=True)
    args = parser.parse_args()
    # DVC compares only hashes of these files, so a report that lacks some of them would count as complete.
    for path in map(Path, (*read_json(args.cards), *read_json(args.chosen), *read_json(args.tables))):
        if not path.is_file():
            raise UserError(str(path), "no such file", "Run `dvc pull`, then `dvc repro`")
    params = load_params()
    folders = Folders(*(getattr(args, name) for name in read))
    suites = params.attacks.suites
    ensemble = Ensemble(params.ensemble.regime, tuple(params.ensemble.attacked))
    patients = Patients(tuple(params.patient.suites))
    run = collect(folders, list(params.models), list(suites), Provenance.of(args.lock), ensemble, patients)
    read_answers(run, folders)
    report = params.report
    bootstrap: dict[str, Any] = {"resamples": report.bootstrap, "confidence": report.confidence}
    compare_models(run, **bootstrap)
    score_models(run, **bootstrap)
    read_repeated(run, args.metrics, [table.over for table in report.repeated], params.seed)
    run.sample = plan_sample(run, confidence=report.confidence)
    read_detection(run, folders, params.detect.cells(params.models))
    read_explanations(run, args.metrics, [name for name, model in params.models.items() if model.explain])
    corrupted = [name for name, model in params.models.items() if model.corrupt]
    read_corruptions(run, args.metrics, args.corrupted, corrupted, params.corruptions, report)
    compare_under_corruptions(run, **bootstrap)
    read_groups(run, args.prepared)
    read_external(run, args.metrics)
    settings = ReportSettings(
        report.title, params.seed, params.split.strategy, report.confidence,
        {name: suite.norm for name, suite in suites.items()},
        {name: attacks_text(suite) for name, suite in suites.items()}, params.study,
    )  # fmt: skip
    points = {name: getattr(args, name) for name in tables}
    outputs = ReportOutputs(args.out, args.figures, args.vectors, points)
    say(write_report(run, settings, outputs, folders, pictures=report.pictures))


if __name__ == "__main__":
    run_stage(main, "report")
