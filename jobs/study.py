"""Compare ways of making a model: python jobs/study.py conf/studies/quickstart.yaml [a.b=c …] [--dry-run]."""

from boom_ray.config import StudyConfig
from boom_ray.flows.command import main
from boom_ray.flows.study.flow import study

if __name__ == "__main__":
    main(StudyConfig, study, "Make a model in several ways over several seeds, evaluate, and write one report.")
