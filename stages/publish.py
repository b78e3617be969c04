"""Write a model folder to share: weights, guard, input, and a card with all results (seconds, no torch)."""

import argparse
from pathlib import Path
from typing import Any

from medrobust.core.params.schema import load_params
from medrobust.core.runtime import run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml: `--backbone` with two outs, or `--ensemble` (a folder) with one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone")
    parser.add_argument("--ensemble", type=Path)
    parser.add_argument("--regime", help="of the members of the ensemble")
    for name in ("checkpoints", "prepared", "metrics", "plots", "suites", "guards", "predictions", "lock"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("tuned", "patients"):
        parser.add_argument(f"--{name}", type=Path, help="of a backbone", default=Path())
    parser.add_argument("--out", type=Path, nargs="+", required=True)
    return parser.parse_args()


def main() -> None:
    """Collect the results of the model, and write its folders."""
    from medrobust.report.answers import read_answers
    from medrobust.report.collect import Folders, collect, collect_ensemble
    from medrobust.report.provenance import Provenance
    from medrobust.report.publish.model_cards import PublishedModel, publish, publish_ensemble
    from medrobust.report.publish.parts import Parts, Usage
    from medrobust.report.run import REGIMES, Patients
    from medrobust.report.scores import score_models
    from medrobust.report.tables.corruptions import read_corruption_records
    from medrobust.report.tables.external import read_external

    params = load_params()
    suites, confidence = params.attacks.suites, params.report.confidence
    folders = Folders(
        args.prepared, args.metrics, args.plots, args.tuned, args.checkpoints, args.predictions, suites=args.suites
    )
    usage = Usage(args.prepared, params.data, params.explain.grid, params.report.bootstrap, confidence)
    bootstrap: dict[str, Any] = {"resamples": params.report.bootstrap, "confidence": confidence}
    provenance = Provenance.of(args.lock)
    common: dict[str, Any] = {"suites": suites, "confidence": confidence, "usage": usage}
    if args.ensemble:
        run = collect_ensemble(folders, list(suites), args.regime, provenance)
        read_external(run, args.metrics, complete=False)
        read_answers(run, folders)
        score_models(run, **bootstrap)
        parts = Parts(args.guards / f"ensemble-{args.regime}")
        model = PublishedModel(run=run, backbone="ensemble", regime=args.regime, parts=parts, **common)
        publish_ensemble(model, args.ensemble, folders, args.out[0])
        return
    patients = Patients(tuple(params.patient.suites))
    run = collect(folders, [args.backbone], list(suites), provenance, patients=patients)
    read_corruption_records(run, args.metrics, [args.backbone])
    read_external(run, args.metrics, complete=False)
    read_answers(run, folders)
    score_models(run, **bootstrap)
    for regime, out in zip(REGIMES, args.out, strict=True):
        name = f"{args.backbone}-{regime}"
        table = f"{name}.parquet"
        parts = Parts(
            args.guards / name,
            args.patients / name,
            args.predictions / table,
            args.predictions / "patients" / table,
        )
        model = PublishedModel(run=run, backbone=args.backbone, regime=regime, parts=parts, **common)
        publish(model, folders, out)


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"publish-{args.backbone or 'ensemble'}")
