"""A compiled training is the plain one to rounding, in few graphs, and leaves the same files.

The loops over the registry trace and differentiate with torch.compile but run torch's own kernels (`aot_eager`);
what the fused kernels change is tested on a few objectives, for they take long to compile.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo import config as dynamo
from torch._dynamo.utils import counters
from torch._inductor import config as inductor

from medrobust.core.errors import UserError
from medrobust.core.params.training import ModelParams
from medrobust.models import checkpoint
from medrobust.models.build import build_classifier
from medrobust.training import compilation
from medrobust.training.loop import Job, Trainer, fit
from medrobust.training.objectives.registry import OBJECTIVES
from medrobust.training.state import TrainingState, resume_path
from tests.training.conftest import adv, make_job, settings, subset

#: A loss or gradient of fused kernels may differ by this share: they add in another order, and a pixel whose
#: gradient is all but zero may step the other way.
ROUNDING = 1e-3


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "OPTIONS", {"backend": "aot_eager"})


@pytest.fixture(autouse=True)
def _own_count() -> None:
    counters.clear()


def network() -> nn.Module:
    """What compilation may trip over: BatchNorm, dropout, and a last layer after both."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(16, 3),
    )  # fmt: skip


def pair(objective: str = "mixed", block: dict[str, Any] | None = None, **changes: Any) -> tuple[Job, Job]:
    """A plain and a compiled job: 44 images in batches of 16, so that the last batch is smaller."""
    data = subset(44, classes=3)
    options: dict[str, Any] = {"train": data, "val": data}
    if OBJECTIVES[objective].attacks:
        options["adv"] = adv(**{"replays": 2, "beta": 1.0, "attack_precision": "train", **(block or {})})
    if objective == "ssat":
        options["unlabelled"] = data
    plain = {"epochs": 2, "optimiser": "SGD", **changes}
    return (
        make_job(objective, model=network(), settings=settings(**plain), **options),
        make_job(objective, model=network(), settings=settings(**plain, compile=True), **options),
    )


def steps(job: Job, count: int = 2) -> list[torch.Tensor]:
    """Losses, then the gradients and all of the state dict, after some steps of full batches."""
    torch.manual_seed(3)
    epochs = Trainer(job, TrainingState.initial(job.model, job.settings))
    job.model.train()
    rows = np.arange(16)
    with compilation.compiling():
        losses = [epochs.update(epochs.step(0, rows, rows), 0, number) for number in range(count)]
    gradients = [parameter.grad for parameter in job.model.parameters() if parameter.grad is not None]
    return [torch.tensor(losses), *gradients, *job.model.state_dict().values()]


def assert_close(found: list[torch.Tensor], expected: list[torch.Tensor], share: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one.float(), other.float(), rtol=share, atol=share * float(other.abs().max()))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_compiles_into_few_graphs_and_trains_as_it_did(name: str, quick: None) -> None:
    plain, compiled = pair(name)
    expected, graphs = fit(plain).history, []
    found = fit(compiled, lambda *_: graphs.append(counters["stats"]["unique_graphs"])).history
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    assert_close(list(compiled.model.state_dict().values()), list(plain.model.state_dict().values()), 1e-5)
    assert 1 <= graphs[0] <= 3
    assert graphs[1] == graphs[0], "a later epoch compiles nothing"


@pytest.mark.parametrize("name", ["mixed", "trades"])
def test_every_choice_of_the_attack_compiles(name: str, quick: None) -> None:
    block = {"awp": 0.01, "batch_norm": "batch"}
    plain, compiled = (steps(job) for job in pair(name, block, precision="bf16"))
    assert_close(compiled, plain, 1e-5)
    assert counters["stats"]["unique_graphs"] <= 5
    assert not counters["graph_break"]


def test_full_batches_are_compiled_and_no_others(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    job = pair()[1]
    seen: list[tuple[int, bool]] = []
    epochs = Trainer(job, TrainingState.initial(job.model, job.settings))
    monkeypatch.setattr(
        epochs, "objective", lambda step: seen.append((len(step.images), step.model is epochs.fast))
    )
    monkeypatch.setattr(epochs, "update", lambda step, *_: epochs.objective(step) or 0.0)
    epochs.train_epoch(0)
    assert seen == [(16, True), (16, True), (12, False)]
    few = Trainer(replace(job, settings=settings(batch_size=256, compile=True)), epochs.state)
    assert few.step(0, np.arange(44), None).model is few.fast, "where all images are one batch, it is full"
    assert Trainer(pair()[0], epochs.state).fast is not epochs.fast


def test_a_graph_too_many_is_an_error_and_not_a_silent_return_to_slowness(quick: None) -> None:
    said = r"train\.compile: true, but torch cannot compile.*limit.*compile: false"
    with dynamo.patch(recompile_limit=1), pytest.raises(UserError, match=said):
        fit(pair()[1])


def test_a_network_of_several_graphs_is_an_error(quick: None) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            torch._dynamo.graph_break()
            logits: torch.Tensor = self.inner(images)
            return logits

    with pytest.raises(UserError, match=r"cannot compile this network here \(.*graph_break"):
        fit(replace(pair()[1], model=Broken()))


def test_a_machine_without_a_compiler_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with (
        inductor.patch({"cpp.cxx": (None, "no-such-compiler")}),
        pytest.raises(UserError, match=r"train\.compile: true, .*no-such-compiler.*Install a C\+\+ compiler"),
    ):
        fit(pair("cross_entropy")[1])


def test_many_trainings_of_one_process_stay_below_the_limit(quick: None) -> None:
    with dynamo.patch(recompile_limit=2):
        for batch_size in (8, 16, 20):  # as the trials of a study
            fit(pair(batch_size=batch_size, epochs=1)[1])


def test_no_file_of_a_compiled_training_knows_of_it(quick: None, tmp_path: Path) -> None:
    block = ModelParams(timm="resnet10t", weights="none", image_size=32)
    model = build_classifier(block, ["dark", "bright"])
    job = make_job(model=model, settings=settings(epochs=1, compile=True, ema=0.5), key="compiled")
    fit(job)
    content = torch.load(resume_path("compiled"), weights_only=True)
    names = set(build_classifier(block, ["dark", "bright"]).state_dict())
    assert set(content["model"]) == set(content["result"]["best_state"]) == names
    assert {name.removeprefix("module.") for name in content["average"]} == names | {"n_averaged"}
    checkpoint.save(tmp_path / "m", model, block, {})
    images = job.train.batch(range(4))
    with torch.no_grad():
        assert torch.equal(checkpoint.load(tmp_path / "m")(images), model.eval()(images))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "changes"), [("mixed", {"precision": "bf16"}), ("trades", {}), ("free", {})])
def test_fused_kernels_give_the_losses_and_gradients_of_the_plain_ones(name: str, changes: dict[str, Any]) -> None:
    plain, compiled = (steps(job) for job in pair(name, {"awp": 0.01}, **changes))
    assert_close(compiled, plain, 0.02 if changes else ROUNDING)


@pytest.mark.slow
def test_a_killed_compiled_training_ends_as_an_undisturbed_one() -> None:
    def kill(epoch: int, value: float) -> None:
        if epoch == 0:
            raise KeyboardInterrupt

    whole = replace(pair()[1], key="whole")
    expected = fit(whole)
    with pytest.raises(KeyboardInterrupt):
        fit(replace(pair()[1], key="cut"), kill)
    again = replace(pair()[1], key="cut")
    assert fit(again).history == expected.history
    for one, other in zip(again.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def epoch_on(device: str) -> None:
    """An epoch of everything that a GPU is used for: compiled, bf16, channels last, images on the device."""
    plain, compiled = pair(precision="bf16", epochs=1)
    found = []
    for job in (plain, compiled):
        images = job.train.resident(device, free=2**30)
        assert images.on_device is not None
        assert images.on_device.pixels.device.type == torch.device(device).type
        model = job.model.to(device).to(memory_format=torch.channels_last)
        found.append(fit(replace(job, model=model, train=images, val=images)).history[0])
    assert found[1]["loss"] == pytest.approx(found[0]["loss"], rel=0.05)
    assert counters["stats"]["unique_graphs"] == 2


@pytest.mark.slow
def test_an_epoch_with_all_that_a_gpu_is_used_for_runs_on_a_cpu_too() -> None:
    epoch_on("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_epoch_on_a_gpu() -> None:
    epoch_on("cuda")
