"""The whole flow: victim and suspects in, an outcome out."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from deepjudge_core.auditing.kept import recalled, recalled_suite
from deepjudge_core.auditing.marked import asked_keys, check_keys, suite_with_keys
from deepjudge_core.auditing.outcome import AuditOutcome, SuspectResult
from deepjudge_core.auditing.owner import owner_of
from deepjudge_core.auditing.session import QueryEvent, Session
from deepjudge_core.auditing.settings import AuditSettings
from deepjudge_core.auditing.sketches import suite_of_weights, suite_with_weights
from deepjudge_core.auditing.subject import (
    Answer,
    ModelFile,
    ObservationFile,
    Subject,
    answer_each,
    check_device,
    failing,
    turns,
)
from deepjudge_core.components.kinds import Metric
from deepjudge_core.components.schemes import Key
from deepjudge_core.components.strata import Stratum
from deepjudge_core.components.values import Decision
from deepjudge_core.errors import (
    CalibrationError,
    DeepJudgeError,
    ErringVictimError,
    FileFormatError,
    UsageError,
)
from deepjudge_core.files.digests import file_key
from deepjudge_core.judging.accuracy import accuracy_on_seeds
from deepjudge_core.judging.apart import DrawnJudge, upheld
from deepjudge_core.judging.calibration import Calibration, calibrate_by, check_not_a_control
from deepjudge_core.judging.facts import established, same_files, same_model
from deepjudge_core.judging.fitting import Offer, fitting_metrics
from deepjudge_core.judging.judge import Judge
from deepjudge_core.judging.nearer import explained, nearer_model
from deepjudge_core.judging.sequential import unasked
from deepjudge_core.judging.settings import CalibrationSettings
from deepjudge_core.judging.verdict import GROUPS, Setting, Verdict, in_words
from deepjudge_core.judging.view import View
from deepjudge_core.models.asking import SameAnswerError
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.naming import option
from deepjudge_core.observing.victims import remedy
from deepjudge_core.suites.challenge import Given
from deepjudge_core.suites.choice import GeneratorChoice
from deepjudge_core.suites.drawing import generate_drawn
from deepjudge_core.suites.generation import generate_suite
from deepjudge_core.suites.inputs import Offered
from deepjudge_core.suites.keys import load_keys
from deepjudge_core.suites.labels import has_several
from deepjudge_core.suites.observation import Observation
from deepjudge_core.suites.profile import choices_of
from deepjudge_core.suites.seeds import select_seeds
from deepjudge_core.suites.settings import SuiteSettings
from deepjudge_core.suites.suite import Suite, check_suite
from deepjudge_core.zoo.manifest import ZooModel, recorded_control


def make_suite(
    victim: Any,
    inputs: Offered | None,
    settings: SuiteSettings | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    challenge: Given | None = None,
    session: Session | None = None,
) -> Suite:
    """Open the victim, select seeds and make test cases from them; and sketch its weights, if they can be read.

    Args:
        victim: The owner's model: a path, a live model, or a :class:`Subject`.
        inputs: What seeds are selected from; None for a suite of weights alone, for which nobody is run. Images that
            were standardised are brought back to 0..1, in which suites keep them, so that each suspect's own
            preprocessing can be found.
        settings: How.
        preprocessing: What the victim expects of inputs in 0..1; by default what its subject's query says, or how the
            inputs were standardised.
        challenge: What half of the seeds are drawn by; None to select all by their order.
        session: Where generators and adapters are, and how a victim's file is confined.

    Raises:
        DeepJudgeError: When the victim or the inputs cannot be used.
    """
    session, settings, victim = session or Session(), settings or SuiteSettings(), Subject.of(victim)
    keys = load_keys(settings.keys)
    if inputs is None and challenge is not None:
        raise UsageError("a challenge draws inputs, found a suite of weights alone; offer inputs", code="conflict")
    if inputs is None:
        if keys:
            raise UsageError("keys need inputs, found a suite of weights alone; offer inputs", code="conflict")
        return suite_of_weights(victim, settings, session)
    suite = _make_cases(victim, inputs, settings, preprocessing, session, keys, challenge)
    return suite_with_keys(suite_with_weights(suite, victim, settings, session), victim, keys, session)


def _make_cases(
    victim: Subject,
    inputs: Offered,
    settings: SuiteSettings,
    preprocessing: Preprocessing | None,
    session: Session,
    keys: Mapping[str, Key],
    given_challenge: Given | None,
) -> Suite:
    # Before the victim is run, which may take long.
    generators = GeneratorChoice.of(settings, session.registry.generators)
    if inputs.y is None and "mistakes" in {generator.component.makes for generator in generators.generators}:
        raise UsageError(
            "mistakes: expected inputs with labels, found the victim's own answers as labels, which are never wrong",
            code="conflict",
        )
    if given_challenge and settings.pictures:
        raise UsageError(
            "expected cases of any numbers, because what pictures lose would hide what a challenge draws; found "
            f"{option('pictures', settings.pictures)}",
            code="conflict",
        )
    with owner_of(victim, inputs, preprocessing, session) as owner:
        given = owner.inputs
        drawing = given_challenge and given_challenge.of(len(given.x), settings.n)
        try:
            seeds = select_seeds(
                owner.model,
                given.x,
                given.y,
                n=settings.n,
                order=settings.order,
                bounds=given.bounds,
                layout=given.layout,
                victim_layout=owner.layout,
                force=settings.force,
                ranked=drawing.ranked() if drawing else None,
            )
        except (ErringVictimError, SameAnswerError) as error:
            mend = (
                None
                if given.y is None or has_several(given.y)
                else remedy(owner.model, given, owner.preprocessing, inputs.classes)
            )
            if mend is None:
                raise
            found = error.found if isinstance(error, ErringVictimError) else str(error)
            raise ErringVictimError(found, mend) from error
        seeds = replace(seeds, notes=(*owner.notes, *seeds.notes))
        if keys:
            alone = generate_suite(owner.model, seeds, GeneratorChoice(()), layout=given.layout, layers=settings.layers)
            check_keys(alone, owner.model, keys, session)
        if drawing:
            suite = generate_drawn(
                owner.model,
                seeds,
                generators,
                drawing,
                training_inputs=given.training,
                layout=given.layout,
                settings=settings,
                registry=session.registry,
            )
        else:
            suite = generate_suite(
                owner.model,
                seeds,
                generators,
                training_inputs=given.training,
                layout=given.layout,
                layers=settings.layers,
                seed=settings.seed,
                force=settings.force,
                pictures=settings.pictures,
            )
        if keys:
            suite = asked_keys(suite, owner.model, keys)
        return replace(suite, fitting=given.fitting, origin=inputs.origin, choices=choices_of(settings, generators))


def ask_controls(
    suite: Suite,
    controls: Iterable[Any],
    settings: CalibrationSettings | None = None,
    *,
    metrics: Sequence[Metric] | None = None,
    session: Session | None = None,
) -> Calibration:
    """Let the controls answer, and measure them.

    Args:
        suite: The suite.
        controls: Models known to be independent of the victim, as paths, live models, or :class:`Subject`. The stratum
            of one that does not say is what the ``zoo.json`` beside it records; one that is far less accurate than the
            victim, as that says or its answers to the seeds show, sets no thresholds.
        settings: How they are measured.
        metrics: What is measured; by default what is measured where no metrics are named.
        session: Where the adapters are, how files are confined, and who hears of each control that has answered.

    Raises:
        DeepJudgeError: When a control cannot be used.
    """
    session, settings = session or Session(), settings or CalibrationSettings()
    subjects, strata, notes = list[Subject](), list[Stratum | None](), dict[str, None]()
    for subject in map(Subject.of, controls):
        record = None
        try:
            record = _record_beside(subject, suite.victim.model.digest)
        except FileFormatError as error:  # nobody asked for it, and it may be somebody else's
            notes[f"{error}; the record was ignored"] = None
        if record and record.far and not settings.far:
            notes[
                (
                    f"{subject.name}: left out: it classifies {record.accuracy or 0:.1%} of its zoo's test "
                    f"data correctly, which is far below the victim's accuracy; {option('far', True)} counts "
                    "it"
                )
            ] = None
            continue
        subjects.append(subject)
        strata.append(subject.stratum or (record.stratum if record else None))
    check_device(subjects, session)
    subjects, answers = recalled(subjects, suite, session), []
    asking = turns("asking", subjects, "control")
    with asking as turn, contextlib.closing(answer_each(subjects, suite, session)) as answering:
        for subject, answer in zip(subjects, answering, strict=True):
            answers.append(answer())
            turn(subject, "answered before" if subject.stored else "answered")
            session.listener.on_answer(QueryEvent("control", subject.name, answers[-1], subject.stored))
    if metrics is None:
        metrics, _ = fitting_metrics(session.registry.metrics, None, Offer.of(suite))
    return calibrate_by(
        metrics, suite, answers, match=settings.match, strata=strata, far=settings.far, notes=tuple(notes)
    )


def _as_suspect(subject: Subject, session: Session) -> Subject:
    return subject.as_suspect(session) if isinstance(subject, ObservationFile) else subject


def _record_beside(control: Subject, victim: str) -> ZooModel | None:
    return recorded_control(Path(control.path), victim) if isinstance(control, ModelFile | ObservationFile) else None


def judge_suspects(
    suite: Suite,
    calibration: Calibration,
    suspects: Iterable[Any],
    judge: Judge,
    *,
    session: Session | None = None,
) -> AuditOutcome:
    """Judge suspects, each by itself: one that fails does not keep the others from being judged.

    Args:
        suite: The suite.
        calibration: The controls; without any, values are given and the verdict is inconclusive but of
            a suspect that is the victim, unchanged.
        suspects: Paths of models or stored observations, live models, observations, or any of these as a
            :class:`Subject`, which says how it is opened and asked.
        judge: By what.
        session: Where the adapters are, how files are confined, and who hears of each suspect that has answered or
            failed to.

    Raises:
        UsageError: When all suspects are to be asked for what the suite does not have; a single one fails.
    """
    session = session or Session()
    subjects = [_as_suspect(Subject.of(suspect), session) for suspect in suspects]
    _check_some(subjects, suite)
    check_device(subjects, session)
    claimed = [subject.claimed for subject in subjects]
    files = (file_key(Path(subject.path)) for subject in subjects if isinstance(subject, ModelFile))
    session = replace(session, models=session.models | frozenset(filter(None, files)))
    if judge.settings.sequential and suite.challenge:
        raise UsageError(
            "expected a suite without a challenge, because sequential judging cannot show the drawn cases apart; found "
            "one with a challenge",
            code="conflict",
        )
    if judge.settings.sequential and not suite.has_cases:
        raise UsageError("expected a suite with cases to ask one by one, found one of weights alone", code="conflict")
    if not judge.settings.sequential:
        subjects = recalled(subjects, suite, session)
    drawing = DrawnJudge(suite, calibration, judge) if suite.challenge and subjects else None
    together, results = judge.settings.fdr, list[SuspectResult]()
    with turns("judging", subjects, "suspect") as turn:
        results_of_each = _each(suite, calibration, judge, subjects, session)
        for subject, stored, found in zip(subjects, claimed, results_of_each, strict=True):
            result = replace(found, stored=stored and found.model is not None, published=subject.query.published)
            # All together are judged once more: what is said of one alone would not hold.
            result = result if together else _apart(_explained(result, suite, calibration), drawing)
            results.append(_without_arrays(result, subject))
            said = "answered" if together and result.verdict else in_words(result.decision, result.points_to)
            turn(subject, said)
    if judge.settings.sequential:
        return AuditOutcome(suite, calibration, judge, tuple(results))
    if together is not None:
        results = _judge_together(results, calibration, judge, together)
        results = [_apart(_explained(result, suite, calibration), drawing) for result in results]
    return AuditOutcome(suite, calibration, judge, tuple(results), judge.doubts(calibration))


def audit(
    victim: Any,
    suspects: Iterable[Any],
    inputs: Offered | None,
    *,
    controls: Iterable[Any] = (),
    settings: AuditSettings | None = None,
    session: Session | None = None,
) -> AuditOutcome:
    """Audit suspects in one go: suite, controls, verdicts.

    A model is a path or a live model, or a :class:`Subject`, which says how it is opened and asked.

    Args:
        victim: The owner's model.
        suspects: What is judged; stored observations too.
        inputs: What seeds are selected from; None to compare weights alone.
        controls: Models known to be independent of the victim, at least 3 for a verdict.
        settings: How the suite is made, controls are measured and suspects are judged.
        session: Where the components are, how files are confined, and who hears of each part as soon as it is there.

    Raises:
        DeepJudgeError: When the victim, the inputs or a control cannot be used.
    """
    settings, session = settings or AuditSettings(), session or Session()
    judge = settings.judge if isinstance(settings.judge, Judge) else Judge.of(settings.judge, session.registry)
    if judge.settings.sequential:
        raise UsageError(
            "expected an audit, which asks for all answers, found sequential judging; use a suite "
            "and judge its suspects",
            code="conflict",
        )
    if not isinstance(settings.judge, Judge):
        judge = Judge.of(settings.judge, session.registry, offer_of(settings.suite, session, cases=inputs is not None))
    independents, accused = ([Subject.of(source) for source in sources] for sources in (controls, suspects))
    owner, chosen = Subject.of(victim), settings.suite
    check_device([owner, *independents, *accused], session)
    suite = recalled_suite(owner, inputs, chosen, session, lambda: make_suite(owner, inputs, chosen, session=session))
    judge = judge.fitted(session.registry, Offer.of(suite))
    session.listener.on_judge(judge)
    session.listener.on_suite(suite)
    for subject in independents:
        subject.check(suite)
    _check_some(accused, suite)
    calibration = ask_controls(suite, independents, settings.calibration, metrics=judge.metrics, session=session)
    session.listener.on_calibration(calibration)
    return judge_suspects(suite, calibration, accused, judge, session=session)


def offer_of(settings: SuiteSettings, session: Session, *, cases: bool) -> Offer:
    """What a suite is going to have to be measured on, as far as that is known before it is made.

    Args:
        settings: How it is made.
        session: Where the generators are.
        cases: Whether there are inputs.
    """
    makes = GeneratorChoice.of(settings, session.registry.generators).makes if cases else ()
    ancestor = settings.ancestor is not None
    return Offer(makes, cases, settings.weights or ancestor or not cases, ancestor, cases)


def _check_some(suspects: Sequence[Subject], suite: Suite) -> None:
    # Before any is asked: what fits none of them is a mistake of the command. One that does not fit fails alone.
    refused = list[UsageError]()
    for suspect in suspects:
        try:
            suspect.check(suite)
        except UsageError as error:
            refused.append(error)
        else:
            return
    if refused:
        raise refused[0]


def _each(
    suite: Suite, calibration: Calibration, judge: Judge, subjects: Sequence[Subject], session: Session
) -> Iterator[SuspectResult]:
    # What comes of each by itself.
    if judge.settings.sequential:
        yield from (_ask_one_by_one(suite, calibration, judge, subject, session) for subject in subjects)
        return
    with contextlib.closing(answer_each(subjects, suite, session)) as answering:
        for subject, answer in zip(subjects, answering, strict=True):
            yield judge_one(suite, calibration, judge, subject, answer, session)


def judge_one(
    suite: Suite, calibration: Calibration, judge: Judge, suspect: Subject, answer: Answer, session: Session
) -> SuspectResult:
    """Let a suspect answer, and judge it by its distances alone; what fails is its result.

    Args:
        suite: The suite.
        calibration: The controls.
        judge: By what.
        suspect: Who.
        answer: Lets it answer.
        session: Who hears of its answers.

    Raises:
        UsageError: For an impossible value of a rule's option.
    """
    try:
        observation = answer()
    except DeepJudgeError as error:
        session.listener.on_answer(QueryEvent("suspect", suspect.name, None, suspect.stored, str(error)))
        return SuspectResult(suspect.name, failure=str(error))
    session.listener.on_answer(QueryEvent("suspect", suspect.name, observation, suspect.stored))
    result = SuspectResult(suspect.name, observation.model, observation=observation)
    try:
        with failing(suspect.name):
            check_suite(suite, observation)  # before anything compares case by case
            accuracy = accuracy_on_seeds(suite, observation)
            result = replace(result, accuracy=accuracy.share if accuracy else None)
            measurements = judge.measure(suite, observation, calibration.match, calibration.siblings())
            check_not_a_control(calibration, observation)
            verdict = judge.judge(measurements, calibration)
    except UsageError:  # an impossible value of a rule's option
        raise
    except DeepJudgeError as error:
        return replace(result, failure=str(error))
    return replace(
        result,
        measurements=measurements,
        verdict=verdict,
        errors=tuple(f"{name}: {m.reason}" for name, m in measurements.items() if m.failed),
    )


def _explained(result: SuspectResult, suite: Suite, calibration: Calibration) -> SuspectResult:
    # What is known of a suspect beside its distances: that it is the victim, or a copy of another model.
    if result.verdict is None or result.observation is None:
        return result
    try:
        observation = cast(Observation, result.answers())
    except DeepJudgeError as error:
        return replace(result, verdict=None, failure=str(error))
    fact = same_model(suite, observation, calibration)
    if fact:
        return replace(result, verdict=established(result.verdict, fact))
    if result.decision is not Decision.COPY:
        return result
    return replace(result, verdict=explained(result.verdict, nearer_model(suite, observation, calibration)))


def _without_arrays(result: SuspectResult, suspect: Subject) -> SuspectResult:
    # Of a thousand suspects, the answers would not be in memory together.
    if result.observation is None or suspect.again is None:
        return result
    return replace(result, observation=result.observation.without_arrays(), again=suspect.again)


def _apart(result: SuspectResult, drawing: DrawnJudge | None) -> SuspectResult:
    # What the cases say that nobody could choose, which every other one has to stand up to.
    if drawing is None or result.verdict is None or result.observation is None:
        return result
    try:
        drawn = drawing.judge(result.observation)
    except UsageError:
        raise
    except DeepJudgeError as error:
        return replace(result, verdict=None, failure=f"{result.path}: by the drawn cases: {error}")
    return replace(result, drawn=drawn, verdict=upheld(result.verdict, drawn))


def _ask_one_by_one(
    suite: Suite, calibration: Calibration, judge: Judge, suspect: Subject, session: Session
) -> SuspectResult:
    result = SuspectResult(suspect.name)
    try:
        suspect.check(suite)
    except UsageError as error:
        return replace(result, failure=str(error))
    try:
        with failing(suspect.name), suspect.labelling(suite, session) as asking:
            model = asking.model
            result = replace(result, model=model)
            if model.digest in {control.model.digest for control in calibration.controls}:
                raise CalibrationError(f"{model.name}: expected a suspect, found a control; a model cannot be both")
            fact = same_files(suite.victim.model, model)
            if fact:  # which no answer could change
                nothing: dict[str, Setting] = {group: Setting(None, reason=fact) for group in GROUPS} | unasked(suite)
                return replace(result, verdict=Verdict(Decision.COPY, "weights", nothing, {}, fact))
            view = None if asking.compared is None else View.where(asking.compared, asking.kept)
            verdict, sequential = judge.judge_sequentially(suite, calibration, asking.label, view)
    except UsageError:
        raise
    except DeepJudgeError as error:
        return replace(result, failure=str(error))
    return replace(result, verdict=verdict, sequential=sequential)


def _judge_together(
    results: Sequence[SuspectResult], calibration: Calibration, judge: Judge, fdr: float
) -> list[SuspectResult]:
    # Again, all that could be judged by themselves.
    verdicts, fleet = judge.judge_fleet([result.measurements for result in results], calibration, fdr)
    return [
        replace(result, verdict=verdict, tested=tested)
        for result, verdict, tested in zip(results, verdicts, fleet.suspects, strict=True)
    ]
