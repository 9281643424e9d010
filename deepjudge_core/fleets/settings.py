"""Where suspects are asked: on this machine, or on a cluster."""

from dataclasses import dataclass
from typing import Literal

from deepjudge_core.errors import MissingExtraError, UsageError
from deepjudge_core.fleets.engine import Engine
from deepjudge_core.fleets.local import Local
from deepjudge_core.naming import option
from deepjudge_core.settings import setting

EngineName = Literal["local", "dask", "ray"]


@dataclass(frozen=True)
class EngineSettings:
    """Which engine asks suspects.

    Attributes:
        engine: Its name.
        scheduler: Of Dask, where the scheduler is.
        address: Of Ray, where the cluster is.
    """

    engine: EngineName = setting(
        "where suspects are asked: local (this machine), dask or ray (a cluster that sees the same paths)",
        "--engine",
        default="local",
        group="suspect",
    )
    scheduler: str | None = setting(
        "with --engine dask, the address of the scheduler, such as tcp://host:8786",
        "--scheduler",
        default=None,
        group="suspect",
        metavar="ADDRESS",
    )
    address: str | None = setting(
        "with --engine ray, the address of the cluster, such as host:6379, ray://host:10001 or auto",
        "--address",
        default=None,
        group="suspect",
        metavar="ADDRESS",
    )

    def __post_init__(self) -> None:
        for value, flag, of in (
            (self.scheduler, option("EngineSettings.scheduler"), "dask"),
            (self.address, option("EngineSettings.address"), "ray"),
        ):
            if self.engine == of and value is None:
                raise UsageError(f"the engine {of} needs {flag}", code="missing-value")
            if self.engine != of and value is not None:
                raise UsageError(f"{flag} is of the engine {of}, found {self.engine}", code="conflict")

    def engine_of(self, jobs: int) -> Engine:
        """The engine.

        Args:
            jobs: Of the engine of this machine, how many suspects are asked at the same time.

        Raises:
            MissingExtraError: When its library is not installed.
        """
        try:
            if self.engine == "dask":
                from deepjudge_core.fleets.dask import Dask

                return Dask(str(self.scheduler))
            if self.engine == "ray":
                from deepjudge_core.fleets.ray import Ray

                return Ray(str(self.address))
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] not in ("distributed", "dask", "ray"):
                raise
            name = {"dask": "Dask", "ray": "Ray"}[self.engine]
            raise MissingExtraError(f"the engine {self.engine}", name, self.engine) from None
        return Local(jobs)
