"""What a command is: a frozen dataclass of its settings, with what it does and how it ends."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from deepjudge_core.cli.named import absent
from deepjudge_core.cli.sparing import spare
from deepjudge_core.errors import DeepJudgeError, refuse
from deepjudge_core.settings import Setting, settings_of


def flags_of(commands: Sequence[type["Command"]]) -> Mapping[str, str]:
    """What commands call their settings, for :func:`~deepjudge_core.naming.flagged`.

    Returns:
        Field, alone and behind its class and a dot, to flag. Alone it is a keyword of a function: what a command itself
        has comes before what its parts have, and where a command writes is none.
    """
    flags: dict[str, str] = {}
    own: dict[str, str] = {}
    parts: dict[str, set[str]] = {}
    for setting in (one for command in commands for one in command.settings() if one.declared.flags):
        field = setting.path[-1]
        flags[f"{setting.owner}.{field}"] = setting.name
        if len(setting.path) > 1:
            parts.setdefault(field, set()).add(setting.name)
        elif not setting.declared.writes:
            own[field] = setting.name
    return flags | {field: names.pop() for field, names in parts.items() if len(names) == 1} | own


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command; its docstring's first sentence is its help, and its class is called by its name.

    Attributes:
        usage: What may be typed behind its name, where that is not what its settings say.
        hints: What is said of options that it does not have, where more is known of them.
        statuses: What its exit status says, where that is more than whether it failed.
        words: What was typed after ``deepjudge``, for messages that say what to type next.
    """

    words: tuple[str, ...] = field(default=(), compare=False, repr=False)

    usage: ClassVar[Sequence[str]] = ()
    hints: ClassVar[Mapping[str, str]] = {}
    statuses: ClassVar[Mapping[int, str]] = {}

    @classmethod
    def called(cls) -> str:
        """Its name."""
        return cls.__name__.removesuffix("Command").lower()

    @classmethod
    def summary(cls) -> str:
        """What it does, in a sentence."""
        return (cls.__doc__ or "").strip().partition("\n")[0]

    @classmethod
    def settings(cls) -> tuple[Setting, ...]:
        """Its settings, but for those that stand in files only."""
        settings = (one for one in settings_of(cls, cls.called()) if cls.called() not in one.declared.filed)
        return tuple(one for one in settings if one.declared.flags or one.declared.positional)

    @classmethod
    def instead(cls, words: Mapping[Setting, Sequence[str]]) -> "Command | None":
        """Another command that such words ask for; None for this one.

        Args:
            words: What stands on the command line, by setting.
        """
        return None

    def run(self) -> int:
        """Do it.

        Returns:
            The exit status.

        Raises:
            DeepJudgeError: When it cannot be done.
        """
        raise NotImplementedError

    def way_on(self) -> str:
        """How to go on after an interruption; empty if the only way is from the start."""
        return ""

    def absent(self) -> list[DeepJudgeError]:
        """What it names that is not there."""
        read = (self.value_of(one) for one in self.settings() if one.declared.reads)
        return list({str(error): error for value in read for error in absent(value)}.values())

    def expect_there(self) -> None:
        """Look whether all that it reads is there, before it is run.

        Raises:
            UsageError: When it is not so.
        """
        refuse(self.absent())

    def checked(self) -> Self:
        """The command, if it writes over no file that it reads, such as the suite or a private key.

        Raises:
            UsageError: When it would.
        """
        settings = self.settings()
        read = [path for one in settings if one.declared.reads for path in _files(self.value_of(one))]
        spare(read, [path for one in settings if one.declared.writes for path in _files(self.value_of(one))])
        return self

    def value_of(self, setting: Setting) -> Any:
        """The value of one of its settings."""
        value: Any = self
        for name in setting.path:
            value = getattr(value, name)
        return value


def _files(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, str):
        yield Path(value)
        if ":" in value:  # FILE:KEY
            yield Path(value.rpartition(":")[0])
    elif isinstance(value, tuple):
        for one in value:
            yield from _files(one)
    elif hasattr(value, "names"):
        yield from _files(value.names)
