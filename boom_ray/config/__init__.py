"""Every section of the YAML as a frozen pydantic model, and how files and ``a.b=c`` overrides become one."""

from boom_ray.config.bags import BagConfig, BagsConfig, MixtureConfig
from boom_ray.config.cluster import ClusterConfig, TrackingConfig
from boom_ray.config.corpus import ColumnsConfig, CorpusConfig, DatasetConfig, EmbeddedConfig, NearDuplicatesConfig
from boom_ray.config.evaluate_job import EvaluateJobConfig, ModelEntry
from boom_ray.config.evaluation import BenchmarkConfig, EvaluationConfig, TaskConfig
from boom_ray.config.load import load_config, to_yaml
from boom_ray.config.loss import LossConfig
from boom_ray.config.merge import MergeConfig, ProbeConfig, RuleConfig
from boom_ray.config.merge_job import MemberConfig, MergeJobConfig
from boom_ray.config.model import DenseConfig, LoraConfig, ModelConfig
from boom_ray.config.run import RunConfig
from boom_ray.config.section import Section
from boom_ray.config.training import MatryoshkaConfig, ProgressScoresConfig, ResourcesConfig, TrainingConfig

__all__ = [
    "BagConfig",
    "BagsConfig",
    "BenchmarkConfig",
    "ClusterConfig",
    "ColumnsConfig",
    "CorpusConfig",
    "DatasetConfig",
    "DenseConfig",
    "EmbeddedConfig",
    "EvaluateJobConfig",
    "EvaluationConfig",
    "LoraConfig",
    "LossConfig",
    "MatryoshkaConfig",
    "MemberConfig",
    "MergeConfig",
    "MergeJobConfig",
    "MixtureConfig",
    "ModelConfig",
    "ModelEntry",
    "NearDuplicatesConfig",
    "ProbeConfig",
    "ProgressScoresConfig",
    "ResourcesConfig",
    "RuleConfig",
    "RunConfig",
    "Section",
    "TaskConfig",
    "TrackingConfig",
    "TrainingConfig",
    "load_config",
    "to_yaml",
]
