"""Each objective equals its paper's equation, computed here in another way; contract tests cover the registry."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrobust.attacks.methods.iterative import FGSM, PGD
from medrobust.core.errors import UserError
from medrobust.core.params.training import ModelParams
from medrobust.core.seeds import uniform
from medrobust.models.build import build_classifier
from medrobust.training.loop import fit
from medrobust.training.objectives.base import Step, load_objective
from medrobust.training.objectives.inner import (
    RADIUS_STREAM,
    attack_with_pgd,
    training_attack,
    validation_attack,
)
from medrobust.training.objectives.pgd import scheduled
from medrobust.training.objectives.registry import OBJECTIVES
from medrobust.training.objectives.trades import divergence
from medrobust.training.perturbation import perturbed_weights
from medrobust.training.resolve import find_objective
from tests.training.conftest import adv, make_job, network, settings, subset

WEIGHT = torch.tensor([0.5, 2.0])
ADVERSARIAL = [name for name, entry in OBJECTIVES.items() if entry.attacks]


def make_step(model: nn.Module | None = None, classes: int = 2, **changes: Any) -> Step:
    """A step with eight images and a network in eval mode, so that every pass gives the same logits."""
    data = subset(8, classes=classes)
    labels, images = data.targets(range(8)), data.batch(range(8))
    model = model or network(classes).eval()
    unlabelled = (images.flip(0), labels, torch.arange(8) + 50)
    parts = {"train": settings(), "adv": adv(), "unlabelled": unlabelled, **changes}
    return Step(model, images, labels, torch.arange(8), **parts)


def loss(name: str, step: Step) -> Tensor:
    return load_objective(OBJECTIVES[name])(step)


def cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """By the definition, per image."""
    weights = torch.ones(logits.shape[1]) if weight is None else weight
    terms = [weights[y] * (torch.logsumexp(z, 0) - z[y]) for z, y in zip(logits, labels.tolist(), strict=True)]
    return torch.stack(terms).sum() / weights[labels].sum()


def attacked(step: Step, **changes: Any) -> Tensor:
    options = {"eps": 0.05, "steps": 3, "stop_when_fooled": False, "keep": "last", **changes}
    return PGD(**options)(step.model, step.images, step.labels, seeds=step.seeds)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_gives_a_finite_gradient_and_does_not_change_the_model(name: str) -> None:
    model = network(3).train()
    before = {key: value.clone() for key, value in model.named_parameters()}
    step = make_step(model, classes=3)
    value = loss(name, step)
    value.backward()
    assert value.ndim == 0
    assert all(module.training for module in model.modules())
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        assert torch.equal(parameter, before[key])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_learns_in_the_loop_and_is_repeatable(name: str) -> None:
    data = subset(48, classes=3)
    options: dict[str, Any] = {"train": data, "val": data, "settings": settings(epochs=6, lr=0.03)}
    if OBJECTIVES[name].attacks:
        options["adv"] = adv(eps=0.01, replays=2, beta=1.0)
    if name == "ssat":
        options["unlabelled"] = data
    one = fit(make_job(name, model=network(3), **options))
    two = fit(make_job(name, model=network(3), **options))
    assert one.history == two.history
    assert max(row["val_balanced_accuracy"] for row in one.history) > 0.6


def test_cross_entropy_with_weights_and_smoothing() -> None:
    step = make_step(weight=WEIGHT)
    assert torch.allclose(loss("cross_entropy", step), cross_entropy(step.model(step.images), step.labels, WEIGHT))
    smooth = make_step(train=settings(label_smoothing=0.2))
    log_p = F.log_softmax(smooth.model(smooth.images), 1)
    target = 0.8 * F.one_hot(smooth.labels, 2) + 0.2 / 2
    assert torch.allclose(loss("cross_entropy", smooth), -(target * log_p).sum(1).mean())


def test_guided_complement_entropy() -> None:
    step = make_step(classes=3, train=settings(gce_alpha=0.25))
    terms = []
    for p, y in zip(F.softmax(step.model(step.images), 1).tolist(), step.labels.tolist(), strict=True):
        wrong = [p[j] / (1 - p[y]) for j in range(3) if j != y]
        terms.append(p[y] ** 0.25 * -sum(q * math.log(q) for q in wrong) / math.log(2))
    assert float(loss("gce", step)) == pytest.approx(-sum(terms) / 8, abs=1e-6)
    with pytest.raises(UserError, match="gce with 2 classes"):
        loss("gce", make_step())


def test_mixed_and_pgd_at() -> None:
    step = make_step(weight=WEIGHT)
    clean, hit = step.model(step.images), step.model(attacked(step))
    one, other = cross_entropy(clean, step.labels, WEIGHT), cross_entropy(hit, step.labels, WEIGHT)
    assert torch.allclose(loss("mixed", step), 0.7 * one + 0.3 * other, atol=1e-6)
    assert torch.allclose(loss("pgd_at", make_step(weight=WEIGHT)), other, atol=1e-6)
    assert other > one


@pytest.mark.parametrize("name", ["mixed", "pgd_at", "ssat", "mart", "curriculum"])
def test_each_image_has_a_radius_of_its_own(name: str) -> None:
    step = make_step(adv=adv(eps=0.06, eps_min=0.02, steps=4), classes=3 if name == "mart" else 2)
    loss(name, step)
    moved = (step._cache["adv"] - step.images).abs().flatten(1).amax(1)
    radii = 0.02 + 0.04 * uniform(step.seeds, RADIUS_STREAM, ())
    assert torch.allclose(moved, radii, atol=1e-6)
    assert len(set(moved.tolist())) == 8
    assert 0.02 <= float(moved.min()) < float(moved.max()) <= 0.06


def test_one_radius_for_all_equals_the_attack_without_a_range() -> None:
    """`eps_min: eps` draws eps for each image."""
    for changes in ({}, {"random_start": False, "steps": 1}, {"alpha": 0.02}):
        same = attack_with_pgd(make_step(adv=adv(eps_min=0.05, **changes)))
        assert torch.equal(same, attack_with_pgd(make_step(adv=adv(**changes))))


def test_one_step_without_a_random_start_is_fgsm() -> None:
    step = make_step(adv=adv(steps=1, random_start=False))
    expected = FGSM(eps=0.05, stop_when_fooled=False)(step.model, step.images, step.labels, seeds=step.seeds)
    assert torch.equal(attack_with_pgd(step), expected)
    assert not torch.equal(attack_with_pgd(make_step(adv=adv(steps=1))), expected)


def test_a_weak_training_attack_runs_if_it_is_allowed() -> None:
    step = make_step(adv=adv(eps=0.2, alpha=1e-4, steps=5, allow_weak=True, random_start=False))
    moved = (attack_with_pgd(step) - step.images).abs()
    assert 0 < float(moved.max()) <= 5e-4 + 1e-6


def test_the_curriculum_increases_radius_and_steps() -> None:
    grown = [scheduled(adv(ramp=0.5, steps=4, eps=0.04), share) for share in (0.125, 0.25, 0.5, 1.0)]
    assert [block.steps for block in grown] == [1, 2, 4, 4]
    assert [block.eps for block in grown] == pytest.approx([0.01, 0.02, 0.04, 0.04])
    assert scheduled(adv(ramp=0.0), 0.01).eps == 0.05
    step = make_step(progress=0.25, adv=adv(steps=4, eps=0.04))
    hit = step.model(attacked(step, eps=0.02, steps=2))
    expected = 0.7 * cross_entropy(step.model(step.images), step.labels) + 0.3 * cross_entropy(hit, step.labels)
    assert torch.allclose(loss("curriculum", step), expected, atol=1e-6)


def input_gradient(step: Step, images: Tensor) -> Tensor:
    images = images.clone().requires_grad_(True)
    F.cross_entropy(step.model(images), step.labels, reduction="sum").backward()
    assert images.grad is not None
    return images.grad


def test_fgsm_rs_is_one_long_step_from_a_random_start() -> None:
    step, eps = make_step(), 0.05
    noise = eps * (2 * uniform(step.seeds, 0, (1, 16, 16)) - 1)
    start = (step.images + noise).clamp(0, 1)
    moved = start + 1.25 * eps * input_gradient(step, start).sign()
    hit = (step.images + (moved - step.images).clamp(-eps, eps)).clamp(0, 1)
    value = loss("fgsm_rs", make_step())
    assert torch.allclose(value, cross_entropy(step.model(hit), step.labels), atol=1e-6)


def test_n_fgsm_is_noise_and_a_step_without_a_ball() -> None:
    step, eps = make_step(), 0.05
    start = (step.images + 2 * eps * (2 * uniform(step.seeds, 0, (1, 16, 16)) - 1)).clamp(0, 1)
    hit = (start + eps * input_gradient(step, start).sign()).clamp(0, 1)
    assert float((hit - step.images).abs().max()) > 2 * eps
    assert torch.allclose(loss("n_fgsm", make_step()), cross_entropy(step.model(hit), step.labels), atol=1e-6)


def test_free_updates_its_perturbation_by_the_gradient_of_the_weight_update() -> None:
    memory: dict[str, Tensor] = {}
    first = make_step(memory=memory)
    value = loss("free", first)
    assert torch.allclose(value, cross_entropy(first.model(first.images), first.labels))
    value.backward()
    second = make_step(memory=memory)
    delta = 0.05 * input_gradient(first, first.images).sign()
    hit = (second.images + delta).clamp(0, 1)
    assert torch.allclose(loss("free", second), cross_entropy(second.model(hit), second.labels), atol=1e-6)
    assert memory["delta"].abs().max() <= 0.05 + 1e-7


def test_trades_is_cross_entropy_and_beta_times_the_divergence() -> None:
    step = make_step(weight=WEIGHT, adv=adv(beta=3.0, steps=5))
    value = loss("trades", step)
    hit = step.cached("adv", lambda: pytest.fail("the attack was not cached"))
    p, q = (F.softmax(step.model(images), 1).double() for images in (step.images, hit))
    kl = (p * (p / q).log()).sum(1)
    expected = cross_entropy(step.model(step.images), step.labels, WEIGHT) + 3 * kl.mean()
    assert float(value) == pytest.approx(float(expected), abs=1e-5)
    distance = (hit - step.images).abs()
    assert float(distance.max()) == pytest.approx(0.05, abs=1e-6)
    # Its attack maximises the divergence and does better at it than the cross-entropy attack.
    other = divergence(step.model(step.images), step.model(attacked(step, steps=5)))
    assert float(kl.mean()) >= float(other.mean()) * 0.95


def test_the_attack_of_trades_does_not_use_labels() -> None:
    step, other = make_step(), make_step()
    other.labels = 1 - other.labels
    for one in (step, other):
        loss("trades", one)
    assert torch.equal(*(one.cached("adv", lambda: torch.zeros(1)) for one in (step, other)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_attack_of_trades_in_16_bits_changes_every_image_as_much_as_in_float32(dtype: torch.dtype) -> None:
    """16 bits alone do not distinguish the start from the image, so the first gradient would be 0."""
    model = network().eval()
    for parameter in model.parameters():
        parameter.data *= 3.0  # confident predictions, as of a trained model

    def kl(precision: str) -> Tensor:
        step = make_step(model, adv=adv(steps=4, attack_precision=precision))
        with torch.autocast("cpu", dtype):
            loss("trades", step)
        hit = step.cached("adv", lambda: pytest.fail("the attack was not cached"))
        assert float((hit - step.images).flatten(1).abs().amax(1).min()) == pytest.approx(0.05, abs=1e-6)
        return divergence(model(step.images), model(hit)).detach()

    assert torch.allclose(kl("train"), kl("fp32"), rtol=0.05)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_mart_is_boosted_cross_entropy_and_the_weighted_divergence(smoothing: float) -> None:
    step = make_step(classes=3, adv=adv(beta=5.0), train=settings(label_smoothing=smoothing))
    hit, terms = attacked(step), []
    clean, moved = (F.softmax(step.model(i), 1).tolist() for i in (step.images, hit))
    for p, q, y in zip(clean, moved, step.labels.tolist(), strict=True):
        targets = [smoothing / 3 + (1 - smoothing) * (k == y) for k in range(3)]
        bce = -sum(t * math.log(r) for t, r in zip(targets, q, strict=True))
        bce -= math.log(1 - max(q[k] for k in range(3) if k != y))
        kl = sum(p[k] * math.log(p[k] / q[k]) for k in range(3))
        terms.append(bce + 5.0 * kl * (1 - p[y]))
    assert float(loss("mart", step)) == pytest.approx(sum(terms) / 8, abs=1e-5)


def test_ssat_adds_attacked_pseudo_labelled_images() -> None:
    step = make_step(adv=adv(beta=2.0))
    assert step.unlabelled is not None
    images, labels, seeds = step.unlabelled
    hit = PGD(eps=0.05, steps=3, stop_when_fooled=False, keep="last")(step.model, images, labels, seeds=seeds)
    expected = loss("mixed", make_step()) + 2.0 * cross_entropy(step.model(hit), labels)
    assert torch.allclose(loss("ssat", step), expected, atol=1e-5)
    with pytest.raises(UserError, match="no unlabelled images for ssat"):
        loss("ssat", make_step(unlabelled=None))


@pytest.mark.parametrize("name", ["cross_entropy", "pgd_at", "trades", "free"])
def test_awp_perturbs_the_weights_along_the_gradient(name: str) -> None:
    step, gamma = make_step(), 0.05
    objective = load_objective(OBJECTIVES[name])
    gentle = objective(step)
    weights = {key: w for key, w in step.model.named_parameters() if w.ndim > 1}
    gradients = torch.autograd.grad(objective(step), list(weights.values()))
    before = {key: value.clone() for key, value in step.model.named_parameters()}
    with perturbed_weights(step, objective, gamma):
        for (key, weight), gradient in zip(weights.items(), gradients, strict=True):
            expected = before[key] + gamma * before[key].norm() * gradient / gradient.norm()
            assert torch.allclose(weight, expected, atol=1e-6)
        assert objective(step) > gentle
    assert all(torch.equal(value, before[key]) for key, value in step.model.named_parameters())


def test_awp_perturbs_parameters_named_weight_like_the_reference() -> None:
    """In a ViT neither class token nor position embeddings change, although both have three dimensions."""
    model = transformer()
    step, before = make_step(model, classes=3), {key: w.detach().clone() for key, w in model.named_parameters()}
    with perturbed_weights(step, load_objective(OBJECTIVES["cross_entropy"]), 0.05):
        moved = {key for key, w in model.named_parameters() if not torch.equal(w, before[key])}
    backbone = {key.rpartition("backbone.")[2] for key in moved}
    assert not [key for key in backbone if not key.endswith("weight")]
    assert not [key for key in backbone if "norm" in key]
    assert any("patch_embed" in key for key in backbone)
    assert any("cls_token" in key for key in before), "the network has parameters that must not change"
    assert any("pos_embed" in key for key in before)


def test_awp_does_not_change_running_statistics() -> None:
    step = make_step(network().train())
    before = step.model[1].running_mean.clone()  # type: ignore[index]
    with perturbed_weights(step, load_objective(OBJECTIVES["cross_entropy"]), 0.01):
        pass
    assert torch.equal(step.model[1].running_mean, before)  # type: ignore[index]


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_the_attack_uses_running_or_batch_statistics_as_set(name: str) -> None:
    def one(mode: str) -> tuple[Tensor, Tensor]:
        model = network(3).train()
        model[1].running_mean.fill_(0.3)  # type: ignore[index]
        step = make_step(model, classes=3, adv=adv(batch_norm=mode, steps=2))
        value = loss(name, step)
        return value.detach(), model[1].running_mean.clone()  # type: ignore[index]

    (eval_loss, eval_mean), (batch_loss, batch_mean) = one("eval"), one("batch")
    assert bool(eval_loss != batch_loss) == (name != "free")  # the attack of free has no pass of its own
    assert torch.allclose(eval_mean, batch_mean, atol=1e-3), "the attack changed the running statistics"


def test_the_attack_can_run_in_the_number_format_of_training() -> None:
    def attack(precision: str) -> Tensor:
        step = make_step(adv=adv(attack_precision=precision))
        with torch.autocast("cpu", torch.bfloat16):
            loss("pgd_at", step)
        return step.cached("adv", lambda: torch.zeros(1))

    exact, rough = attack("fp32"), attack("train")
    assert torch.equal(exact, attacked(make_step()))
    assert not torch.equal(exact, rough)
    model = make_step().model
    labels = make_step().labels
    losses = [float(F.cross_entropy(model(images), labels)) for images in (exact, rough)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


class Standardised(nn.Conv2d):
    """Computes with its weights in float32 before autocast casts them."""

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(network(3)[:3], Standardised(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 3))  # type: ignore[index]


def transformer() -> nn.Module:
    torch.manual_seed(0)
    block = {"timm": "vit_tiny_patch16_224", "weights": "none", "image_size": 16}
    return build_classifier(ModelParams.model_validate(block), ["a", "b", "c"])


@pytest.mark.parametrize("make", [convolutions, transformer])
@pytest.mark.parametrize("batch_norm", ["eval", "batch"])
def test_weights_are_cast_once_per_attack_with_the_result_of_autocast(
    make: Callable[[], nn.Module], batch_norm: str
) -> None:
    class Plain(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def train(self, mode: bool = True) -> "Plain":
            super().train(mode)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d) and batch_norm == "batch":
                    module.training, module.track_running_stats = True, False
            return self

        def forward(self, images: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                logits: Tensor = self.model(images)
            return logits.float()

    model, formats = make().train(), set()
    linear = next(module for module in model.modules() if type(module) is nn.Linear)
    linear.register_forward_hook(lambda layer, *_: formats.add(layer.weight.dtype))
    step = make_step(model, classes=3, adv=adv(attack_precision="train", batch_norm=batch_norm))
    with torch.autocast("cpu", torch.bfloat16):
        attacked_images = attack_with_pgd(step)
    assert formats == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    attack = training_attack(step.require_adv())
    plain = attack(Plain(make().train()), step.images, step.labels, seeds=step.seeds)
    assert torch.equal(attacked_images, plain)


def test_validation_of_single_step_training_takes_more_steps() -> None:
    assert validation_attack(adv(steps=1), single_step=True).steps == 10
    assert validation_attack(adv(steps=1), single_step=False).steps == 1
    assert validation_attack(adv(steps=3, alpha=0.03, val_steps=20), single_step=True).steps == 20
    chosen = validation_attack(adv(steps=3, alpha=0.03), single_step=False)
    assert (chosen.alpha, chosen.stop_when_fooled) == (0.03, True)
    assert training_attack(adv()).stop_when_fooled is False


def test_unknown_objectives_are_refused_with_a_list_of_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"adv\.objective: no objective 'pdg'.*mixed, pgd_at"):
        find_objective("pdg", "adv", attacks=True)
    with pytest.raises(UserError, match=r"train\.objective: no objective 'trades'. Known: cross_entropy, gce$"):
        find_objective("trades", "train", attacks=False)


def test_a_settings_file_cannot_run_other_code() -> None:
    entry = OBJECTIVES["mixed"].model_copy(update={"target": "os:abort"})
    with pytest.raises(UserError, match="no objective at 'os:abort'"):
        load_objective(entry)
