"""How much of a step is kept in memory for the backward pass: as many tokens as a worker's memory has room for."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch

from boom_ray.config import ResourcesConfig, TrainingConfig
from boom_ray.model.encoder import Encoder
from boom_ray.model.layout import Layout
from boom_ray.model.steps import StepSettings, bytes_per_token

CPU_TOKENS = 2048
GPU_TOKENS = 65536
MASKED_TOKENS = 8192  # on GPUs with dropout: masks are drawn by forward pass, so their size must not follow memory
ROOM = 0.8  # share of the free memory that activations may take; the rest is for what a micro-batch needs besides
GIB = 1 << 30


def step_settings(
    encoder: Encoder,
    layout: Layout,
    config: TrainingConfig,
    longest: int,
    held: int,
    autocast: bool,
    is_random: bool = False,
) -> StepSettings:
    """How steps of a member are computed on this worker.

    Args:
        encoder: on its device, in the type it computes with, in training mode, not yet compiled or sharded.
        layout: form of its texts.
        config: what the user set.
        longest: longest text; tokens.
        held: bytes that gradients and moments will still take.
        autocast: count activations as under autocast.
        is_random: there is dropout.
    """
    on_gpu = encoder.device.type == "cuda"
    settings = StepSettings(layout=layout, pad_id=encoder.pad_id, pinned=on_gpu)
    room = ROOM * (free_bytes(encoder.device, config.resources) - held)
    each = bytes_per_token(encoder, replace(settings, autocast=autocast), longest)
    fits = max(0, int(room / max(1.0, each)))
    if is_random:
        usual = MASKED_TOKENS if on_gpu else CPU_TOKENS
    else:
        usual = min(GPU_TOKENS if on_gpu else CPU_TOKENS, max(longest, fits))
    return replace(
        settings,
        micro_batch_tokens=config.micro_batch_tokens or usual,
        kept_tokens=fits if config.kept_tokens is None else config.kept_tokens,
    )


def free_bytes(device: torch.device, resources: ResourcesConfig) -> float:
    """Memory that this worker may still take.

    On a GPU, what is free of the worker's share of it, less a twentieth. On a CPU, its ``memory_gb_per_worker``, or its
    share of the machine by cores, less what the process takes now.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        share = min(1.0, resources.gpus_per_worker or 1.0)
        return float(min(free, share * total - torch.cuda.memory_allocated(device)) - total / 20)
    if resources.memory_gb_per_worker is not None:
        return resources.memory_gb_per_worker * GIB - taken_bytes()
    share = min(1.0, resources.cpus_per_worker / len(os.sched_getaffinity(0)))
    return machine_bytes() * share - taken_bytes()


def machine_bytes() -> float:
    """Memory of the machine, or of the container that this process is in."""
    found = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(name)
        if path.exists() and (text := path.read_text(encoding="ascii").strip()).isdigit():
            found.append(float(text))
    return min(found)


def taken_bytes() -> float:
    """Resident memory of this process."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return float(pages) * os.sysconf("SC_PAGE_SIZE")
