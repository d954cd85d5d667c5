"""What a study leaves in MLflow: a parent run with the report, and a child per member that it trains and per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from boom_ray.config import StudyConfig, to_yaml
from boom_ray.flows.merge.record import NOT_IN_RESULT
from boom_ray.flows.study.products import Product
from boom_ray.flows.workspace import Workspace
from boom_ray.hashing import digest
from boom_ray.store import Artifact
from boom_ray.studies.results import StudyResult
from boom_ray.studies.synergy import Clustering
from boom_ray.training.job import MemberJob


class StudyRecorder:
    """The MLflow runs of a study; the same study continues the same runs."""

    def __init__(self, space: Workspace, config: StudyConfig) -> None:
        """Open the parent run.

        Args:
            space: store, MLflow, and who listens to progress.
            config: the study.
        """
        self.space = space
        decides = {name: value for name, value in config.identity().items() if name not in NOT_IN_RESULT}
        self.key = digest(decides)
        self.parent = space.tracker.run(self.key, config.name, tags={"stage": "study", "store": space.store.root})
        self.parent.params(config.model_dump(mode="json", exclude={"dry_run", "study"}))
        study = config.study
        self.parent.params({"study": {"arms": [arm.name for arm in study.arms], "seeds": list(study.seeds)}})
        self.parent.params({"study": {"baseline": study.baseline}})
        self.parent.text("config.yaml", to_yaml(config))

    def clusters(self, found: Mapping[str, Clustering]) -> None:
        """Which datasets are in which cluster."""
        for arm, one in found.items():
            self.parent.params({"clusters": {arm: [list(names) for names in one.clusters]}})

    def members(self, jobs: Sequence[MemberJob], is_done: bool) -> None:
        """Open a run for every member that is about to be trained, or end those of trained ones with their figures."""
        for job in jobs:
            run = self.space.tracker.run(
                *(f"{self.key}/member/{job.key}", f"member {job.name}", self.parent),
                {"stage": "member", "key": job.key, "bag": job.bag_key},
            )
            if not is_done:
                run.params({"member": job.name, "seed": job.seed, **job.spec()["training"]})
                self.space.curves[job.name] = run
                continue
            artifact = self.space.store.get(job.kind, job.key)
            assert artifact is not None  # done
            run.params({name: artifact.figures[name] for name in ("steps", "examples", "seconds")})
            run.end()

    def products(self, products: Sequence[Product], result: StudyResult) -> None:
        """A run per arm and seed: its bags and recipe, its scores and their means by group, its cost."""
        for product in products:
            one = product.arm.run
            made = result.arms[one.arm.name].get(one.seed)
            tags = {"stage": "arm", "arm": one.arm.name, "model": product.model.path}
            run = self.space.tracker.run(f"{self.key}/arm/{one.name}", one.name, self.parent, tags)
            bags = [bag.model_dump(mode="json", exclude_defaults=True) for bag in one.config.bags.resolved()]
            run.params({"arm": one.arm.name, "seed": one.seed, "product": one.arm.product, "set": one.arm.set})
            run.params({"bags": {bag.pop("name"): bag for bag in bags}, "schedule": one.config.bags.schedule.kind})
            run.params({name: value for name, value in product.facts.items() if name != "soups"})
            if made is None:
                run.end("FAILED")
                continue
            groups: dict[str, list[float]] = {}
            for score in made.scores.values():
                groups.setdefault(score.group, []).append(score.value)
            run.metrics({f"scores/{task}": score.value for task, score in made.scores.items()})
            run.metrics({f"scores/{group}": sum(values) / len(values) for group, values in groups.items()})
            run.metrics({"cost/full_runs": made.cost.runs, "cost/seconds": made.cost.seconds})
            run.metrics({"cost/members": float(made.cost.members)})
            run.end()

    def report(self, report: Artifact, text: str, is_whole: bool) -> None:
        """The report with its tables and pictures; the parent run ends."""
        folder = report.local()
        for name in sorted(report.files):
            self.parent.file(folder / name)
        self.parent.note(text)
        self.parent.tags({"report": str(folder), "key": report.key})
        self.parent.end("FINISHED" if is_whole else "FAILED")
        self.space.tracker.flush()
