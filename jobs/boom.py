"""Run BOOM from a configuration: python jobs/boom.py conf/quickstart.yaml [a.b=c …]."""

from boom_ray.config import RunConfig
from boom_ray.flows.command import main
from boom_ray.flows.run.flow import run

if __name__ == "__main__":
    main(RunConfig, run, "Corpus, bags, members, merged model, scores: one BOOM run. What exists is not made again.")
