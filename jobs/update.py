"""Update a model with new data: python jobs/update.py conf/updates/quickstart.yaml [a.b=c …] [--dry-run]."""

from boom_ray.config import UpdateConfig
from boom_ray.flows.command import main
from boom_ray.flows.update.flow import update

if __name__ == "__main__":
    main(UpdateConfig, update, "Train on new data and the core of the old, and merge the result into a model.")
