"""``deepjudge observe``."""

from dataclasses import dataclass
from pathlib import Path

from deepjudge_core.auditing.subject import ModelFile
from deepjudge_core.cli import display, terminal
from deepjudge_core.cli.applying import check_base, options_of_each
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.sources import begun, file_to_write
from deepjudge_core.cli.sparing import spare
from deepjudge_core.cli.status import NO_COPY
from deepjudge_core.observing.settings import OpeningSettings, QuerySettings
from deepjudge_core.sandbox.policy import Confinement
from deepjudge_core.settings import argument, part, setting
from deepjudge_core.suites.observation import save_observation
from deepjudge_core.suites.suite import load_suite


@dataclass(frozen=True, kw_only=True)
class ObserveCommand(Command):
    """Record a model's answers to a suite where the model is, to judge them elsewhere."""

    suite: Path = argument("SUITE", "the suite, from 'deepjudge suite'", reads=True)
    model: str = argument("MODEL", "the model file", reads=True)
    query: QuerySettings = part(QuerySettings)
    opening: OpeningSettings = part(OpeningSettings)
    confinement: Confinement = part(Confinement)
    output: Path = setting(
        "file for the observation",
        "-o",
        "--out",
        group="output",
        metavar="OBSERVATION.safetensors",
        writes=True,
        formerly=("--output",),
    )

    def run(self) -> int:
        """Ask the model and store its answers."""
        file_to_write(self.output)
        session, opening = begun(self.confinement), self.opening
        spare([self.model, opening.base], [self.output], models=session.registry.adapters)
        suite = load_suite(self.suite)
        check_base([self.model], opening.base)
        [options] = options_of_each([self.model], opening.options, session.registry.adapters)
        subject = ModelFile(self.model, options, query=self.query)
        subject.check(suite)
        with subject.answering(suite, session) as answer:
            observation = answer()
        save_observation(self.output, observation)
        display.show_observation(terminal.console(), observation)
        return NO_COPY
