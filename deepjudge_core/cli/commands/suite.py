"""``deepjudge suite``."""

from dataclasses import dataclass, replace
from pathlib import Path

from deepjudge_core.auditing.audit import make_suite
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import ModelFile
from deepjudge_core.bundles.commitment import CommitmentError
from deepjudge_core.bundles.victim import VictimTerms, load_victim
from deepjudge_core.cli import display, terminal
from deepjudge_core.cli.applying import check_base, options_of_each, with_base
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.sources import begun, file_to_write, load
from deepjudge_core.cli.sparing import spare
from deepjudge_core.cli.status import NO_COPY
from deepjudge_core.components.opening import digested
from deepjudge_core.errors import UsageError
from deepjudge_core.judging.fitting import Offer, fitting_metrics
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.observing.settings import OpeningSettings, QuerySettings, layout_setting, victim_input_setting
from deepjudge_core.sandbox.policy import Confinement
from deepjudge_core.settings import argument, part, setting
from deepjudge_core.suites.challenge import Given, read_value
from deepjudge_core.suites.choice import GeneratorChoice
from deepjudge_core.suites.inputs import Offered
from deepjudge_core.suites.profile import choices_of
from deepjudge_core.suites.settings import InputSettings, SuiteSettings
from deepjudge_core.suites.suite import save_suite
from deepjudge_core.types import Layout


@dataclass(frozen=True, kw_only=True)
class SuiteCommand(Command):
    """Make a suite from the victim: test cases, and sketches of its weights."""

    victim: Path = argument("VICTIM", "your model, the victim", reads=True)
    inputs: InputSettings = part(InputSettings)
    suite: SuiteSettings = part(SuiteSettings)
    opening: OpeningSettings = part(OpeningSettings)
    layout: Layout | None = layout_setting()
    preprocessing: Preprocessing | None = victim_input_setting()
    confinement: Confinement = part(Confinement)
    challenge: str | None = setting(
        "value that somebody else gave after the commitment; half of the seeds, and all that is random in their "
        "cases, follow from it, and these cases are also judged by themselves",
        "--challenge",
        default=None,
        group="bundle",
        metavar="HEX|FILE",
    )
    commitment: Path | None = setting(
        "commitment to the victim, inputs and options, from 'deepjudge commit --model', that the challenge answers",
        "--commitment",
        default=None,
        group="bundle",
        metavar="COMMITMENT",
        reads=True,
    )
    output: Path = setting(
        "file for the suite",
        "-o",
        "--out",
        group="output",
        metavar="SUITE.safetensors",
        writes=True,
        formerly=("--output",),
    )

    def run(self) -> int:
        """Make the suite and show it."""
        session = begun(self.confinement)
        file_to_write(self.output)
        challenge, victim_terms = self._given()
        options, settings = self.opening.options, with_base(self.suite, self.opening.options)
        spare([self.victim, self.suite.ancestor, self.opening.base], [self.output], models=session.registry.adapters)
        check_base([self.victim, self.suite.ancestor], self.opening.base)
        [taken] = options_of_each([str(self.victim)], options, session.registry.adapters, self.suite.ancestor)
        victim = ModelFile(
            self.victim, taken, query=QuerySettings(layout=self.layout, preprocessing=self.preprocessing)
        )
        offered = load(replace(self.inputs, layout=self.layout))
        if victim_terms and offered:  # before anything is made of them
            self._expect_committed(victim_terms, offered, session)
        suite = make_suite(victim, offered, settings, challenge=challenge, session=session)
        mistakes = tuple(victim_terms.mistakes(suite)) if victim_terms else ()
        if mistakes:
            raise CommitmentError(mistakes)
        save_suite(self.output, suite)
        display.show_suite(terminal.console(), suite)
        _, note = fitting_metrics(session.registry.metrics, None, Offer.of(suite))
        if note:
            terminal.say(terminal.console(), f"metrics     {note}")
        return NO_COPY

    def _expect_committed(self, terms: VictimTerms, offered: Offered, session: Session) -> None:
        adapter = session.registry.adapters.of_file(self.victim, str(self.victim))
        choices = choices_of(self.suite, GeneratorChoice.of(self.suite, session.registry.generators))
        mistakes = tuple(terms.mistakes_of(digested(self.victim, adapter).digest, offered.origin, choices))
        if mistakes:
            raise CommitmentError(mistakes)

    def _given(self) -> tuple[Given | None, VictimTerms | None]:
        # Both or none: without a commitment, victim, inputs and options could have been chosen by the challenge.
        if (self.challenge is None) != (self.commitment is None):
            there, missing = ("--challenge", "--commitment") if self.challenge else ("--commitment", "--challenge")
            raise UsageError(f"{there}: expected also {missing}, found none", code="missing-value")
        if self.challenge is None or self.commitment is None:
            return None, None
        committed = load_victim(self.commitment)
        return Given(read_value(self.challenge), committed.digest), committed.terms
