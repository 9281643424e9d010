"""The command line of one command, made of its settings with click: parsing, help, hints and completion."""

import difflib
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from deepjudge_core.cli.command import Command
from deepjudge_core.cli.general import DEBUG, GENERAL, PROGRAM, Line, debug_option, format_statuses
from deepjudge_core.cli.kinds import Items, Kind, Maybe, Truth, kind_of_setting
from deepjudge_core.components.registry import load_registry
from deepjudge_core.errors import DeepJudgeError, UsageError
from deepjudge_core.settings import GROUPS, Setting, build

_REMARKS, _WORDS = "remarks", "words"


def parser_of(owner: type[Command]) -> click.Command:
    """The parser of a command."""
    return _Command(owner)


class _Command(click.Command):
    """A command, whose options are those of its settings."""

    def __init__(self, owner: type[Command]) -> None:
        self.owner = owner
        self.own = {f"p{place}": setting for place, setting in enumerate(owner.settings())}
        super().__init__(
            owner.called(),
            params=[*(_parameter(name, setting) for name, setting in self.own.items()), debug_option()],
            help=owner.summary(),
            callback=self.of_words,
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As the base class, but no option takes another one for its value."""
        ctx.meta[_REMARKS], ctx.meta[_WORDS] = tuple(self._spaced_lists(args)), (str(self.name), *args)
        try:
            return super().parse_args(ctx, args)
        finally:
            self._refuse_options_as_values(ctx.params)

    def _spaced_lists(self, words: Sequence[str]) -> Iterator[str]:
        # A list whose commas were forgotten: what stands behind its first value is something else.
        lists = {flag: one for one in self.own.values() for flag in one.declared.flags if _is_list(one)}
        for option, first, behind in zip(words, words[1:], words[2:], strict=False):
            if option not in lists or behind.startswith("-"):
                continue
            setting = lists[option]
            if behind in _components(setting) and not os.path.exists(behind):  # noqa: PTH110 - of any text
                raise UsageError(
                    f"{self.name}: write lists with commas: {option} {first},{behind}",
                    code="wrong-usage",
                )
            if setting.declared.reads and not os.path.isdir(first):  # noqa: PTH112 - of any text
                role = [_shown(one).strip("[].") for one in self.own.values() if one.declared.positional][-1]
                yield (
                    f"{behind} is taken as a {role}; if it belongs to the list before it, write commas: "
                    f"{option} {first},{behind}"
                )

    def _refuse_options_as_values(self, values: Mapping[str, Any]) -> None:
        flags = {flag for one in self.own.values() for flag in one.declared.flags} | {f"--{DEBUG}", "--help"}
        for name, setting in self.own.items():
            value = values.get(name)
            for word in value if isinstance(value, tuple) else [value]:
                if setting.declared.flags and isinstance(word, str) and word.partition("=")[0] in flags:
                    raise UsageError(
                        f"{self.name}: {setting.name}: expected a value, found {word}", code="missing-value"
                    )

    def of_words(self, **values: Any) -> Line:
        """The command with its settings, of the words that click found for each."""
        context = click.get_current_context()
        typed: dict[Setting, Sequence[str]] = {}
        for name, setting in self.own.items():
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE and values[name] not in (None, ()):
                typed[setting] = values[name] if isinstance(values[name], tuple) else [values[name]]
        command = self.owner.instead(typed) or self.make(typed)
        command = replace(command, words=context.meta[_WORDS])
        return Line(command.checked(), context.find_root().meta.get(DEBUG, False), context.meta.get(_REMARKS, ()))

    def make(self, typed: Mapping[Setting, Sequence[str]]) -> Command:
        """The command.

        Raises:
            UsageError: For what is missing, and for values that cannot be.
        """
        flags = {flag for one in typed for flag in one.declared.flags}
        missing = [
            setting
            for setting in self.own.values()
            if setting.required and setting not in typed and (setting.declared.unless or ("",))[0] not in flags
        ]
        if missing:
            moved = [
                f"; {one.name} was called {old} before"
                for one in missing
                for old in one.declared.formerly
                if old in flags
            ]
            names = ", ".join(map(_named, missing))
            raise UsageError(
                f"{self.name}: expected {names}, found none{''.join(moved) or self._completed(missing)}",
                code="missing-value",
            )
        return build(self.owner, {setting.path: _value(setting, words) for setting, words in typed.items()})

    def _completed(self, missing: Sequence[Setting]) -> str:
        # What was typed, with what it lacks.
        context = click.get_current_context(silent=True)
        if context is None:
            return ""
        words = [_shown(one) if one.declared.positional else option(one)[0] for one in missing]
        return f"; type: {shlex.join([PROGRAM, *context.meta[_WORDS]])} {' '.join(words)}"

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What may be typed."""
        for line in usage(self.owner):
            formatter.write_usage(PROGRAM, line, prefix="usage: ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, in groups."""
        arguments = [_row(one, self.own.values()) for one in self.own.values() if one.declared.positional]
        if arguments:
            with formatter.section("arguments"):
                formatter.write_dl(arguments)
        for group, settings in grouped(self.own.values()):
            with formatter.section(f"{group} options"):
                formatter.write_dl([_row(setting, self.own.values()) for setting in settings])
        with formatter.section("general options"):
            formatter.write_dl(GENERAL)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What the exit status says."""
        if self.owner.statuses:
            format_statuses(formatter, self.owner.statuses)


def _named(setting: Setting) -> str:
    unless = setting.declared.unless
    return f"{setting.name} (or {unless[0]})" if unless else setting.name


def _is_list(setting: Setting) -> bool:
    return isinstance(kind_of_setting(setting), Items | Maybe) and kind_of_setting(setting).repeats


class _Words(click.ParamType[str]):
    """The words of a setting as they are; the shell completes them by its kind."""

    def __init__(self, setting: Setting) -> None:
        self.name = setting.name
        self.setting, self.kind = setting, kind_of_setting(setting)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The words that there are, names of components, or files."""
        before, comma, last = incomplete.rpartition(",")
        choices = [*_choices(self.kind), *_components(self.setting)]
        if choices:
            return [CompletionItem(f"{before}{comma}{word}") for word in choices if word.startswith(last)]
        declared = self.setting.declared
        return [CompletionItem(incomplete, type="file")] if declared.reads or declared.writes else []


def _choices(kind: Kind) -> list[str]:
    # Of a list, those of its values.
    inner = getattr(kind, "item", None)
    return list(dict.fromkeys([*kind.choices, *(_choices(inner) if isinstance(inner, Kind) else [])]))


def _components(setting: Setting) -> list[str]:
    components = setting.declared.components
    if components is None or setting.declared.key == "options":
        return []
    return list(getattr(load_registry(), components))


def _parameter(name: str, setting: Setting) -> click.Parameter:
    declared, kind = setting.declared, kind_of_setting(setting)
    words = _Words(setting)
    if declared.positional:
        many = isinstance(kind, Items)
        return click.Argument([name], type=words, nargs=-1 if many else 1, required=False, metavar=declared.metavar)
    decls = [name, *declared.flags]
    if isinstance(kind, Truth):
        return click.Option(decls, is_flag=True, default=None)
    if declared.bare is not None:
        return click.Option(decls, type=words, is_flag=False, flag_value=declared.bare, default=None)
    return click.Option(decls, type=words, multiple=kind.repeats, default=None)


def _value(setting: Setting, words: Sequence[Any]) -> Any:
    kind = kind_of_setting(setting)
    if isinstance(kind, Truth):
        return not setting.default
    try:
        if setting.declared.positional and isinstance(kind, Items):  # one value each, with its commas
            return tuple(kind.item.of_words([str(word)]) for word in words)
        return kind.of_words([str(word) for word in words])
    except UsageError as error:
        raise UsageError(f"{setting.name}: {error}", code=error.code) from None


# The help.


def usage(owner: type[Command]) -> list[str]:
    """What may be typed behind the program's name."""
    if owner.usage:
        return [f"{owner.called()} {line}" for line in owner.usage]
    settings = owner.settings()
    words = [_shown(one) for one in settings if one.declared.positional]
    words += [option(one)[0] for one in settings if one.required and one.declared.flags]
    optional = any(one.declared.flags and not one.required for one in settings)
    return [" ".join([owner.called(), *words, *(["[options]"] if optional else [])])]


def _shown(setting: Setting) -> str:
    word = setting.declared.metavar or setting.path[-1].upper()
    word += "..." if isinstance(kind_of_setting(setting), Items) else ""
    return word if setting.required else f"[{word}]"


def metavar(setting: Setting) -> str:
    """What stands for the value of an option: nothing for one that takes none."""
    kind, declared = kind_of_setting(setting), setting.declared
    if isinstance(kind, Truth):
        return ""
    named = declared.metavar or "|".join(kind.choices) or setting.path[-1].upper()
    if declared.word and declared.word not in named:
        named = f"{declared.word}|{named}"
    return f"[{named}]" if declared.bare is not None else named


def option(setting: Setting) -> list[str]:
    """An option as it is typed, by each of its names."""
    return [f"{flag} {metavar(setting)}".strip() for flag in setting.declared.flags]


def default(setting: Setting) -> str:
    """What holds without the option, in words; empty where there is nothing to say."""
    declared = setting.declared
    if declared.usual:
        return declared.usual
    if setting.required or isinstance(kind_of_setting(setting), Truth):
        return ""
    if setting.default is None:
        return declared.word or ""
    if isinstance(setting.default, tuple | list):
        return ",".join(map(str, setting.default))
    if isinstance(setting.default, Mapping):
        return ""
    return f"{setting.default:g}" if isinstance(setting.default, float) else str(setting.default)


def grouped(settings: Any) -> Iterator[tuple[str, list[Setting]]]:
    """The options by their groups, in the order of these."""
    for group in GROUPS:
        members = [one for one in settings if one.declared.flags and one.declared.group == group]
        if members:
            yield group, sorted(members, key=lambda one: not one.required)


def explained(setting: Setting, among: Iterable[Setting]) -> str:
    """What an option does, and what holds without it.

    Args:
        setting: The option.
        among: All settings of its command.
    """
    usual = "required" if setting.required else f"default: {default(setting)}" if default(setting) else ""
    if setting.declared.unless and any(setting.declared.unless[0] in one.declared.flags for one in among):
        usual = f"required without {setting.declared.unless[0]}"
    text = setting.declared.help + ("; may be repeated" if kind_of_setting(setting).repeats else "")
    return f"{text} ({usual})" if usual else text


def _row(setting: Setting, among: Iterable[Setting]) -> tuple[str, str]:
    declared = setting.declared
    if declared.positional:
        usual = default(setting)
        return _shown(setting), f"{declared.help} (default: {usual})" if usual else declared.help
    return f"{', '.join(declared.flags)} {metavar(setting)}".strip(), explained(setting, among)


# What cannot be understood.


def in_our_words(error: click.ClickException) -> DeepJudgeError:
    """An error of click's as one of ours."""
    context = getattr(error, "ctx", None)
    command = context.command if context else None
    where = f"{command.name}: " if isinstance(command, _Command) else ""
    if isinstance(error, click.NoSuchOption):
        return UsageError(where + _unknown(error.option_name, command), code="unknown-option")
    names = command.list_commands(context) if context and isinstance(command, click.Group) else []
    if isinstance(error, click.exceptions.NoSuchCommand):
        near = difflib.get_close_matches(error.command_name, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        expected = ", ".join(names)
        return UsageError(f"no command {error.command_name!r}; expected one of {expected}{hint}", code="unknown-name")
    text = error.format_message().rstrip(".")
    if names:
        return UsageError(
            f"expected a command: {', '.join(names)}; deepjudge --help says what each does", code="missing-value"
        )
    if isinstance(error, click.BadOptionUsage) and "does not take a value" in text:
        return UsageError(f"{where}{error.option_name}: takes no value, found one", code="wrong-value")
    if isinstance(error, click.BadOptionUsage):
        return UsageError(f"{where}{error.option_name}: needs a value, found none", code="missing-value")
    if isinstance(command, _Command) and context and "extra argument" in text:
        extra = text.partition("(")[2].rstrip(")")
        text = (
            f"expected no more than {_positionals(command.owner)}, found {extra}; write lists with "
            "commas, as in -g pgd,cw"
        )
    return UsageError(f"{where}{text[:1].lower()}{text[1:]}")


def _positionals(owner: type[Command]) -> str:
    return " ".join(_shown(one) for one in owner.settings() if one.declared.positional) or "options"


def _unknown(name: str, command: click.Command | None) -> str:
    if not isinstance(command, _Command):
        return f"no option {name}; before the command, expected --version, --debug or --help"
    settings = command.own.values()
    renamed = [one.name for one in settings if name in one.declared.formerly]
    if renamed:
        return f"no option {name}; it is now called {renamed[0]}"
    if name in command.owner.hints:
        return f"no option {name}: {command.owner.hints[name]}"
    flags = [flag for one in settings for flag in one.declared.flags] + ["--debug", "--help"]
    near = difflib.get_close_matches(name, flags, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; see {PROGRAM} {command.name} --help"
    return f"no option {name}{hint}"
