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
from boom_ray.config.schedule import ScheduleConfig, StageConfig
from boom_ray.config.section import Section
from boom_ray.config.study import ArmConfig, ClaimConfig, ClusterArmConfig, StudyConfig, StudySection
from boom_ray.config.sweep import ObjectiveConfig, ParameterConfig, SearchConfig, SimplexConfig, SweepConfig
from boom_ray.config.training import (
    AverageLastConfig,
    MatryoshkaConfig,
    ProgressScoresConfig,
    ResourcesConfig,
    TrainingConfig,
)
from boom_ray.config.update import NewDataConfig, NewTasksConfig, UpdateConfig

__all__ = [
    "ArmConfig",
    "AverageLastConfig",
    "BagConfig",
    "BagsConfig",
    "BenchmarkConfig",
    "ClaimConfig",
    "ClusterArmConfig",
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
    "NewDataConfig",
    "NewTasksConfig",
    "ObjectiveConfig",
    "ParameterConfig",
    "ProbeConfig",
    "ProgressScoresConfig",
    "ResourcesConfig",
    "RuleConfig",
    "RunConfig",
    "ScheduleConfig",
    "SearchConfig",
    "Section",
    "SimplexConfig",
    "StageConfig",
    "StudyConfig",
    "StudySection",
    "SweepConfig",
    "TaskConfig",
    "TrackingConfig",
    "TrainingConfig",
    "UpdateConfig",
    "load_config",
    "to_yaml",
]
