"""Evaluate and compare models: python jobs/evaluate.py conf/evaluate/compare.yaml [a.b=c …] [--compare]."""

from boom_ray.config import EvaluateJobConfig
from boom_ray.flows.command import main
from boom_ray.flows.evaluate.flow import evaluate_models

if __name__ == "__main__":
    main(EvaluateJobConfig, evaluate_models, "Evaluate models on tasks and benchmarks, and compare them.")
