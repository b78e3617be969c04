"""The settings of a stage hold its own overrides and the code of its objectives, and nothing of other stages."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from medrobust.core.errors import UserError
from medrobust.core.params.schema import Params, load_params
from medrobust.core.params.training import TuneParams
from medrobust.core.records import write_json
from medrobust.training.objectives.inner import training_attack
from medrobust.training.objectives.pgd import scheduled
from medrobust.training.resolve import check_split, resolve_settings
from medrobust.training.settings import TrainingSettings, read_settings


@pytest.fixture
def params(root: Path) -> Params:
    return load_params(root / "presets" / "default.yaml")


def resolve(params: Params, backbone: str = "resnet34", **changes: Any) -> dict[str, TrainingSettings]:
    """The settings with some keys of adv, train, tune or the model replaced (`adv={"eps": 0.1}`)."""
    blocks = {"model": params.models[backbone], "train": params.train, "adv": params.adv, "tune": params.tune}
    for name, values in changes.items():
        blocks[name] = type(blocks[name]).model_validate({**blocks[name].model_dump(), **values})
    return resolve_settings(backbone, **blocks)  # type: ignore[arg-type]


def changed(params: Params, **changes: Any) -> set[str]:
    one, two = resolve(params), resolve(params, **changes)
    return {stage for stage in one if one[stage] != two[stage]}


def test_a_change_affects_only_the_stages_that_depend_on_it(params: Params) -> None:
    assert changed(params) == set()
    assert changed(params, adv={"eps": 0.005}) == {"adv_train"}
    assert changed(params, model={"adv": {"eps": 0.005}}) == {"adv_train"}
    assert changed(params, adv={"objective": "trades"}) == {"adv_train"}
    assert changed(params, tune={"epochs": 9}) == {"tune"}
    assert changed(params, model={"tune": {"trials": 9}}) == {"tune"}
    assert changed(params, model={"train": {"lr": 1e-5}}) == {"tune", "train", "adv_train"}
    assert changed(params, train={"objective": "gce"}) == {"tune", "train", "adv_train"}
    assert changed(params, model={"detect": ["adv"], "explain": False}) == set(), (
        "these stages come after training"
    )
    robust = resolve(params, tune={"objective": "robust"})["tune"]
    assert robust.adv == params.adv.model_copy(update=params.models["resnet34"].adv)
    assert resolve(params, tune={"objective": "robust"}, adv={"eps": 0.5})["tune"] != robust


def test_settings_are_read_as_they_were_written(params: Params, tmp_path: Path) -> None:
    for name, settings in resolve(params, "efficientnet_b0").items():
        write_json(tmp_path / f"{name}.json", settings.model_dump())
        assert read_settings(tmp_path / f"{name}.json") == settings


def test_what_an_objective_needs_is_checked_before_any_training(params: Params) -> None:
    with pytest.raises(UserError, match=r"adv\.unlabelled: 0\.0 with objective ssat"):
        resolve(params, adv={"objective": "ssat"})
    with pytest.raises(UserError, match=r"adv\.unlabelled: 0\.5 with objective mixed"):
        resolve(params, adv={"unlabelled": 0.5})
    with pytest.raises(UserError, match=r"train\.objective: no objective 'mixed'"):
        resolve(params, train={"objective": "mixed"})
    for block in ("train", "adv"):
        changes: dict[str, Any] = {"train": {"label_smoothing": 0.1}}
        changes[block] = {**changes.get(block, {}), "objective": "gce"}
        with pytest.raises(UserError, match=r"train\.label_smoothing: 0\.1 with objective gce"):
            resolve(params, **changes)
    half = {"objective": "ssat", "unlabelled": 0.5}
    assert resolve(params, adv=half)["adv_train"].adv is not None
    with pytest.raises(UserError, match=r"tune\.objective: robust with ssat, but studies use labelled images"):
        resolve(params, adv=half, tune={"objective": "robust"})
    assert resolve(params, adv=half, model={"tune": {"objective": "robust", "trials": 0}})["tune"].adv is not None


def test_a_step_size_that_cannot_reach_eps_is_refused_before_any_training(params: Params) -> None:
    """Each objective is checked with its own number of steps; `adv.steps` is 2 and eps is 0.02."""
    for objective in ("mixed", "pgd_at", "curriculum", "trades", "mart", "ssat"):
        changes = {"objective": objective, "alpha": 0.009, "unlabelled": 0.5 if objective == "ssat" else 0.0}
        found = rf"adv\.alpha: the training attack of {objective} reaches 0\.009 x 2 = 0\.018 of eps 0\.02"
        with pytest.raises(
            UserError, match=f"{found}.*Set alpha: auto, a larger alpha, more steps, or allow_weak: true$"
        ):
            resolve(params, adv=changes)
        resolve(params, adv={**changes, "alpha": 0.01})
    one = r"training attack of fgsm_rs reaches 0\.01 x 1 = 0\.01 of eps 0\.02.*auto, a larger alpha, or allow_weak"
    with pytest.raises(UserError, match=one):
        resolve(params, adv={"objective": "fgsm_rs", "alpha": 0.01})
    resolve(params, adv={"objective": "fgsm_rs", "alpha": 0.025})


def test_a_step_size_that_cannot_reach_eps_is_an_explicit_choice(params: Params) -> None:
    """Study one's ResNet row: eps 0.2, alpha 1e-4, five steps."""
    row = {"eps": 0.2, "alpha": 1e-4, "steps": 5}
    with pytest.raises(UserError, match=r"0\.0001 x 5 = 0\.0005 of eps 0\.2"):
        resolve(params, adv=row)
    block = resolve(params, adv={**row, "allow_weak": True})["adv_train"].adv
    assert block is not None
    assert training_attack(block).step_size == 1e-4


@pytest.mark.parametrize("objective", ["trades", "fgsm_rs", "n_fgsm", "free"])
def test_keys_that_the_attack_of_an_objective_does_not_read_are_refused(objective: str, params: Params) -> None:
    with pytest.raises(
        UserError, match=rf"adv\.eps_min: 0\.01 with objective {objective}, whose attack.*mixed, pgd_at"
    ):
        resolve(params, adv={"objective": objective, "eps_min": 0.01})
    with pytest.raises(UserError, match=r"adv\.random_start: False with objective"):
        resolve(params, adv={"objective": objective, "random_start": False})
    resolve(params, adv={"objective": "cross_entropy", "random_start": False})


def test_the_smallest_radius_is_at_most_the_largest(params: Params) -> None:
    with pytest.raises(ValidationError, match=r"adv\.eps_min 0\.03 is above adv\.eps 0\.02"):
        resolve(params, adv={"eps_min": 0.03})


def test_an_objective_without_a_ball_may_use_small_steps(params: Params) -> None:
    """Its robust validation uses auto unless it has `adv.steps` steps."""
    small = {"objective": "n_fgsm", "alpha": 0.001}
    assert resolve(params, model={"adv": small})["adv_train"].adv is not None
    with pytest.raises(UserError, match=r"models\.resnet34\.adv\.alpha: the PGD of robust validation reaches"):
        resolve(params, model={"adv": {**small, "val_steps": 2}})
    with pytest.raises(UserError, match=r"adv\.alpha: the PGD on which the ensemble is fitted reaches 0\.001 x 2"):
        resolve(params, adv=small)
    with pytest.raises(UserError, match=r"adv\.alpha: the PGD of robust validation reaches 0\.001 x 2"):
        resolve(params, adv={"objective": "cross_entropy", "alpha": 0.001})


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_epoch_of_a_curriculum_reaches_its_own_radius(share: float, steps: int, params: Params) -> None:
    """Therefore the settings are only checked for the last epoch."""
    adv = params.adv.model_copy(update={"eps": 0.02, "alpha": 0.02 / steps, "steps": steps, "ramp": 1.0})
    attack = training_attack(scheduled(adv, share))  # raises an error if it cannot reach eps
    assert attack.step_size * attack.steps >= attack.eps * 0.99999


def test_missing_files_are_refused_before_any_training(params: Params, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"models\.resnet34\.weights: w\.pth is not a file"):
        resolve(params, model={"weights": "w.pth"})
    with pytest.raises(UserError, match=r"adv\.unlabelled: .*/more is not a folder"):
        resolve(params, adv={"objective": "ssat", "unlabelled": str(tmp_path / "more")})
    assert all(not settings.files for settings in resolve(params, model={"weights": "pretrained"}).values())


@pytest.mark.parametrize("sizes", [[1, 16], [0]])
def test_a_study_has_no_batches_of_one_image(params: Params, sizes: list[int]) -> None:
    with pytest.raises(ValidationError, match=r"space\.batch_size\.0\n.*greater than or equal to 2"):
        TuneParams.model_validate(
            {**params.tune.model_dump(), "space": {**params.tune.space.model_dump(), "batch_size": sizes}}
        )


def test_the_content_of_files_decides_the_stages_that_read_them(params: Params, tmp_path: Path) -> None:
    weights, folder = tmp_path / "w.pth", tmp_path / "more"
    (folder / "deep").mkdir(parents=True)
    weights.write_bytes(b"one")
    (folder / "deep" / "a.png").write_bytes(b"one")
    changes: dict[str, Any] = {
        "model": {"weights": str(weights)}, "adv": {"objective": "ssat", "unlabelled": str(folder)},
    }  # fmt: skip
    before = resolve(params, **changes)

    def changed_stages() -> set[str]:
        return {stage for stage, settings in resolve(params, **changes).items() if settings != before[stage]}

    assert changed_stages() == set()
    (folder / "deep" / "a.png").rename(folder / "deep" / "b.png")
    assert changed_stages() == {"adv_train"}
    write_json(tmp_path / "adv.json", before["adv_train"].model_dump())
    with pytest.raises(UserError, match=r"more: changed since .*adv\.json was written.*single-item settings`"):
        read_settings(tmp_path / "adv.json")
    weights.write_bytes(b"two")
    assert changed_stages() == {"tune", "train", "adv_train"}


@pytest.mark.parametrize("block", ["train", "adv"])
def test_an_objective_for_more_classes_than_the_data_have_is_refused(
    params: Params, tmp_path: Path, block: str
) -> None:
    split = tmp_path / "split.csv"
    changes: dict[str, Any] = {block: {"objective": "gce"}}
    resolved = resolve(params, **changes)
    split.write_text("id,split,label\na,train,x\nb,train,y\nc,val,z\n")
    check_split(resolved, split)
    split.write_text("id,split,label\na,train,x\nb,train,y\nc,val,y\n")
    message = rf"{block}\.objective: needs 3 classes or more, .*split\.csv has 2\. Use another objective"
    with pytest.raises(UserError, match=message):
        check_split(resolved, split)
    check_split(resolve(params), split)


def test_unlabelled_images_of_the_split_must_exist(params: Params, tmp_path: Path) -> None:
    settings = resolve(params, adv={"objective": "ssat", "unlabelled": "split"})
    assert settings["adv_train"].files == {}
    split = tmp_path / "split.csv"
    split.write_text("id,split,label,reason\n1,train,a,\n2,train,b,\n")
    with pytest.raises(UserError, match=r"adv\.unlabelled: split, but .* no unlabelled image.*Set split\.counts"):
        check_split(settings, split)
    split.write_text("id,split,label,reason\n1,unlabelled,a,\n2,train,b,\n")
    check_split(settings, split)
