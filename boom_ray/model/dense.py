"""Linear layers between pooling and normalisation, in sentence-transformers' form (its module Dense)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from boom_ray.config import DenseConfig
from boom_ray.errors import ModelError
from boom_ray.model.folder import read_json, write_json

WEIGHTS = "model.safetensors"
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class Dense(nn.Module):
    """activation(W x + b)."""

    def __init__(self, width: int, dimension: int, bias: bool, activation: str) -> None:
        """Make a layer from ``width`` to ``dimension`` with torch's first weights."""
        super().__init__()
        self.linear = nn.Linear(width, dimension, bias=bias)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """(n, width) float32 to (n, dimension) float32, computed in the type of the weights."""
        found: torch.Tensor = self.activation(self.linear(vectors.to(self.linear.weight.dtype)))
        return found.float()


def new_dense(config: DenseConfig, width: int) -> Dense:
    """A layer with first weights from torch's random state."""
    return Dense(width, config.dimension, config.bias, config.activation)


def load_dense(folder: Path) -> Dense:
    """Read a module's folder in float32.

    Raises:
        ModelError: files are missing or damaged, or the module has a form that cannot be trained here.
    """
    config = read_json(folder / "config.json")
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1].lower()
    odd = [key for key in ("module_input_name", "module_output_name") if config.get(key, "") not in _USUAL]
    if name not in ACTIVATIONS or config.get("use_residual") or odd:
        raise ModelError(
            f"{folder / 'config.json'}: a Dense module can be trained with one of {', '.join(ACTIVATIONS)} as its "
            f"activation, without residual, from sentence embedding to sentence embedding; this one is another."
        )
    layer = Dense(int(config["in_features"]), int(config["out_features"]), bool(config.get("bias", True)), name)
    try:
        layer.load_state_dict({key: value.float() for key, value in load_file(folder / WEIGHTS).items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"The weights of {folder} cannot be read: {error}. Copy the model again.") from error
    return layer


_USUAL = ("", None, "sentence_embedding")


def save_dense(layer: Dense, folder: Path) -> None:
    """Write a module's folder as sentence-transformers does."""
    folder.mkdir(exist_ok=True)
    kind = type(layer.activation)
    write_json(
        folder / "config.json",
        {
            "in_features": layer.linear.in_features,
            "out_features": layer.linear.out_features,
            "bias": layer.linear.bias is not None,
            "activation_function": f"{kind.__module__}.{kind.__name__}",
            "module_input_name": "sentence_embedding",
            "module_output_name": "sentence_embedding",
        },
    )
    tensors = {name: value.detach().float().contiguous() for name, value in layer.state_dict().items()}
    save_file(tensors, str(folder / WEIGHTS), metadata={"format": "pt"})
