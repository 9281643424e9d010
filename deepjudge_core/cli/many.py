"""What is said of many suspects: which files are taken, which rows are shown, and what the exit status says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge

from deepjudge_core.settings import Distinct, setting

Order = Literal["similarity", "name", "given"]
Verdicts = Literal["copy", "inconclusive", "independent", "failed"]


@dataclass(frozen=True)
class FolderSettings:
    """How folders are taken.

    Attributes:
        recursive: Whether sub-folders are looked into.
    """

    recursive: bool = setting(
        "also search the sub-folders of folders",
        "--recursive",
        default=False,
        group="suspect",
        key="recursive",
    )


@dataclass(frozen=True)
class ResumeSettings:
    """How an interrupted run is taken up again.

    Attributes:
        resume: Where answers are kept.
    """

    resume: Path | None = setting(
        "store the suspects' answers in this folder, so that the same command goes on after an "
        "interruption without asking again",
        "--resume",
        default=None,
        group="suspect",
        metavar="DIR",
        writes=True,
    )


@dataclass(frozen=True)
class ManySettings:
    """What is shown of many suspects, and what the exit status says of them.

    Attributes:
        sort: The order of the table.
        only: Verdicts of the suspects in the table; none for all.
        strict: Whether anything that failed or was skipped decides the exit status.
    """

    sort: Order = setting(
        "order of the table: most similar to the victim first, by name, or as given",
        "--sort",
        default="similarity",
        group="suspect",
        key="sort",
    )
    only: Annotated[tuple[Verdicts, ...], Distinct()] = setting(
        "show only suspects with these verdicts: copy, inconclusive, independent, failed; reports contain all",
        "--only",
        default=(),
        group="suspect",
        metavar="VERDICT,...",
        key="only",
        usual="all",
    )
    strict: bool = setting(
        "exit with 4 if any suspect failed or any file was skipped, even if a copy was found",
        "--strict",
        default=False,
        group="suspect",
        key="strict",
    )

    @property
    def most(self) -> int | None:
        """How many suspects the table has at most; None for all."""
        return None


@dataclass(frozen=True)
class ListSettings:
    """Which results of a fleet are shown, and where else they go.

    Attributes:
        only: Verdicts; none for all.
        victim: A part of the name of the victim, or of its suite.
        sort: Their order.
        csv: A file for them.
        parquet: Another one.
    """

    only: Annotated[tuple[Literal["copy", "inconclusive", "independent", "failed", "skipped"], ...], Distinct()] = (
        setting(
            "show only a fleet's suspects with these verdicts: copy, inconclusive, independent, failed, skipped",
            "--only",
            default=(),
            group="suspect",
            metavar="VERDICT,...",
            usual="all",
        )
    )
    victim: str | None = setting(
        "show only the victims whose name, or whose suite's name, contains this",
        "--victim",
        default=None,
        group="suspect",
        metavar="TEXT",
    )
    sort: Order = setting(
        "order of the suspects of a fleet: most similar to the victim first, by name, or as stored",
        "--sort",
        default="similarity",
        group="suspect",
    )
    csv: Path | None = setting(
        "write a fleet's results as a table for spreadsheets",
        "--csv",
        default=None,
        group="report",
        metavar="FILE",
        writes=True,
    )
    parquet: Path | None = setting(
        "write a fleet's results as Apache Parquet; needs the extra parquet",
        "--parquet",
        default=None,
        group="report",
        metavar="FILE",
        writes=True,
    )

    @property
    def said(self) -> bool:
        """Whether anything was said of results."""
        return self != ListSettings()


@dataclass(frozen=True)
class TopSettings(ManySettings):
    """The same of suspects that may be thousands.

    Attributes:
        top: How many are shown of each victim.
    """

    top: Annotated[int, Ge(0)] = setting(
        "show so many suspects of each victim, after --only; 0 means all, and reports contain all",
        "--top",
        default=20,
        group="suspect",
        metavar="N",
    )

    @property
    def most(self) -> int | None:
        """See the base."""
        return self.top or None
