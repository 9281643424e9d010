"""``deepjudge audit``."""

import contextlib
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from deepjudge_core.auditing.audit import audit, offer_of
from deepjudge_core.auditing.folders import Found, Skipped
from deepjudge_core.auditing.kept import forget
from deepjudge_core.auditing.session import QueryEvent, Session
from deepjudge_core.auditing.settings import AuditSettings
from deepjudge_core.auditing.subject import ModelFile, Subject, check_device
from deepjudge_core.bundles.settings import BundleSettings
from deepjudge_core.cli import display, exports, terminal
from deepjudge_core.cli.applying import options_of_each, with_base
from deepjudge_core.cli.auditfile.reading import read_plan
from deepjudge_core.cli.checking import Problems, check_models, check_output
from deepjudge_core.cli.command import Command
from deepjudge_core.cli.commands.calibrate import STRATUM
from deepjudge_core.cli.ending import seal, show_page, status_of, warn_of
from deepjudge_core.cli.many import FolderSettings, ManySettings
from deepjudge_core.cli.named import absent
from deepjudge_core.cli.nextsteps import after_audit, needs_controls
from deepjudge_core.cli.plan import OUTPUT, Plan, work_folder
from deepjudge_core.cli.sealing import BundleSession, register
from deepjudge_core.cli.sources import (
    MODELS,
    StratumControls,
    begun,
    controls_of,
    expand,
    folder_to_write,
    judge_of,
    load,
)
from deepjudge_core.cli.sparing import spare, spare_folder
from deepjudge_core.cli.status import STATUSES
from deepjudge_core.components.registry import Adapters, load_registry
from deepjudge_core.components.strata import Stratum
from deepjudge_core.errors import UsageError, refuse
from deepjudge_core.judging.calibration import Calibration
from deepjudge_core.judging.settings import CalibrationSettings, JudgeSettings
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.observing.settings import OpeningSettings, QuerySettings, victim_input_setting
from deepjudge_core.report.audit_json import audit_report
from deepjudge_core.report.settings import CaseSettings, ReportSettings
from deepjudge_core.sandbox.policy import Confinement
from deepjudge_core.settings import Names, Setting, argument, part, setting
from deepjudge_core.suites.settings import InputSettings, SuiteSettings
from deepjudge_core.suites.suite import Suite

_SHORT = 32  # digits of a digest in a name
_WITH_FILE = (
    ("output",),
    ("fresh",),
    ("make_controls",),
)  # what may be typed beside a file: it is of the run, and not of the audit


@dataclass(frozen=True, kw_only=True)
class AuditCommand(Command):
    """Make a suite, calibrate and judge suspects, all in one command."""

    usage = (
        "VICTIM SUSPECT... --inputs DATA [--controls CONTROL,...] [options] [-o DIR]",
        "VICTIM SUSPECT... --weights [--controls CONTROL,...] [options] [-o DIR]",
        "AUDIT.toml [-o DIR] [--fresh] [--make-controls]",
    )
    statuses = STATUSES

    victim: Path = argument(
        "VICTIM", "your model, the victim", key="path", tables=("victim",), sample="victim.onnx", reads=True
    )
    suspects: tuple[str, ...] = argument("SUSPECT", f"models to judge: {MODELS}", reads=True)
    controls: Annotated[tuple[str, ...], Names()] = setting(
        f"models independent of the victim, at least 3 for a statistical verdict: {MODELS}",
        "--controls",
        default=(),
        group="input",
        metavar="CONTROL,...",
        reads=True,
    )
    strata: tuple[StratumControls, ...] = setting(
        STRATUM, "--stratum", default=(), group="input", metavar="STRATUM=CONTROL,...", reads=True
    )
    inputs: InputSettings = part(InputSettings)
    data: Path | None = setting(
        "labelled data that the victim was trained on, from which controls are made if there are none",
        "--data",
        default=None,
        group="input",
        metavar="DATA",
        key="data",
        tables=("inputs",),
        sample="train.npz",
        reads=True,
    )
    make_controls: bool = setting(
        "make controls from --data without asking", "--make-controls", default=False, group="input"
    )
    suite: SuiteSettings = part(SuiteSettings)
    folders: FolderSettings = part(FolderSettings)
    calibration: CalibrationSettings = part(CalibrationSettings)
    judging: JudgeSettings = part(JudgeSettings)
    query: QuerySettings = part(QuerySettings)
    opening: OpeningSettings = part(OpeningSettings)
    preprocessing: Preprocessing | None = victim_input_setting()
    confinement: Confinement = part(Confinement)
    bundle: BundleSettings = part(BundleSettings)
    kept: CaseSettings = part(CaseSettings)
    forms: ReportSettings = part(ReportSettings)
    many: ManySettings = part(ManySettings)
    fresh: bool = setting(
        "make the suite again and ask every model again, even if an earlier run kept what it needs",
        "--fresh",
        default=False,
        group="output",
    )
    output: Path | None = setting(
        "folder for the report and everything it rests on",
        "-o",
        "--out",
        default=None,
        usual=str(OUTPUT),
        group="output",
        metavar="DIR",
        key="output",
        sample="audit",
        writes=True,
        formerly=("--output",),
    )

    @classmethod
    def instead(cls, words: Mapping[Setting, Sequence[str]]) -> Command | None:
        """A file that says all of the audit, if one is named.

        Raises:
            UsageError: When anything except its output folder is given as well: two statements of it could differ.
        """
        models = [word for one, typed in words.items() if one.path in (("victim",), ("suspects",)) for word in typed]
        file = next((word for word in models if word.lower().endswith(".toml") and not _describes_model(word)), None)
        if file is None:
            return None
        beside = [word for word in models if word != file]
        beside += [one.name for one in words if one.declared.flags and one.path not in _WITH_FILE]
        if beside:
            raise UsageError(
                f"{file} describes the whole audit: expected only -o, --fresh, --make-controls and --debug with it, "
                f"found {beside[0]}",
                code="conflict",
            )
        output = next((Path(typed[-1]) for one, typed in words.items() if one.path == ("output",)), None)
        named = {one.path for one in words}
        fresh, make = ("fresh",) in named, ("make_controls",) in named
        return AuditOfFile(file=Path(file), output=output, fresh=fresh, make_controls=make)

    def expect_there(self) -> None:
        """See the base class. A missing file is named together with all other mistakes, when the audit runs."""

    def run(self) -> int:
        """Audit."""
        session = begun(self.confinement)
        return run_plan(_controlled(self._plan(session), self.make_controls), session)

    def way_on(self) -> str:
        """See the base class."""
        return _way_on(self.output or OUTPUT)

    def _plan(self, session: Session) -> Plan:
        # All that can be wrong is looked at before anything is run, and said at once.
        problems, adapters, output = Problems(), session.registry.adapters, self.output or OUTPUT
        problems.add(self.absent())
        judge, found, beside_controls, forms = None, Found(), tuple[Skipped, ...](), dict[str, Path]()
        suspects, controls = list[Subject](), list[Subject]()
        victim = ModelFile(self.victim, query=QuerySettings(layout=self.query.layout, preprocessing=self.preprocessing))
        with problems.noted():
            offer = offer_of(self.suite, session, cases=self.inputs.path is not None)
            judge = judge_of(self.judging, session, offer)
        with problems.noted():
            found = expand(self.suspects, adapters, self.folders)
            groups, beside_controls = controls_of(self.controls, self.strata, adapters, self.folders)
            victim, controls, suspects = self._subjects(victim, groups, found.models, adapters)
            check_models(victim, controls, suspects, adapters, problems, run=self.inputs.path is not None)
        with problems.noted():
            check_output(output, victim.name, (self.inputs.path, self.data), chosen=self.output is not None)
        with problems.noted():
            forms = exports.checked(self.forms, output)
        problems.refuse()
        assert judge is not None  # noqa: S101 - refused otherwise
        return Plan(
            victim=victim,
            suspects=suspects,
            controls=controls,
            inputs=replace(self.inputs, layout=self.query.layout),
            suite=with_base(self.suite, self.opening.options),
            calibration=self.calibration,
            judge=judge,
            sandbox=self.confinement.policy,
            device=self.confinement.device,
            output=output,
            bundle=self.bundle,
            exports=forms,
            chosen=self.output is not None,
            words=self.words,
            fresh=self.fresh,
            data=self.data,
            kept=self.kept,
            many=self.many,
            skipped=found.skipped,
            beside_controls=beside_controls,
        )

    def _subjects(
        self, victim: ModelFile, groups: Sequence[tuple[str, Stratum | None]], names: Sequence[str], adapters: Adapters
    ) -> tuple[ModelFile, list[Subject], list[Subject]]:
        # What makes the network of weights alone is said of all files of weights, and a base of every LoRA; all else
        # of the suspects, which is not true of the controls.
        stated = dict(self.opening.options)
        files = [victim.name, *(name for name, _ in groups), *names]
        shared: dict[str, Any] = {name: stated.pop(name) for name in ("arch", "base") if name in stated}
        codes = options_of_each(files, shared, adapters, self.suite.ancestor)
        others = options_of_each(names, stated, adapters)
        beside = self.query.of_controls()
        controls = [
            Subject.of(name, query=beside, options=code, stratum=stratum)
            for (name, stratum), code in zip(groups, codes[1:], strict=False)
        ]
        suspects = [
            Subject.of(name, query=self.query, options=code | other)
            for name, code, other in zip(names, codes[len(groups) + 1 :], others, strict=True)
        ]
        return replace(victim, options=codes[0]), controls, suspects


def _describes_model(word: str) -> bool:
    return load_registry().adapters.is_remote(word)


@dataclass(frozen=True, kw_only=True)
class AuditOfFile(Command):
    """An audit that a file says.

    Attributes:
        file: The ``AUDIT.toml``.
        output: Where the outcome goes, if not where the file says.
        fresh: Whether nothing of an earlier run is used.
        make_controls: Whether controls are made without asking.
    """

    file: Path
    output: Path | None = None
    fresh: bool = False
    make_controls: bool = False

    def expect_there(self) -> None:
        """See the base class."""
        refuse([*absent(self.file)])

    def run(self) -> int:
        """Audit."""
        session = begun()
        plan = replace(read_plan(self.file, self.output, session, AuditCommand), words=self.words, fresh=self.fresh)
        problems, adapters = Problems(), session.registry.adapters
        with contextlib.chdir(plan.folder):
            run = plan.inputs.path is not None
            check_models(plan.victim, plan.controls, plan.suspects, adapters, problems, run=run)
        with problems.noted():
            check_output(plan.output, plan.victim.name, (plan.inputs.path, plan.data), chosen=plan.chosen)
        problems.refuse()
        return run_plan(_controlled(plan, self.make_controls), session)

    def way_on(self) -> str:
        """See the base class."""
        return "the same command goes on with what was made and answered so far"


class _ShownBundle(BundleSession):
    # Each part is kept, and shown, as soon as it is there; how many answers were there before is counted.

    stored = 0

    def on_suite_reused(self, suite: Suite) -> None:
        super().on_suite_reused(suite)
        terminal.say(terminal.console(), "suite: reused from an earlier run (--fresh makes it again)")

    def on_answer(self, event: QueryEvent) -> None:
        super().on_answer(event)
        self.stored += event.stored

    def on_suite(self, suite: Suite) -> None:
        display.show_suite(terminal.console(), suite)
        super().on_suite(suite)

    def on_calibration(self, calibration: Calibration) -> None:
        warn_of(calibration)
        super().on_calibration(calibration)
        if calibration.controls:
            display.show_calibration(terminal.console(), calibration, limited=False)


def kept_folder(plan: Plan) -> Path:
    """Where suite and answers are kept for the next run of the same audit, from where the user is.

    Each commitment, and no commitment, has a folder of its own, so earlier answers are not reused under a new one.
    """
    folder, commitment = work_folder(plan.output) / "kept", plan.bundle.commitment
    if commitment is None:
        return folder
    path = plan.folder / commitment
    return folder / (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "none")


def _controlled(plan: Plan, agreed: bool) -> Plan:
    from deepjudge_core.cli.controls import with_controls  # which knows this command, to name it

    return with_controls(plan, work_folder(plan.output) / "zoo", agreed=agreed)


def _way_on(output: Path) -> str:
    folder = work_folder(output)
    return f"the same command goes on; {folder} has what was made and answered so far" if folder.is_dir() else ""


def run_plan(plan: Plan, session: Session) -> int:
    """Audit, keep each part as soon as it is there, show the report and write it."""
    out, folder = terminal.console(), folder_to_write(plan.output).absolute()
    written = [path.absolute() for path in plan.exports.values()]
    start, kept = time.time() - 1, kept_folder(plan).absolute()
    with contextlib.chdir(plan.folder):
        asked = [*plan.controls, *plan.suspects]
        models = [subject.name for subject in (plan.victim, *asked)]
        of_victim = (plan.bundle.victim_commitment, plan.bundle.victim_tsa_response)
        sealing = (plan.bundle.commitment, plan.bundle.tsa_response, plan.bundle.key, *of_victim)
        spare([*filter(None, (plan.inputs.path, *sealing, plan.file))], written)
        bases = [subject.options.get("base") for subject in [plan.victim, *asked] if isinstance(subject, ModelFile)]
        spare(
            [*models, plan.suite.ancestor, plan.suite.ancestor_base, *bases], written, models=session.registry.adapters
        )
        session = replace(session, sandbox=plan.sandbox, device=plan.device)
        check_device([plan.victim, *asked], session)  # before anything is written
        bundle = _ShownBundle(plan.bundle, plan.judge, folder, session)
        bundle.spare(asked)
        spare_folder(models, folder)
        if plan.fresh:
            forget(kept)
        outcome = audit(
            plan.victim,
            plan.suspects,
            load(plan.inputs),
            controls=plan.controls,
            settings=AuditSettings(plan.suite, plan.calibration, plan.judge),
            session=replace(session, listener=bundle, kept=kept),
        )
    forget(kept, before=start)
    reused = bundle.stored - sum(subject.stored for subject in asked)
    if reused:
        terminal.say(out, f"answers: {reused} of {len(asked)} reused from an earlier run (--fresh asks again)")
    outcome = replace(outcome, skipped=tuple(plan.skipped))
    display.show_skipped(out, plan.beside_controls)
    display.show_report(out, outcome, plan.many)
    if needs_controls(outcome):
        for line in after_audit(plan, work_folder(plan.output) / "zoo"):
            terminal.say(out, line)
    runs = work_folder(plan.output) / f"{outcome.suite.digest[:_SHORT]}.runs.jsonl"
    bundle.register = register(outcome.suite, outcome.calibration, outcome.judge, outcome, runs)
    report = bundle.dated(audit_report(outcome, plan.kept.made()))
    exports.write(plan.exports, report, out, seal(bundle, report, plan.output, out))
    show_page(plan.output, out)
    return status_of(outcome, strict=plan.many.strict)
