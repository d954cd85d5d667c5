"""Members that are LoRA adapters over a base: their weights are formed when they are read, and stored nowhere.

A linear layer of such a member has the weights W + s·B·A, where W is the base's, A (r, inputs) and B (outputs, r) are
the adapter's and s is alpha/r, or alpha/sqrt(r) with rank stabilisation (Hu et al. 2021, arXiv 2106.09685, section 4.1;
Kalajdzievski 2023, arXiv 2312.03732). What else an adapter has trained (biases, ``modules_to_save``) replaces the
base's tensors. `boom_ray.merging.reading.adapter_names` says which file entry does what.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch

from boom_ray.errors import MergeError
from boom_ray.hashing import digest, file_digest
from boom_ray.merging.reading.adapter_names import Patch, plan_patches
from boom_ray.merging.reading.adapter_settings import AdapterSettings, read_settings
from boom_ray.merging.reading.checkpoint import Checkpoint, TensorInfo, list_tensors, read_header
from boom_ray.model.folder import ADAPTER, ADAPTER_CONFIG, modules, transformer_dir

TILE = 16
"""Products are computed in whole groups of so many rows: BLAS rounds some of other sizes differently, and what is read
must not depend on how it is cut (measured with MKL 2024.2: float64 needs multiples of 4, float32 at least 12 rows)."""
KEPT = 4
"""Tensors whose factors stay in memory; readers go through a model tensor by tensor."""
Factors = tuple[torch.Tensor, torch.Tensor]


class Adapter(Checkpoint):
    """A base's tensors as an adapter changes them; `read` computes them from the base's and the adapter's files.

    Reading needs the base's files, and the base itself may be closed.

    Memory: the factors of `KEPT` tensors, and for a read of n elements of a matrix O(n + columns) more.
    """

    is_adapter: ClassVar[bool] = True

    def __init__(
        self,
        label: str,
        folder: Path,
        base: Checkpoint,
        tensors: dict[str, TensorInfo],
        patches: Mapping[str, Patch],
    ) -> None:
        """See `open_adapter`; the base's files are opened again, so it may be closed before this."""
        super().__init__(label, folder, base.transformer, tensors, base.aliases)
        same_place = _place(transformer_dir(folder), folder) == base.transformer
        self._layers = (folder, *base.layers) if same_place else base.layers
        self._patches = patches
        self._factors: OrderedDict[str, Factors] = OrderedDict()
        self._factors_lock = threading.Lock()

    @property
    def layers(self) -> tuple[Path, ...]:
        """What the adapter's folder has of its own (prompts, pooling, tokenizer) counts, the rest is the base's."""
        return self._layers

    def weight_paths(self) -> set[Path]:
        """The base's files and the adapter's."""
        sources = [source for patch in self._patches.values() for source in patch.sources()]
        return super().weight_paths() | {source.path for source in sources}

    @property
    def resident_bytes(self) -> int:
        """Factors of the `KEPT` largest tensors, in float64 at most."""
        pairs = [patch.low_rank for patch in self._patches.values() if patch.low_rank is not None]
        sizes = sorted(8 * (left.numel + right.numel) for left, right in pairs)
        return sum(sizes[-KEPT:])

    def read_type(self, info: TensorInfo) -> torch.dtype:
        """As in the files; where something is added, float32 over 16-bit and float64 over wider tensors of the base."""
        patch = self._patches.get(info.key)
        if patch is None:
            return info.dtype
        stored = patch.whole.dtype if patch.whole else info.dtype
        widest = torch.promote_types(info.dtype, stored)
        if patch.adds:
            least = torch.float32 if int(info.dtype.itemsize) <= 2 else torch.float64
            return torch.promote_types(widest, least)
        return widest

    def read(self, info: TensorInfo, start: int, stop: int, buffer: torch.Tensor) -> torch.Tensor:
        """See `Checkpoint.read`; the result never has fewer bits than the base's tensor."""
        patch = self._patches.get(info.key)
        if patch is None:
            return self.read_stored(info, start, stop, buffer)
        source = patch.whole or info
        needed = (stop - start) * int(source.dtype.itemsize)
        if buffer.numel() < needed:  # the adapter holds this tensor in a wider type than the base
            buffer = torch.empty(needed, dtype=torch.uint8)
        values = self.read_stored(source, start, stop, buffer)
        dtype = self.read_type(info)
        if patch.low_rank is not None:
            return self._product(info, patch, start, stop).add_(values)
        values = values.to(dtype)
        if patch.vector is not None:
            added = self._load(patch.vector, dtype)[start:stop]
            values = values + added * patch.scale
        return values

    def _product(self, info: TensorInfo, patch: Patch, start: int, stop: int) -> torch.Tensor:
        """Elements of s·B·A, flat, in float32 or float64."""
        left, right = self._factors_of(info, patch)
        columns = max(1, right.shape[1])
        tile = TILE * columns
        first, last = start // tile * TILE, -(-stop // tile) * TILE
        product = (left[first:last] @ right).view(-1)
        return product[start - first * columns : stop - first * columns]

    def _factors_of(self, info: TensorInfo, patch: Patch) -> Factors:
        """(rows, r), scaled and filled up with zeros to whole tiles, and (r, columns)."""
        with self._factors_lock:
            found = self._factors.get(info.key)
            if found is None:
                found = self._load_factors(patch, self.read_type(info))
                self._factors[info.key] = found
                if len(self._factors) > KEPT:
                    self._factors.popitem(last=False)
            self._factors.move_to_end(info.key)
            return found

    def _load_factors(self, patch: Patch, dtype: torch.dtype) -> Factors:
        assert patch.low_rank is not None
        a, b = (self._load(source, dtype) for source in patch.low_rank)
        left, right = (a.T, b.T.contiguous()) if patch.transposed else (b, a)
        padded = torch.zeros(-(-len(left) // TILE) * TILE, left.shape[1], dtype=dtype)
        torch.mul(left, patch.scale, out=padded[: len(left)])
        return padded, right

    def _load(self, source: TensorInfo, dtype: torch.dtype) -> torch.Tensor:
        whole = self.read_stored(source, 0, source.numel, torch.empty(source.nbytes, dtype=torch.uint8))
        return whole.view(source.shape).to(dtype)


def open_adapter(folder: Path, label: str, base: Checkpoint | None) -> Checkpoint:
    """List the tensors of an adapter's model: those of the base, some of them changed; no weights are read.

    A folder that sentence-transformers saved may have other modules with weights (Dense); they replace the base's.

    Args:
        folder: holds ``adapter_config.json`` and ``adapter_model.safetensors`` of peft, kind LoRA.
        label: name of the member, for errors.
        base: the model that the adapter was trained on.

    Raises:
        MergeError: no base, no safetensors file, an adapter that is no plain LoRA, or one that does not fit the base.
    """
    inner = transformer_dir(folder)
    settings = read_settings(inner, label)
    if base is None or isinstance(base, Adapter):
        named = f" ({settings.base_name})" if settings.base_name else ""
        raise MergeError(
            f"{label}: {folder} is an adapter and not a model. Give the merge the base that it was trained on{named}, "
            f"as a complete model."
        )
    file = _adapter_file(folder, inner, label)
    _check_place(folder, inner, base, label)
    entries = {info.name: info for info in read_header(file, base.transformer, label)}
    own = {info.name: info for info in base.tensors.values() if info.module == base.transformer}
    patches = plan_patches(entries, own, settings, f"{label}: {file}", base.folder)
    tensors = dict(base.tensors)
    for key, info in _other_modules(folder, inner, label).items():
        known = tensors.setdefault(key, info)
        if known is not info:
            _check_replacement(label, known, info, base)
            patches[key] = Patch(whole=info)
    return Adapter(label, folder, base, dict(sorted(tensors.items())), patches)


def _adapter_file(folder: Path, inner: Path, label: str) -> Path:
    if any(inner.glob("model*.safetensors")):
        raise MergeError(
            f"{label}: {folder} holds both a complete model and an adapter, so it is not clear which is meant. "
            f"Move one of them to a folder of its own."
        )
    if not (inner / ADAPTER).exists():
        raise MergeError(
            f"{label}: {inner} has {ADAPTER_CONFIG} and no {ADAPTER}. Save the adapter as safetensors "
            f"(save_pretrained with safe_serialization=True); pickle files are not opened."
        )
    return inner / ADAPTER


def _place(inner: Path, folder: Path) -> str:
    place = inner.relative_to(folder).as_posix()
    return "" if place == "." else place


def _check_place(folder: Path, inner: Path, base: Checkpoint, label: str) -> None:
    own = _place(inner, folder)
    if (folder / "modules.json").exists() and own != base.transformer:
        raise MergeError(
            f"{label}: its transformer is in {own or 'the root'} of {folder}, and the base's is in "
            f"{base.transformer or 'the root'} of {base.folder}. Save the adapter over this base again."
        )


def _other_modules(folder: Path, inner: Path, label: str) -> dict[str, TensorInfo]:
    places = sorted({module.path for module in modules(folder) if module.path not in (inner, folder)})
    return list_tensors(folder, places, label)


def _check_replacement(label: str, known: TensorInfo, info: TensorInfo, base: Checkpoint) -> None:
    if known.shape != info.shape or not (known.dtype.is_floating_point and info.dtype.is_floating_point):
        raise MergeError(
            f"{label}: tensor {info.key} is {info.dtype} {list(info.shape)}, and in the base {base.folder} it is "
            f"{known.dtype} {list(known.shape)}."
        )


def adapter_fingerprint(folder: Path, base_fingerprint: str) -> str:
    """Hash of all that determines an adapter's model: the base's weights, the adapter's files, the scaling.

    Args:
        folder: see `open_adapter`.
        base_fingerprint: of the base's weights, see `boom_ray.model.folder.weights_fingerprint`.

    Raises:
        MergeError: the settings cannot be read, or there is no safetensors file.
    """
    inner = transformer_dir(folder)
    settings: AdapterSettings = read_settings(inner, str(folder))
    file = _adapter_file(folder, inner, str(folder))
    others = [path for module in modules(folder) for path in module.path.glob("*.safetensors") if path != file]
    files = {path.relative_to(folder).as_posix(): file_digest(path) for path in [file, *others]}
    return digest({"base": base_fingerprint, "scaling": settings.identity(), "files": files})
