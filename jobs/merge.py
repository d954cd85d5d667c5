"""Merge models that exist: python jobs/merge.py conf/merge/soup.yaml [a.b=c …] [--dry-run]."""

from boom_ray.config import MergeJobConfig
from boom_ray.flows.command import main
from boom_ray.flows.merge.flow import merge_models

if __name__ == "__main__":
    main(MergeJobConfig, merge_models, "Merge models: local folders, LoRA adapters, hub names, artifacts of the store.")
