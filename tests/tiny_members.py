"""A base and fine-tunes of it as folders, an adapter over it, a small corpus and tasks: what merges are tested with."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.evaluation.task_folders import sentences, write_jsonl, write_task
from tests.tiny_model import make_tiny_model

MEMBERS = ("one", "two", "three")


@dataclass(frozen=True)
class Kitchen:
    """Folders below ``root``: base, one, two, three, adapter, data, tasks, store."""

    root: Path

    def path(self, name: str) -> str:
        """One of the models."""
        return str(self.root / name)

    def job(self, **changes: Any) -> Path:
        """A configuration of `jobs/merge.py` that merges the three; ``changes`` replace top-level keys."""
        config: dict[str, Any] = {
            "name": "tiny",
            "store": self.path("store"),
            "members": [self.path(name) for name in MEMBERS],
            "base": self.path("base"),
            "merge": {"method": "linear"},
            "cluster": {"num_cpus": 2, "object_store_gb": 0.2},
            "tracking": {"uri": f"sqlite:///{self.root}/mlflow.db", "log_model": False},
            **changes,
        }
        path = self.root / "job.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in config.items() if value is not None}))
        return path

    def corpus(self) -> dict[str, Any]:
        """A section with two datasets."""
        rows = sentences(96)
        pairs = [{"query": text, "pos": [f"{text} and more"]} for text, _ in rows]
        labelled = [{"text": f"{text} {number}", "label": topic} for number, (text, topic) in enumerate(rows)]
        data = {
            "pairs": (write_jsonl(self.root / "data" / "pairs.jsonl", pairs), "retrieval"),
            "topics": (write_jsonl(self.root / "data" / "topics.jsonl", labelled), "classification"),
        }
        datasets = [
            {"name": name, "source": str(path), "task_type": kind, "label_negatives": 1}
            for name, (path, kind) in data.items()
        ]
        return {"datasets": datasets}

    def task(self, kind: str) -> dict[str, Any]:
        """A task of a kind."""
        made: dict[str, Any] = write_task(self.root / "tasks" / kind, kind).model_dump(mode="json")
        return made


def make_kitchen(root: Path) -> Kitchen:
    """Write base, members and adapter."""
    base = make_tiny_model(root / "base")
    for number, name in enumerate(MEMBERS):
        perturb(base, root / name, seed=number, size=0.02 * (number + 1))
    make_adapter(base, root / "adapter")
    return Kitchen(root)


def perturb(base: Path, target: Path, seed: int, size: float) -> Path:
    """A copy of a model whose floating tensors moved at random; token types stay, as of a frozen tensor."""
    shutil.copytree(base, target, dirs_exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        key: value + size * torch.randn(value.shape, generator=generator)
        if value.is_floating_point() and "token_type" not in key
        else value
        for key, value in load_file(base / "model.safetensors").items()
    }
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def make_adapter(base: Path, target: Path) -> Path:
    """A LoRA adapter over all linear layers, with random factors."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        settings = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", init_lora_weights=False)
        get_peft_model(AutoModel.from_pretrained(base), settings).save_pretrained(target)
    path = target / "adapter_config.json"
    path.write_text(path.read_text().replace('"init_lora_weights": false', '"init_lora_weights": true'))
    return target
