"""Every file that users start from loads, validates and says what its comments promise."""

from __future__ import annotations

import copy
import shlex
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from boom_ray.config import EvaluateJobConfig, RunConfig, SweepConfig, UpdateConfig, load_config
from boom_ray.errors import ConfigError
from boom_ray.sweeps.check import check_space
from boom_ray.sweeps.reach import points, reachable

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
RUNS = sorted(CONF.glob("*.yaml"))
SWEEPS = sorted((CONF / "sweeps").glob("*.yaml"))
UPDATES = sorted((CONF / "updates").glob("*.yaml"))
EVALUATIONS = sorted((CONF / "evaluate").glob("*.yaml"))
PARTS = sorted([*(CONF / "corpora").glob("*.yaml"), *(CONF / "benchmarks").glob("*.yaml")])
NAMES = {"boom_qwen3_0.6b.yaml", "boom_qwen3_4b_lora.yaml", "local_jsonl.yaml"}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_every_configuration_of_a_run_loads(path: Path) -> None:
    config = load_config(RunConfig, path)
    assert config.corpus.datasets
    assert path.read_text(encoding="utf-8").startswith("#"), "it says what it is for"


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.name)
def test_every_part_is_extended_by_a_configuration_and_is_valid_in_it(path: Path, tmp_path: Path) -> None:
    base = {
        "name": "part",
        "model": {"query_template": "{task} {text}"},
        "corpus": {"datasets": [{"name": "a", "source": "a.jsonl", "task_type": "sts"}]},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"extends": ["base.yaml", str(path)]}))
    load_config(RunConfig, tmp_path / "run.yaml")
    users = [
        run.name
        for run in [*RUNS, *SWEEPS, *EVALUATIONS]
        if f"{path.parent.name}/{path.name}" in run.read_text(encoding="utf-8")
    ]
    assert users, "nothing uses it"


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_every_sweep_loads_and_its_whole_space_can_be_used(path: Path) -> None:
    config = load_config(SweepConfig, path)
    check_space(config)
    assert f"python jobs/sweep.py conf/sweeps/{path.name}" in path.read_text(encoding="utf-8")
    listed = points(config)
    if listed is not None:
        assert len(list(listed)) == config.sweep.trials, "all points, and no trial that has none"


def test_the_quickstart_sweep_chooses_by_the_embedded_sets_that_nothing_else_uses() -> None:
    config = load_config(SweepConfig, CONF / "sweeps" / "quickstart.yaml")
    run = load_config(RunConfig, CONF / "quickstart.yaml")
    all_of_them = load_config(SweepConfig, CONF / "sweeps" / "pareto.yaml").evaluation.selection
    assert {task.name for task in all_of_them} == {f"dev-{task.name}" for task in run.evaluation.in_domain} | {
        "dev-new-docs", "dev-new-errors", "dev-new-topics",
    }  # fmt: skip
    assert set(config.evaluation.selection) < set(all_of_them)
    assert all(task.path == f"embedded:{task.name}" for task in all_of_them)
    assert config.evaluation.tasks == run.evaluation.tasks
    assert reachable(config) == [{"bags": name} for name in ("80-100", "60-60-60", "50-and-rest")]
    assert {path.name for path in SWEEPS} >= {"quickstart.yaml", "grid.yaml", "pareto.yaml", "learned.yaml"}


@pytest.mark.parametrize("path", UPDATES, ids=lambda path: path.name)
def test_every_update_and_its_run_load(path: Path) -> None:
    if path.stem.endswith("_run"):
        assert load_config(RunConfig, path).bags.core_ratio == 0.4
    else:
        name = load_config(UpdateConfig, path).current
        assert name in {read(other)["name"] for other in UPDATES}, "the comment's commands lead from file to file"


@pytest.mark.parametrize("path", EVALUATIONS, ids=lambda path: path.name)
def test_every_evaluation_loads(path: Path) -> None:
    config = load_config(EvaluateJobConfig, path)
    assert len(config.models) > 1, "there is something to compare"
    assert f"python jobs/evaluate.py conf/evaluate/{path.name}" in path.read_text(encoding="utf-8")


def test_the_local_benchmark_shows_all_groups(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(f"extends: {CONF}/benchmarks/local.yaml\nname: job\nmodels: [a]\n")
    evaluation = load_config(EvaluateJobConfig, tmp_path / "job.yaml").evaluation
    assert all(task.overlaps for task in evaluation.in_domain)
    assert evaluation.out_of_domain and not any(task.overlaps for task in evaluation.out_of_domain)
    assert evaluation.selection and all(task.size and task.split == "dev" for task in evaluation.selection)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("code_v1", 12), ("cmn_v1", 31)])
def test_benchmarks_are_mtebs(name: str, count: int, tmp_path: Path) -> None:
    import mteb

    from boom_ray.evaluation.benchmarks import check_tasks
    from boom_ray.evaluation.catalog import expand

    path = tmp_path / "job.yaml"
    path.write_text(f"extends: {CONF}/benchmarks/{name}.yaml\nname: job\nmodels: [a]\n")
    evaluation = load_config(EvaluateJobConfig, path).evaluation
    expanded = expand(evaluation)
    check_tasks(expanded)
    theirs = {task.metadata.name: task for task in mteb.get_benchmark(evaluation.benchmarks[0].name).tasks}
    assert {task.name for task in expanded.out_of_domain} == set(theirs)
    assert len(theirs) == count and not expanded.in_domain
    for task in expanded.out_of_domain:
        assert [task.split, *task.extra_splits] == list(theirs[task.name].eval_splits), task.name


def test_the_promised_files_are_there() -> None:
    assert {path.name for path in RUNS} >= NAMES


def test_the_paper_s_recipe_for_0_6b() -> None:
    """PAPER.md section 4, from the authors' script base_same_0.6B.sh."""
    config = load_config(RunConfig, CONF / "boom_qwen3_0.6b.yaml")
    training, model = config.training, config.model
    assert (model.base, model.lora, model.pooling, model.normalize) == ("Qwen/Qwen3-0.6B", None, "lasttoken", True)
    assert model.query_prompt("Do it.") == "Instruct: Do it.\nQuery: "
    assert model.passage_prompt() == ""
    assert (training.learning_rate, training.warmup_ratio, training.epochs, training.decay) == (5e-5, 0.1, 1, "linear")
    assert (training.batch_size, training.negatives, training.temperature) == (256, 7, 0.02)
    assert training.resources.workers * training.resources.gpus_per_worker == 8
    assert training.batch_size % training.resources.workers == 0
    assert (config.corpus.max_query_tokens, config.corpus.max_passage_tokens) == (512, 512)
    assert (config.bags.ratios, config.bags.nested, config.merge.method) == ((0.8, 1.0), False, "multislerp")
    assert config.bags.core_ratio == 0.4


def test_the_paper_s_recipe_for_4b() -> None:
    config = load_config(RunConfig, CONF / "boom_qwen3_4b_lora.yaml")
    small = load_config(RunConfig, CONF / "boom_qwen3_0.6b.yaml")
    lora = config.model.lora
    assert lora is not None
    assert (config.model.base, lora.rank, lora.alpha) == ("Qwen/Qwen3-4B", 32, 32)
    assert set(lora.targets) == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert config.training.batch_size == 128
    assert config.training.learning_rate == small.training.learning_rate
    assert config.corpus == small.corpus
    assert config.bags == small.bags
    assert config.evaluation == small.evaluation


def test_the_paper_s_corpus() -> None:
    """Of the 34 splits of cfli/bge-full-data, all but the three without a training split in MTEB."""
    corpus = load_config(RunConfig, CONF / "boom_qwen3_0.6b.yaml").corpus
    splits = [dataset.split for dataset in corpus.datasets]
    assert len(set(splits)) == len(splits) == 31
    assert not {"arguana", "quora", "scidocsrr"} & set(splits)
    assert {dataset.source for dataset in corpus.datasets} == {"cfli/bge-full-data"}
    assert all(dataset.format == "huggingface" and dataset.subset is None for dataset in corpus.datasets)
    for dataset in corpus.datasets:
        labelled = dataset.task_type in {"classification", "clustering"}
        assert dataset.uses_in_batch is not labelled, dataset.name
        assert dataset.is_symmetric is (dataset.task_type in {"sts", "clustering"}), dataset.name
        assert dataset.instruction.endswith("."), dataset.name


@pytest.mark.slow
def test_the_paper_s_evaluation_is_mteb_s() -> None:
    import mteb

    from boom_ray.evaluation.benchmarks import check_tasks

    evaluation = load_config(RunConfig, CONF / "boom_qwen3_0.6b.yaml").evaluation
    check_tasks(evaluation)  # every name, split and subset is known
    english = {task.metadata.name: task for task in mteb.get_benchmark("MTEB(eng, v2)").tasks}
    assert {task.name for task in evaluation.in_domain} == set(english)
    for task in evaluation.in_domain:
        subsets = english[task.name].hf_subsets
        assert list(task.subsets or english[task.name].metadata.hf_subsets) == list(subsets), task.name
    rteb = [task.metadata for task in mteb.get_benchmark("RTEB(beta)").tasks]
    open_english = {one.name for one in rteb if one.is_public and "eng" in one.languages}
    assert {task.name for task in evaluation.out_of_domain} == open_english


class TestClusterFile:
    @pytest.fixture
    def cluster(self) -> dict[str, Any]:
        return read(ROOT / "cluster.yaml")

    @staticmethod
    def validate(cluster: dict[str, Any]) -> dict[str, Any]:
        from ray.autoscaler._private.util import prepare_config, validate_config

        prepared: dict[str, Any] = prepare_config(copy.deepcopy(cluster))
        validate_config(prepared)
        return prepared

    def test_it_is_valid_by_rays_own_schema(self, cluster: dict[str, Any]) -> None:
        types = self.validate(cluster)["available_node_types"]
        assert set(types) == {"head", "cpu", "gpu"}
        for name in ("cpu", "gpu"):
            assert 0 == types[name]["min_workers"] < types[name]["max_workers"]

    def test_the_schema_notices_mistakes(self, cluster: dict[str, Any]) -> None:
        import jsonschema

        for wrong in ({"idle_timeout": 5}, {"auth": {"user": "x"}}, {"max_workers": "many"}):
            with pytest.raises(jsonschema.ValidationError):
                self.validate(cluster | wrong)

    def test_what_it_copies_and_installs_is_there(self, cluster: dict[str, Any]) -> None:
        for source in cluster["file_mounts"].values():
            if not source.startswith("~"):
                # the README is written last; a mount of a missing file stops `ray up`
                assert (ROOT / source).exists() or source == "README.md", source
        install = next(line for line in cluster["setup_commands"] if "pip install" in line)
        assert "--constraint ~/boom_ray/constraints.txt" in install
        assert "~/boom_ray/constraints.txt" in cluster["file_mounts"]

    def test_every_node_starts_with_the_token(self, cluster: dict[str, Any]) -> None:
        assert "~/.ray/auth_token" in cluster["file_mounts"]
        env = next(line for line in cluster["setup_commands"] if line.startswith("printf"))
        assert "RAY_AUTH_MODE=token" in env
        for group in ("head_start_ray_commands", "worker_start_ray_commands"):
            start = next(line for line in cluster[group] if "ray start" in line)
            assert start.startswith(". ~/boom_ray.env;")

    def test_the_commands_in_its_comments_name_files_that_are_there(self) -> None:
        text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
        for name in ("jobs/boom.py", "conf/boom_qwen3_0.6b.yaml"):
            assert name in text
            assert (ROOT / name).exists()


class TestRayJob:
    @pytest.fixture
    def job(self) -> dict[str, Any]:
        return read(CONF / "kuberay" / "rayjob.yaml")

    def test_its_entrypoint_is_a_real_job_with_a_real_configuration(self, job: dict[str, Any]) -> None:
        program, script, config, *overrides = shlex.split(job["spec"]["entrypoint"])
        assert program == "python"
        inside = [ROOT / path.removeprefix("/opt/boom_ray/") for path in (script, config)]
        assert all(path.is_file() for path in inside)
        loaded = load_config(RunConfig, inside[1], overrides)
        mounts = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        assert loaded.store in {mount["mountPath"] for mount in mounts}, "the store is on the shared volume"

    def test_shape(self, job: dict[str, Any]) -> None:
        assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
        spec = job["spec"]
        assert spec["submissionMode"] in {"K8sJobMode", "HTTPMode", "SidecarMode"}
        assert spec["shutdownAfterJobFinishes"] is True
        env = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
        assert all(isinstance(value, str) for value in env.values()), "Ray refuses other types"
        cluster = spec["rayClusterSpec"]
        assert cluster["rayVersion"] == ray.__version__, "the manifest and the installed Ray belong together"
        assert cluster["authOptions"] == {"mode": "token"}

    def test_every_group_can_start_and_sees_the_store(self, job: dict[str, Any]) -> None:
        cluster = job["spec"]["rayClusterSpec"]
        head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
        assert [group["groupName"] for group in workers] == ["cpu", "gpu"]
        for group in workers:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        for group in (head, *workers):
            pod = group["template"]["spec"]
            (container,) = pod["containers"]
            assert container["image"] == head["template"]["spec"]["containers"][0]["image"]
            volumes = {volume["name"] for volume in pod["volumes"]}
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes == {"store", "shm"}
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert all(isinstance(value, str) for value in group["rayStartParams"].values())

    def test_a_gpu_node_holds_one_member(self, job: dict[str, Any]) -> None:
        gpu = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]
        limits = gpu["template"]["spec"]["containers"][0]["resources"]["limits"]
        resources = load_config(RunConfig, CONF / "boom_qwen3_0.6b.yaml").training.resources
        assert int(limits["nvidia.com/gpu"]) == resources.workers * resources.gpus_per_worker
        assert int(limits["cpu"]) >= resources.workers * resources.cpus_per_worker


def test_a_broken_configuration_would_be_noticed(tmp_path: Path) -> None:
    broken = (CONF / "local_jsonl.yaml").read_text(encoding="utf-8").replace("task_type: sts", "task_type: similarity")
    (tmp_path / "broken.yaml").write_text(broken, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"corpus\.datasets\.1\.task_type"):
        load_config(RunConfig, tmp_path / "broken.yaml")
