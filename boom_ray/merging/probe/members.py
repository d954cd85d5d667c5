"""Members as models that run: loaded from their folders, with their parameters named as the tensors of their files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from boom_ray.config import ModelConfig
from boom_ray.errors import MergeError
from boom_ray.merging.reading.checkpoint import Checkpoint, open_checkpoint
from boom_ray.merging.recipe import MemberRef
from boom_ray.model.encoder import PREFIX, Encoder, load_encoder
from boom_ray.model.folder import modules
from boom_ray.model.pooling import pooling_mode
from boom_ray.store import Store


@dataclass(frozen=True)
class Source:
    """A member and what it takes to run it.

    Attributes:
        member: the member.
        base: the base, for adapters over it.
        model: pooling, normalisation, gradient checkpointing; adapters have been folded into the weights.
    """

    member: MemberRef
    base: MemberRef | None
    model: ModelConfig

    @contextlib.contextmanager
    def opened(self, store: Store) -> Iterator[Checkpoint]:
        """The member's tensors; those of an adapter over the base are the folded ones."""
        with contextlib.ExitStack() as stack:
            base = None
            if self.base is not None:
                base = stack.enter_context(open_checkpoint(store.resolve(self.base.path), self.base.name))
            folder = store.resolve(self.member.path)
            yield stack.enter_context(open_checkpoint(folder, self.member.name, base))

    def identity(self, store: Store) -> dict[str, str | bool]:
        """How token states become an embedding, with the folder's pooling if the configuration names none."""
        with self.opened(store) as checkpoint:
            mode = pooling_mode(checkpoint.package_folder, self.model)
        return {"pooling": mode, "normalize": self.model.normalize}

    def fingerprints(self, store: Store) -> dict[str, str]:
        """What its weights follow from: its own fingerprint, and the base's if it is an adapter."""
        with self.opened(store) as checkpoint:
            is_adapter = len(checkpoint.layers) > 1
        found = {"member": self.member.fingerprint}
        return found | ({"base": self.base.fingerprint} if self.base and is_adapter else {})

    def load(self, store: Store, device: torch.device) -> Running:
        """The member as a model in float32, without dropout.

        Raises:
            ModelError: the folder has modules that cannot be run, or lacks tensors.
            MergeError: the file's tensors cannot be matched with the model's parameters.
        """
        with self.opened(store) as checkpoint:
            mode = pooling_mode(checkpoint.package_folder, self.model)
            config = self.model.model_copy(update={"lora": None, "dense": (), "frozen": (), "pooling": mode})
            encoder = load_encoder(checkpoint.layers[-1], config, dropout=0.0)
            keys = parameter_keys(encoder, checkpoint)
            if len(checkpoint.layers) > 1:  # an adapter: the model above is the base's
                with torch.no_grad():
                    for name, parameter in named_parameters(encoder):
                        parameter.copy_(read_tensor(checkpoint, keys[name]))
        encoder.train(config.gradient_checkpointing)  # transformers recomputes activations only in training mode
        return Running(encoder.to(device), keys)


@dataclass(frozen=True)
class Running:
    """A model that runs, and the keys of its parameters in the member's files, by their names in the encoder."""

    encoder: Encoder
    keys: Mapping[str, str]

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Key to parameter, of those that the loss can depend on."""
        return {self.keys[name]: one for name, one in named_parameters(self.encoder) if one.requires_grad}


def named_parameters(encoder: Encoder) -> list[tuple[str, torch.nn.Parameter]]:
    """Parameters of transformer and linear layers, tied ones once."""
    return list(encoder.named_parameters())


def parameter_keys(encoder: Encoder, checkpoint: Checkpoint) -> dict[str, str]:
    """Parameter to the key of its tensor; files of models with a head have a prefix before every name.

    Raises:
        MergeError: a parameter has no tensor of its name and shape.
    """
    infos = {(info.module, info.name): info for info in checkpoint.tensors.values()}
    inner = [name for module, name in infos if module == checkpoint.transformer]
    parameters = named_parameters(encoder)
    prefixes = ["", *sorted({name.split(".", 1)[0] + "." for name in inner if "." in name})]
    bare = [name.removeprefix(PREFIX) for name, _ in parameters if name.startswith(PREFIX)]
    prefix = max(prefixes, key=lambda one: sum((checkpoint.transformer, one + name) in infos for name in bare))
    folder = checkpoint.package_folder
    dense = [one.path.relative_to(folder).as_posix() for one in modules(folder) if one.kind == "Dense"]
    keys: dict[str, str] = {}
    for name, parameter in parameters:
        if name.startswith(PREFIX):
            place = (checkpoint.transformer, prefix + name.removeprefix(PREFIX))
        else:
            _, number, inside = name.split(".", 2)  # dense.NUMBER.linear.weight
            place = (dense[int(number)], inside)
        info = infos.get(place)
        if info is None or info.shape != tuple(parameter.shape):
            raise MergeError(
                f"Parameter {place[1]} of {checkpoint.label}, of shape {list(parameter.shape)}, is not in its files "
                f"under that name; save the model again with transformers {_transformers_version()} to look at it with "
                f"data."
            )
        keys[name] = info.key
    return keys


def read_tensor(checkpoint: Checkpoint, key: str) -> torch.Tensor:
    """One tensor as a copy in float32."""
    info = checkpoint.tensors[key]
    buffer = torch.empty(info.numel * 8, dtype=torch.uint8)
    return checkpoint.read(info, 0, info.numel, buffer).to(torch.float32, copy=True).view(info.shape)


def _transformers_version() -> str:
    from transformers import __version__

    return str(__version__)
