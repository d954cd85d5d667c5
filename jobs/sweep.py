"""Search ratios, methods, weights: python jobs/sweep.py conf/sweeps/quickstart.yaml [a.b=c …] [--dry-run, --resume]."""

from boom_ray.config import SweepConfig
from boom_ray.flows.command import main
from boom_ray.flows.sweep.flow import sweep

if __name__ == "__main__":
    main(SweepConfig, sweep, "Search bags, training, merge methods and weights; every member is trained once.")
