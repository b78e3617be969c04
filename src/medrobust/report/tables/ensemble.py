"""Text and tables of the ensemble: its members, how it was fitted, and a comparison of all methods."""

from medrobust.report.run import SEPARATE, Run, name_of
from medrobust.report.tables.table import NONE, Table, number, ranged, with_interval

#: What each method does.
METHODS = {
    "equal": "all members have the same weight, and nothing is fitted",
    "convex": "the weighted mean of the members' probabilities, with the weights that minimise the log-loss",
    "stacking": (
        "logistic regression on the members' log-probabilities; its penalty is chosen by cross-validation over "
        "patients"
    ),
    "blending": (
        "logistic regression on the members' log-probabilities; its penalty is chosen on held-out patients"
    ),
}


def ensemble_text(run: Run) -> list[str]:
    """The selected method, how it was fitted, and which members it runs."""
    record = run.ensemble.record
    if "method" not in record:
        return []
    weights = record.get("weights", {})
    used = [name for name, weight in weights.items() if weight > 0]
    lines = [f"Selected method: {record['method']} ({METHODS[record['method']]})."]
    if record["method"] != "equal":
        share = record["robust_share"]
        objective = (
            "the larger of the clean and the attacked log-loss"
            if record["objective"] == "worst"
            else f"a log-loss with a weight of {share:.0%} on attacked and {1 - share:.0%} on clean images"
        )
        lines.append(
            f"It was fitted on {record['val_n']} validation images of {record['val_patients']} patients and "
            f"minimises {objective}. The attacked images come from the PGD of adversarial training, one image for "
            "all members. No test image was used, neither to fit nor to select the method."
        )
    if record.get("temperatures"):
        lines.append("First, each member's logits are divided by its temperature, fitted on the same images.")
    if len(used) == 1:
        others = " The other members are not run." if len(weights) > 1 else ""
        lines.append(f"Only {used[0]} has a non-zero weight, so this ensemble is that one model.{others}")
    elif unused := [name for name, weight in weights.items() if weight == 0]:
        lines.append(f"Members of weight 0, which are not run: {', '.join(unused)}.")
    if absent := record.get("absent_from_val"):
        lines.append(f"No validation image of {', '.join(absent)}: the fit has seen nothing of it.")
    return [*lines, *_separate_text(run)]


def _separate_text(run: Run) -> list[str]:
    """How much weaker an attack looks if every member gets an image of its own."""
    lines, model = [], run.ensemble.model
    separate = run.transferred(SEPARATE, *model)
    for (suite, eps), row in run.transferred(name_of(*model), *model).items():
        if other := separate.get((suite, eps)):
            one, each = (ranged(part["accuracy"], part["low"], part["high"]) for part in (row, other))
            lines.append(
                f"Under {suite} at ε {eps:g} the accuracy of the ensemble is {one} on "
                f"{run.ensemble.transfer['n']} images if one image is made for all members. If each member gets "
                f"an image of its own, as in the study that this project starts from, it is {each}. That is no "
                "attack on the ensemble."
            )
    return lines


def weights_table(run: Run) -> Table:
    """Each member's weight (a regression has none) and temperature."""
    record = run.ensemble.record
    weights, temperatures = record.get("weights", {}), record.get("temperatures", {})
    rows = [
        [
            name,
            number(weights[name]) if weights else "by regression",
            *([number(temperatures[name])] if temperatures else []),
        ]
        for name in record.get("members", weights)
    ]
    columns = ["member", "weight", *(["temperature"] if temperatures else [])]
    return Table("Members", columns, rows, "Fitted on validation images, clean and attacked.")


def methods_table(run: Run, confidence: float) -> Table:
    """Every method on validation patients that it was not fitted on, and on clean test images."""
    rows = []
    for name, record in run.ensemble.methods.items():
        label = f"{name} (selected)" if name == run.ensemble.record.get("method") else name
        if "not_fitted" in record:
            rows.append([label, *[NONE] * 6, f"not fitted: {record['not_fitted']}"])
            continue
        cells = [number(record.get(f"val_{key}")) for key in ("log_loss", "robust_log_loss", "balanced_accuracy")]
        cells += [with_interval(record, "test_balanced_accuracy"), with_interval(record, "test_accuracy")]
        rows.append([label, *cells, number(record.get("test_log_loss")), number(record.get("test_ece"))])
    columns = ["method", "validation log-loss", "validation log-loss, attacked", "validation balanced accuracy"]
    columns += ["test balanced accuracy", "test accuracy", "test log-loss", "test ECE"]
    note = (
        "Validation columns are cross-validated: no patient is evaluated by an ensemble that was fitted, or whose "
        "penalty was chosen, with images of this patient. Attacked: images made on the equal ensemble. Test "
        f"images are clean; brackets are {confidence:.0%} intervals over whole patients. Select a method by the "
        "validation columns: a selection by the test columns turns the test set into a validation set."
    )
    for name, record in run.ensemble.methods.items():
        if "val_missing" in record:
            note += f" No validation figures of {name}: {record['val_missing']}."
    return Table("Ensemble methods", columns, rows, note).with_warning(confidence, run.test_patients())
