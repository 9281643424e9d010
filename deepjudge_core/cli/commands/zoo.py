"""``deepjudge zoo``."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from deepjudge_core.auditing.audit import make_suite
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import LiveModel, Subject
from deepjudge_core.cli import terminal
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.retyping import command_line, shared_options
from deepjudge_core.cli.sources import begun, folder_to_write, warn_of_bytes
from deepjudge_core.cli.status import FAILED, NO_COPY
from deepjudge_core.components.opening import open_model, open_network
from deepjudge_core.errors import DeepJudgeError
from deepjudge_core.models.device import Device
from deepjudge_core.models.model import Model
from deepjudge_core.models.prepared import Prepared
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.observing.settings import OpeningSettings, QuerySettings, layout_setting, victim_input_setting
from deepjudge_core.sandbox.policy import device_setting
from deepjudge_core.settings import argument, part, setting
from deepjudge_core.suites.inputs import Inputs, Offered, fitted
from deepjudge_core.suites.outputs import output_by_labels
from deepjudge_core.suites.ranges import hull, together
from deepjudge_core.suites.settings import ArraySettings
from deepjudge_core.suites.standardised import brought_back, plain_inputs
from deepjudge_core.suites.suite import Suite, load_suite, save_suite
from deepjudge_core.text import counted
from deepjudge_core.types import Layout
from deepjudge_core.zoo.estimate import Estimate
from deepjudge_core.zoo.making import make_zoo
from deepjudge_core.zoo.manifest import MissingModel, Zoo, ZooModel
from deepjudge_core.zoo.material import Material, divide
from deepjudge_core.zoo.plans import ZooRecipe
from deepjudge_core.zoo.settings import MaterialSettings, ZooSettings

_SUITE = "suite.safetensors"
_INPUTS = "INPUTS"  # what stands for inputs that are not known here


@dataclass(frozen=True, kw_only=True)
class ZooCommand(Command):
    """Make controls and stolen models of the victim."""

    victim: Path = argument("VICTIM", "your model, the victim", reads=True)
    material: MaterialSettings = part(MaterialSettings)
    arrays: ArraySettings = part(ArraySettings)
    zoo: ZooSettings = part(ZooSettings)
    opening: OpeningSettings = part(OpeningSettings)
    layout: Layout | None = layout_setting()
    preprocessing: Preprocessing | None = victim_input_setting()
    device: Device = device_setting("that models are made on", group="model")
    output: Path = setting(
        "folder for the zoo", "-o", "--out", group="output", metavar="ZOO", writes=True, formerly=("--output",)
    )

    def run(self) -> int:
        """Make the models, and say of each that it is there."""
        session, out = begun(), terminal.console()
        recipe = ZooRecipe.of(self.zoo, session.registry.attacks)
        folder = folder_to_write(self.output)
        data = self.material.training(self.arrays, self.layout)
        options: dict[str, Any] = dict(self.opening.options, device=self.device)
        model = open_model(self.victim, registry=session.registry, expected=data.expected, **options)
        tests = self.material.tests(self.arrays, self.layout)
        training, test = self._fitted(data, model), None if tests is None else self._fitted(tests, model)
        if self.arrays.bounds is None and test is not None:
            training = replace(training, bounds=together(training.bounds, test.bounds))
        warn_of_bytes(training, self.material.data, self.arrays)
        auxiliary = self._auxiliary(model)
        suite = None if self.material.suite is None else load_suite(self.material.suite)
        said = self.preprocessing or (
            suite.victim.preprocessing if suite and hull(training.bounds) == suite.bounds else None
        )
        training, preprocessing, notes = plain_inputs(training, said)
        for note in (*training.notes, *notes):
            terminal.warn(note)
        if preprocessing is not None and preprocessing != said:
            test, auxiliary = (one and brought_back(one, preprocessing) for one in (test, auxiliary))
        asked = model
        if preprocessing is not None:
            asked = Prepared.of(model, preprocessing, training.x.shape[1:], hull(training.bounds), training.layout)
        asked, chosen = output_by_labels(
            asked, training.x, training.labels, layout=training.layout, model_layout=self.layout
        )
        if chosen and asked.outputs:
            terminal.say(out, f"outputs     {chosen}")
            options = {**options, "output": asked.outputs.place + 1}
            model = asked.model if isinstance(asked, Prepared) else asked
        network = open_network(self.victim, registry=session.registry, expected=training.expected, **options)
        material = divide(
            training,
            network.architecture,
            name=str(self.victim),
            share=self.material.split,
            test=test,
            auxiliary=auxiliary,
        )
        victim = LiveModel(model, query=QuerySettings(layout=self.layout, preprocessing=preprocessing))
        suite = (suite or self._suite(victim, material, session)) if recipe.needs_suite else None
        if preprocessing is not None:
            layout = network.architecture.input.layout or training.layout
            shape = material.own.x.shape[1:]
            prepare = preprocessing.preparing(str(self.victim), shape, hull(material.bounds), layout)
            material = material.prepared(preprocessing, prepare)
        zoo = make_zoo(
            network,
            material,
            folder,
            recipe,
            name=str(self.victim),
            digest=model.digest,
            suite=suite,
            on_estimate=self.estimated,
            on_model=lambda model: terminal.say(out, _line(model)),
        )
        _show_counts(out, zoo)
        self.close(zoo)
        return FAILED if any(missing.failed for missing in zoo.missing) else NO_COPY

    def _fitted(self, offered: Offered, model: Model) -> Inputs:
        return replace(fitted(offered, model, self.layout), training=None)

    def estimated(self, estimate: Estimate) -> None:
        """Say how long it takes, before anything is made; what is raised ends the command."""
        terminal.say(terminal.console(), f"making      {estimate}")

    def close(self, zoo: Zoo) -> None:
        """Say what the zoo does not show, and what it is for."""
        out = terminal.console()
        for limit in zoo.limits:
            terminal.tell(out, f"limit       {limit}")
        lines = list(self._commands(zoo))
        for line in lines:
            terminal.say(out, f"next        {line}")
        if any(_INPUTS in shlex.split(line) for line in lines):
            terminal.tell(
                out,
                f"{_INPUTS}      stands for labelled inputs that the victim was not trained on: on its training data, "
                "honest models err more often than it does, so what they have in common with it says less",
            )

    def _commands(self, zoo: Zoo) -> Iterator[str]:
        # Lines for a shell; the suspect is left open, and the inputs where none were held out.
        controls, suite = self.output / "controls", self.material.suite or self.output / _SUITE
        tests = self.material.test
        if tests is None and self.material.has_tests(self.arrays):
            tests = self.material.data
        if zoo.of("control") and self.material.suite is not None:
            calibration = self.output / "calibration.safetensors"
            yield command_line("calibrate", self.material.suite, controls, "-o", calibration)
        elif zoo.of("control"):
            inputs = ("--inputs", tests or _INPUTS, *shared_options(self, "audit"))
            yield command_line("audit", self.victim, "SUSPECT", "--controls", controls, *inputs, "-o", "audit")
        if zoo.of("stolen"):
            if not suite.exists():
                yield command_line(
                    "suite", self.victim, "--inputs", tests or _INPUTS, *shared_options(self, "suite"), "-o", suite
                )
            yield command_line("power", suite, self.output, "-o", self.output / "power")

    def _auxiliary(self, model: Model) -> Inputs | None:
        path = self.material.auxiliary
        if path is None:
            return None
        return self.arrays.auxiliary(path, self.layout).fitted(model.input.with_layout(self.layout))

    def _suite(self, victim: Subject, material: Material, session: Session) -> Suite | None:
        # What adaptive attacks know: the worst case is the suite that the audit uses, which may be said.
        path = self.output / _SUITE
        if path.exists():
            return load_suite(path)
        inputs = Inputs(material.test.x, material.test.y, material.bounds, material.own.x)
        try:
            suite = make_suite(victim, inputs, session=session)
        except DeepJudgeError as error:
            terminal.warn(f"no suite for the attacks that need one: {error}")
            return None
        save_suite(path, suite)
        return suite


def _line(model: ZooModel | MissingModel) -> str:
    if isinstance(model, MissingModel):
        return f"{model.name}: {'failed' if model.failed else 'left out'}: {model.reason}"
    accuracy = "other classes" if model.accuracy is None else f"{model.accuracy:.1%}"
    return f"{model.file}: {accuracy}, {model.seconds:.1f} s{', far from the victim' if model.far else ''}"


def _show_counts(out: Console, zoo: Zoo) -> None:
    counts = [(zoo.of("control", far=True), "control"), (zoo.of("stolen", far=True), "stolen model")]
    models = ", ".join(counted(len(those), name) for those, name in counts if those) or "no models"
    missing = f", {len(zoo.missing)} could not be made" if zoo.missing else ""
    terminal.say(out, f"zoo         {models}{missing}; the victim has {zoo.victim.accuracy:.1%}")
    far = sum(model.far for model in zoo.models)
    if far:
        terminal.say(out, f"far         {far} with an accuracy far below the victim's; they do not set thresholds")
