"""The command line as a whole: its help, and which command is typed; no command is imported before it is typed."""

from collections.abc import Sequence

import click

from deepjudge_core.cli.commands import Commands
from deepjudge_core.cli.flags import flags
from deepjudge_core.cli.general import GENERAL, PROGRAM, Line, debug_option, format_statuses
from deepjudge_core.cli.status import STATUSES
from deepjudge_core.naming import flagged
from deepjudge_core.version import VERSION

_COMPLETION = """completion:
  bash  eval "$(_DEEPJUDGE_COMPLETE=bash_source deepjudge)"
  zsh   eval "$(_DEEPJUDGE_COMPLETE=zsh_source deepjudge)"
  fish  _DEEPJUDGE_COMPLETE=fish_source deepjudge | source
"""


def parse(words: Sequence[str], commands: Commands) -> Line:
    """What was typed; a help text, the version or a completion is written at once.

    Raises:
        UsageError: For what cannot be understood.
    """
    try:
        with flagged(flags()):
            line = _Program(commands).main(
                list(words), PROGRAM, complete_var="_DEEPJUDGE_COMPLETE", standalone_mode=False
            )
    except click.ClickException as error:
        from deepjudge_core.cli.parser import in_our_words

        raise in_our_words(error) from None
    return line if isinstance(line, Line) else Line(None)


def _version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(f"{PROGRAM} {VERSION}")
        context.exit()


class _Program(click.Group):
    # The parser of all commands, which makes that of one when it is typed.

    def __init__(self, listed: Commands) -> None:
        self._listed = listed
        version = click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Show the version.",
        )
        super().__init__(
            PROGRAM,
            params=[version, debug_option()],
            help="Tell whether a suspect deep-learning model is a copy of yours.",
            no_args_is_help=False,
            context_settings={"help_option_names": ["-h", "--help"]},
            callback=lambda **_: None,
        )

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of work."""
        return list(self._listed.summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The parser of one command."""
        if cmd_name not in self._listed.summaries:
            return None
        from deepjudge_core.cli.parser import parser_of

        return parser_of(self._listed.called(cmd_name))

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What may be typed."""
        formatter.write_usage(PROGRAM, "[--help] [--version] [--debug] COMMAND ...", prefix="usage: ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands, and the options of all."""
        with formatter.section("commands"):
            formatter.write_dl([(name, _lower(summary)) for name, summary in self._listed.summaries.items()])
        with formatter.section("options"):
            formatter.write_dl([("--version", "show the version"), *GENERAL])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What the exit status says, and how a shell completes commands."""
        format_statuses(formatter, STATUSES)
        formatter.write("\n" + _COMPLETION)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:].removesuffix(".")
