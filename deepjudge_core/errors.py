"""Errors that a person can act on: what was expected, what was found, what to do."""

from collections.abc import Iterable, Mapping, Sequence

from deepjudge_core.text import LONGEST_LINE, clean


class DeepJudgeError(Exception):
    """Base of every error that this package raises on purpose; its text is one clean line for the user.

    Attributes:
        code: What happened, as one of :data:`CODES`: it stays when the words change.
    """

    code = "error"

    def __init__(self, text: str, *, code: str | None = None) -> None:
        """Say what happened.

        Args:
            text: What was expected, what was found, and what to do.
            code: One of :data:`CODES`; that of the class by default.
        """
        super().__init__(clean(text, LONGEST_LINE))
        if code is not None:
            self.code = code

    @property
    def each(self) -> Sequence[str]:
        """A line, with its code behind it, for each thing that is wrong."""
        return [with_code(str(self), self)]


class UsageError(DeepJudgeError):
    """The call itself is wrong: an unknown name, option or key, or a combination that cannot be."""

    code = "wrong-usage"


class MistakesError(UsageError):
    """Several things are wrong with what was given: a line for each.

    Attributes:
        lines: The lines.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("; ".join(self.lines))

    @property
    def each(self) -> Sequence[str]:
        """See :class:`DeepJudgeError`."""
        return [with_code(line, self) for line in self.lines]


class RefusedError(UsageError):
    """Several things are wrong at once, each of which is an error of its own.

    Attributes:
        errors: What is wrong.
    """

    def __init__(self, errors: Sequence[DeepJudgeError]) -> None:
        """Gather errors; the code is that of the first one."""
        self.errors = tuple(errors)
        super().__init__("; ".join(map(str, errors)), code=errors[0].code)

    @property
    def each(self) -> Sequence[str]:
        """See :class:`DeepJudgeError`."""
        return [line for error in self.errors for line in error.each]


def refuse(errors: Sequence[DeepJudgeError]) -> None:
    """End with these errors, all at once, if there are any.

    Raises:
        RefusedError: With all of them.
    """
    if errors:
        raise RefusedError(errors)


class WrongTypeError(UsageError, TypeError):
    """Something of another kind was given: the line says what was expected, and what makes it."""

    code = "wrong-type"


class ModelError(DeepJudgeError):
    """A model cannot be opened, or does not answer as a classifier of this suite must.

    Where a code is given it stands behind the text: what is said of a stranger's model is read in reports, too.
    """

    code = "unusable-model"

    def __init__(self, text: str, *, code: str | None = None) -> None:
        """Say what happened; see the base class."""
        super().__init__(f"{text} ({code})" if code else text, code=code)


class MissingExtraError(ModelError):
    """A library that is needed is not installed; the text says what mends it, as a rule ``pip install``."""

    code = "missing-extra"

    def __init__(self, source: str, framework: str, extra: str, mend: str | None = None) -> None:
        mend = mend or f"pip install 'deepjudge[{extra}]'"
        are = "are" if " and " in framework else "is"
        super().__init__(f"{source}: needs {framework}, which {are} not installed: {mend}")


class InputError(DeepJudgeError):
    """Inputs or labels do not fit: missing keys, shapes, bounds, label range."""

    code = "wrong-inputs"


class UnfitError(InputError):
    """Victim and inputs are such that no verdict could rest on a suite of them; whoever knows better can insist."""

    code = "no-verdict"


class ErringVictimError(UnfitError):
    """The victim classifies hardly any input correctly: labels or inputs may not be what it was trained for.

    Attributes:
        found: What was found, without what to do.
    """

    def __init__(self, found: str, way_out: str) -> None:
        """Say what was found, and what to do."""
        super().__init__(f"{found}; {way_out}")
        self.found = found


class GenerationError(DeepJudgeError):
    """A generator could not make the cases that a suite needs."""

    code = "no-cases"


class FileFormatError(DeepJudgeError):
    """A file of this tool is damaged, of another kind, or belongs to another suite."""

    code = "wrong-file"


class CalibrationError(DeepJudgeError):
    """The controls cannot serve as controls."""

    code = "wrong-controls"


class EmbeddingError(DeepJudgeError):
    """A key was not learnt, or costs too much accuracy; nothing was written."""

    code = "not-embedded"


class IncomparableError(DeepJudgeError):
    """A metric cannot compare these two models: its value would mean nothing. The text says why."""

    code = "not-comparable"


class PluginError(DeepJudgeError):
    """A plugin failed, or two plugins claim one name."""

    code = "plugin-failed"


CODES: Mapping[str, str] = {
    # The command line and the calls of a program.
    "wrong-usage": "the call or the command line is wrong; the message says what was expected",
    "unknown-name": "no component, layer, class or key has this name; the message lists those available",
    "unknown-option": "the component has no such option; the message lists its options",
    "wrong-type": "something of another kind was given; the line says what was expected",
    "wrong-value": "the value of an option or key is impossible; the message says which values are allowed",
    "missing-value": "a required value is missing",
    "conflict": "two options exclude each other, or one needs another",
    "would-overwrite": "the command would overwrite one of its inputs, or something that already exists",
    "audit-file": "an AUDIT.toml has mistakes; the message lists each with its line",
    "other-than-committed": "the suite, the controls or the settings differ from the commitment",
    # Files.
    "wrong-file": "a deepjudge file is of another kind, or belongs to another suite",
    "damaged-file": "a file was changed after it was written: its digest differs, or parts are missing",
    "cannot-read": "a file cannot be read, or is not there",
    "cannot-write": "a file cannot be written",
    "wrong-inputs": "inputs or labels do not fit: wrong or missing keys, shapes, bounds or labels",
    "no-verdict": ("a suite of this victim and these inputs cannot support a verdict; `--force` makes it anyway"),
    # Components and controls.
    "no-cases": "a generator made no usable cases",
    "wrong-controls": "the controls cannot serve as controls",
    "not-embedded": "a key was not learnt, or embedding it costs too much accuracy; nothing was written",
    "not-comparable": "a metric cannot compare two models; the message says why",
    "plugin-failed": "a plugin failed, or two plugins claim the same name",
    "missing-extra": "a library is not installed; the message says how to install it",
    # Models.
    "unusable-model": "the model cannot be used for this; the message says why",
    "not-a-file": "it is not a regular file but a link, pipe, device or similar, or it comes with one",
    "too-large": "it has too many bytes, files or folders, or its answer to a batch exceeds 2 GiB",
    "wrong-format": "its content does not match its name, is damaged, or is of a kind that is never opened",
    "stored-answers": "it is a stored observation, and not a model; `--stored` accepts it as the claim that it is",
    "needs-sandbox": "its format is opened only in the full sandbox, which this system does not have",
    "no-device": "`--device` asks for a GPU, and its framework can use none here",
    "no-sandbox": "--require-sandbox was given, and this system does not have the full sandbox",
    "cannot-open": "its adapter refused it, or the framework could not read it",
    "no-weights": "its weights cannot be read without running it, or nothing of them can be compared",
    "other-inputs": "it takes inputs of another shape than the suite's, and resized ones tell nothing",
    "cannot-answer": "it was opened, but failed on the suite's inputs",
    "bad-answer": "it answered with NaN or infinity, with the wrong shape, or with an invalid message",
    "over-budget": "its budget of queries is spent or too small; its answers are kept",
    "timed-out": "it did not open, or did not answer a batch, within --timeout",
    "out-of-memory": "it needed more than --memory",
    "too-much-written": "it wrote more than 1 GiB or 10,000 files",
    "too-many-threads": "it started more than 256 threads, and 16 for each processor",
    "crashed": "its process crashed, or was ended by the system",
    "error": "anything else",
}
"""Every code, and what it means. The documentation's table is made of this."""


def with_code(line: str, error: DeepJudgeError) -> str:
    """A line of an error with its code behind it, once."""
    code = f"({error.code})"
    return line if line.endswith(code) else f"{line} {code}"


_LONGEST = 500  # characters of what a library says


def first_line(error: BaseException) -> str:
    """What a library says first of an error, whose further lines are for its developers; its kind where that helps."""
    lines = str(error).strip().splitlines()
    if not lines:
        return clean(type(error).__name__, _LONGEST)
    bare = isinstance(error, KeyError | AttributeError | TypeError | IndexError)  # of which the words alone say little
    return clean(f"{type(error).__name__}: {lines[0]}" if bare else lines[0], _LONGEST)


def one_line(error: BaseException) -> str:
    """All that a plugin's error says, with its kind, on one line."""
    return clean(" ".join(f"{type(error).__name__}: {error}".split()), _LONGEST)
