"""Write a model as an ONNX file, and run such a file with onnxruntime."""

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.core.errors import UserError

#: Versions before 18 have no antialiased resizing; 20 is of 2023.
OPSET = 20
INPUT, OUTPUTS = "images", ("logits", "probabilities")
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_packages() -> None:
    """Raise a UserError that names the packages of the extra `onnx` which are not installed."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        found = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        raise UserError("export to ONNX", found, "Install the extra: pip install medrobust[onnx]")


class _WithProbabilities(nn.Module):
    """A model that returns logits and probabilities, each n×K."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(images)
        return logits, logits.softmax(1)


def write_onnx(model: nn.Module, example: Tensor, path: Path, facts: dict[str, str]) -> None:
    """Write a model with its preprocessing; number, height and width of the images stay free.

    Args:
        model: images n×C×H×W in [0, 1] to logits n×K, in eval mode on the CPU. For a model of patients C counts
            the channels of all images of a patient, and stays free too.
        example: images of the shape to trace with, n×C×H×W with n above 1.
        path: of the file. Its input is `images`, its outputs are `logits` and `probabilities`, n×K; all float32.
        facts: stored in the file's metadata.

    Raises:
        UserError: an extra is not installed, or the model has an operation that ONNX cannot express.
    """
    check_packages()
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        found = "a recurrent layer (the aggregate gru) cannot be exported with a free number of patients"
        raise UserError("export to ONNX", found, "Set patient.aggregate to mean, max or attention")
    import onnx
    from torch.onnx import OnnxExporterError

    free: Any = torch.export.Dim.DYNAMIC
    shape = {0: free, 2: free, 3: free} | ({1: free} if hasattr(model, "aggregate") else {})
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter, on versions of its own parts
            program = torch.onnx.export(
                _WithProbabilities(model).eval(), (example,), dynamo=True, dynamic_shapes=(shape,),
                input_names=[INPUT], output_names=list(OUTPUTS), opset_version=OPSET, verbose=False,
            )  # fmt: skip
    except OnnxExporterError as error:
        first = str(error.__cause__ or error).strip().splitlines()[0]
        remedy = "Use another backbone or aggregate, or the checkpoint with medrobust.load"
        raise UserError("export to ONNX", f"this model cannot be expressed in ONNX ({first})", remedy) from error
    assert program is not None
    proto = program.model_proto
    for node in proto.graph.node:  # stack traces, with paths of this machine
        del node.metadata_props[:]
    onnx.helper.set_model_props(proto, facts)
    onnx.save(proto, str(path))
    onnx.checker.check_model(str(path))


class OnnxModel:
    """An ONNX file on the CPU, with as many threads as torch has."""

    def __init__(self, path: Path) -> None:
        check_packages()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def probabilities(self, images: Tensor) -> np.ndarray:
        """Probabilities, float32 n×K, of images n×C×H×W in [0, 1]."""
        found: np.ndarray = self._session.run([OUTPUTS[1]], {INPUT: images.numpy()})[0]
        return found
