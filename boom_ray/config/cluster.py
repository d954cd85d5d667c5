"""Where a job runs and where it is logged; nothing here changes a result."""

from __future__ import annotations

from pydantic import Field

from boom_ray.config.section import Section


class ClusterConfig(Section):
    """The Ray cluster."""

    address: str | None = Field(None, description="Ray address; null: RAY_ADDRESS, else a cluster on this machine")
    num_cpus: int | None = Field(None, ge=1, description="CPU cores of a cluster started here; null: all")
    object_store_gb: float | None = Field(None, gt=0, description="object store of a cluster started here; GiB")
    autoscaling: bool = Field(False, description="the cluster grows on demand; its present size is no limit")
    temp_dir: str | None = Field(None, description="directory of a cluster started here for sessions and logs")
    verbose: bool = Field(False, description="show what Ray itself and its workers print")


class TrackingConfig(Section):
    """MLflow."""

    uri: str | None = Field(
        None, description="tracking URI; null: MLFLOW_TRACKING_URI, else a SQLite file in the store"
    )
    experiment: str = Field("boom_ray", description="experiment that holds the runs")
    log_model: bool = Field(True, description="log the merged model, so that MLflow can load it")
    register_as: str | None = Field(None, description="name in MLflow's model registry; null: not registered")
