"""What may stand in the file of an audit: its tables and keys, as the settings of ``audit`` declare them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Annotated, Any

from deepjudge_core.cli.command import Command
from deepjudge_core.cli.kinds import Assignments, File, Kind, Parsed, kind_of_setting
from deepjudge_core.components.strata import FORM, WORDS
from deepjudge_core.errors import UsageError
from deepjudge_core.files.absent import NO_SUCH, instead_of
from deepjudge_core.settings import Matches, Setting, setting, settings_of

TITLES: Mapping[str, str] = {
    "victim": "The model that suspects may be copies of.",
    "inputs": "Labelled inputs to make test cases from.",
    "suite": "How test cases are made.",
    "generators": "Generators of test cases, each with its options. Without this table, these two are used.",
    "rule": "How suspects are judged.",
    "sandbox": "Each model runs in a process of its own that can only answer.",
    "bundle": "The output is a bundle that 'deepjudge verify' can check.",
    "report": ("The report in other formats, in addition to the report.json of the folder above; outside that folder."),
    "controls[]": (
        "Models known to be independent of yours, at least 3. You can add more such tables, each "
        "with the keys shown for suspects below."
    ),
    "suspects[]": (
        "Models to judge. You can add more such tables. Keys other than the path are only needed "
        "if a model must be opened or asked in its own way."
    ),
}
"""The tables in the order of the example, and what is said of each."""


@dataclass(frozen=True, kw_only=True)
class ControlFiles:
    """A table of controls; how they are opened and asked is said of suspects, too.

    Attributes:
        path: Where they are.
        stratum: What they have in common with the victim.
    """

    path: str = setting(
        "a model or a stored observation; a folder or a glob means all models in it",
        key="path",
        tables=("controls[]",),
        sample="controls",
    )
    stratum: Annotated[str, Matches(FORM, WORDS)] | None = setting(
        f"what these controls share with your model: {WORDS}",
        default=None,
        key="stratum",
        tables=("controls[]",),
        sample="same-data",
        usual="as zoo.json next to them says",
    )


@dataclass(frozen=True, kw_only=True)
class SuspectFiles:
    """A table of suspects.

    Attributes:
        path: Where they are.
    """

    path: str = setting(
        "a model or, with stored = true, a stored observation; a folder or a glob means all models in it",
        key="path",
        tables=("suspects[]",),
        sample="suspects",
    )


@dataclass(frozen=True)
class Key:
    """A key with a value.

    Attributes:
        setting: What it sets.
        kind: The kind of its values.
    """

    setting: Setting
    kind: Kind

    @property
    def required(self) -> bool:
        """Whether it has to be there, whatever else is."""
        declared = self.setting.declared
        return self.setting.required and not declared.optional_key and declared.unless is None

    def check(self, value: Any) -> Any:
        """What is made of a value.

        Raises:
            UsageError: When it cannot be.
        """
        result = self.kind.of_value(value)
        if self.setting.declared.reads:
            (existing_file if isinstance(self.kind, File) else _existing_file_with_key)(value)
        return result


@dataclass(frozen=True)
class Table:
    """A table, or an array of tables.

    Attributes:
        name: Its dotted name.
        keys: What may stand in it.
        many: Whether it is an array.
        setting: What it sets as a whole; None for a table of settings.
    """

    name: str = ""
    keys: dict[str, "Key | Table"] = field(default_factory=dict)
    many: bool = False
    setting: Setting | None = None

    @property
    def required(self) -> bool:
        """Whether it has to be there: when anything in it has, of controls not even then."""
        return self.name != "controls[]" and any(entry.required for entry in self.keys.values())


def document(command: type[Command]) -> Table:
    """The tree of all tables and keys.

    Args:
        command: The command whose settings the file says: ``audit``.
    """
    root = Table()
    declared = [*settings_of(ControlFiles), *settings_of(SuspectFiles), *settings_of(command, command.called())]
    for name in TITLES:
        if name != "generators":
            _table(root, name)
    for one in declared:
        for place in one.declared.tables if one.declared.key else ():
            table = _table(root, place) if place else root
            table.keys[str(one.declared.key)] = _entry(one)
    return root


def _table(root: Table, name: str) -> Table:
    key = name.removesuffix("[]")
    table = root.keys.setdefault(key, Table(name, many=name.endswith("[]")))
    assert isinstance(table, Table)  # noqa: S101 - no setting is called like a table
    return table


def _entry(declared: Setting) -> Key | Table:
    kind = kind_of_setting(declared)
    if isinstance(kind, Parsed) and isinstance(kind.owner, type) and is_dataclass(kind.owner):
        inner = {str(one.declared.key): _entry(one) for one in settings_of(kind.owner)}
        return Table(str(declared.declared.key), inner, setting=declared)
    if declared.declared.components and declared.declared.key in ("generators", "options"):
        kind = Assignments()  # a table of options, which the component checks
    return Key(declared, kind)


def options(owner: type[Any], values: Mapping[str, Any], table: str) -> dict[tuple[str, ...], Any]:
    """Of the values of a table, those of the settings of a class, by their paths.

    Args:
        owner: The class.
        values: By key.
        table: The name of the table.
    """
    return {
        one.path: values[str(one.declared.key)]
        for one in settings_of(owner)
        if table in one.declared.tables and one.declared.key in values
    }


def existing_file(value: str) -> None:
    """Refuse a file or folder that is not there.

    Raises:
        UsageError: Naming it.
    """
    if not Path(value).exists():
        raise UsageError(f"{value}: {NO_SUCH}; {instead_of(value)}", code="cannot-read")


def _existing_file_with_key(value: str | list[str]) -> None:
    if isinstance(value, list):
        for one in value:
            existing_file(one)
        return
    file, colon, _ = value.rpartition(":")
    if not Path(value).exists():
        existing_file(file if colon else value)
