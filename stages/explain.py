"""Explain what a backbone's models look at, and how an attack changes it (some seconds per model on two cores)."""

import argparse
from pathlib import Path

from medrobust.core.code import read_entries
from medrobust.core.lineage import MADE_ON, check_made_on, suite_hash
from medrobust.core.params.schema import load_params
from medrobust.core.records import read_json, read_table, write_empty
from medrobust.core.runtime import device, run_stage


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml; of two kinds of training, the clean one comes first."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("switch", "prepared", "split", "suite"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("models", "predictions", "records", "metrics", "tables", "plots"):
        parser.add_argument(f"--{name}", type=Path, nargs=2, metavar=("CLEAN", "ADV"), required=True)
    parser.add_argument("--backbone", required=True)
    return parser.parse_args()


def main() -> None:
    """Explain the clean and the adversarially trained model; write empty outs if `models.B.explain` is off."""
    if not read_json(args.switch)["explain"]:
        write_empty(*args.metrics, *args.tables, *args.plots)
        return
    from medrobust.attacks.engine.suite import read_suite
    from medrobust.data.store import open_splits
    from medrobust.explain.explained_model import ExplainedModel
    from medrobust.explain.run import ExplanationOutputs, explain_model
    from medrobust.models.card import weights_hash
    from medrobust.models.checkpoint import load

    params, images, suite = load_params(), open_splits(args.prepared, args.split), read_suite(args.suite)
    test, train = images.subset("test"), images.subset("train")
    for number, folder in enumerate(args.models):
        made_on = {"weights": weights_hash(folder), **images.hashes}
        predictions, attempts = read_table(args.predictions[number]), read_table(args.records[number])
        check_made_on(args.predictions[number], predictions.attrs.get(MADE_ON), made_on)
        expected = {**made_on, "suite": suite_hash(suite)}
        check_made_on(args.records[number], attempts.attrs.get(MADE_ON), expected)
        explained = ExplainedModel(
            model=load(folder, device()),
            test=test,
            train=train,
            suite=suite,
            predictions=predictions[predictions["split"] == "test"],
            attempts=attempts,
            cells=params.explain.grid,
            seed=params.seed,
        )
        out = ExplanationOutputs(args.metrics[number], args.tables[number], args.plots[number])
        hashes = {**made_on, "suites": {suite["name"]: expected["suite"]}}
        explain_model(explained, out, params=params.explain, report=params.report, made_on=hashes)


if __name__ == "__main__":
    args = parse()
    run_stage(main, f"explain-{args.backbone}", entries=read_entries(args.suite / "suite.json"))
