"""What a command line names, and is not there: one wording and one status, whatever the command."""

from pathlib import Path

import pytest
from commands import Cli

from deepjudge_core.cli.command import Command
from deepjudge_core.cli.commands import COMMANDS
from deepjudge_core.settings import Setting

THERE, NOWHERE = "there.safetensors", "nowhere.safetensors"
FORMS = {"STRATUM=CONTROL,...": "same-data={}", "FILE.npz:KEY": "{}:x"}


def lines() -> list[tuple[str, str, list[str]]]:
    """For each setting of each command that names what is read: a command line of which that alone is not there."""
    found = []
    for name in COMMANDS.summaries:
        command: type[Command] = COMMANDS.called(name)
        for tested in (one for one in command.settings() if one.declared.reads):
            words = [name]
            for one in command.settings():
                if one == tested or (one.required and one.declared.unless is None):
                    words += [*one.declared.flags[:1], value_of(one, NOWHERE if one == tested else THERE)]
            if not any(one.declared.unless and one == tested for one in command.settings()):
                words += [flag for one in command.settings() if one.declared.unless for flag in extra(one, words)]
            found.append((name, tested.name, words))
    return found


def value_of(setting: Setting, path: str) -> str:
    if setting.declared.reads:
        return FORMS.get(setting.declared.metavar or "", "{}").format(path)
    return {"SCHEME": "adi"}.get(setting.declared.metavar or "", "out.safetensors")


def extra(setting: Setting, words: list[str]) -> list[str]:
    # What may be left out with another option, without that option.
    flag = setting.declared.flags[:1]
    if set(flag) & set(words) or (not flag and "--model" in words):
        return []
    return [*flag, THERE]


@pytest.mark.parametrize(
    ("command", "setting", "words"), lines(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_path_where_nothing_is(cli: Cli, command: str, setting: str, words: list[str]) -> None:
    Path(THERE).write_bytes(b"")
    line = cli.refuses(2, "cannot-read", *words, facts=(NOWHERE, "no such file or folder"))
    assert THERE in line.partition("did you mean")[2] or THERE not in line


def test_all_that_is_not_there_is_said_at_once_with_what_was_meant(cli: Cli) -> None:
    status, _, err = cli("judge", "none.safetensors", "copi.toy", "gone/*.toy", "--calibration", "none.safetensors")
    assert status == 2
    assert len(err.splitlines()) == 3  # one name, twice, is said once
    assert "'copy.toy'" in err


def test_an_audit_says_it_with_all_else_that_is_wrong(cli: Cli) -> None:
    status, _, err = cli("audit", "none.toy", "copy.toy", "--inputs", "none.npz", "--rule", "guess", "-o", "out")
    assert status == 2
    assert [fact in err for fact in ("none.toy", "none.npz", "guess")] == [True] * 3
    assert len(err.splitlines()) == 3
    cli.refuses(2, "cannot-read", "audit", "none.toml", facts=("none.toml",))


def test_a_link_that_leads_nowhere_keeps_nobody_from_judging_the_others(cli: Cli) -> None:
    """A shell writes it in the place of a pattern."""
    assert (
        cli("suite", "victim.toy", "--inputs", "in.npz", "-n", "20", "-g", "shove,poke", "-o", "s.safetensors")[0] == 0
    )
    Path("link.toy").symlink_to("gone.toy")
    status, out, _ = cli("judge", "s.safetensors", "copy.toy", "link.toy", "--rule", "nearest", "--json", "r.json")
    assert status == 4
    assert "link.toy" in out
    assert Path("r.json").exists()


def test_a_name_with_a_colon_is_a_file_where_there_is_one(cli: Cli) -> None:
    Path("a:b.toy").write_bytes(b"")
    cli.refuses(4, "damaged-file", "judge", "a:b.toy", "copy.toy", facts=("a:b.toy",))
