"""The standard profile: a suite of which nothing was chosen, so that nobody can try until a verdict pleases."""

from typing import Any

from deepjudge_core.files.documents import plain
from deepjudge_core.suites.choice import GeneratorChoice
from deepjudge_core.suites.choices import Choices
from deepjudge_core.suites.settings import SuiteSettings


def choices_of(settings: SuiteSettings, generators: GeneratorChoice | None = None) -> Choices:
    """What settings choose, as it stands in a suite.

    Args:
        settings: The settings.
        generators: The generators that were looked up by them: they say what a text on a command line means. None if
            no options were given.
    """
    looked_up = (*generators.generators, *generators.answering) if generators else ()
    configured = {one.name: one.options for one in looked_up}
    return Choices(
        n=settings.n,
        order=settings.order,
        layers=None if settings.layers is None else tuple(settings.layers),
        generators=None if settings.generators is None else tuple(settings.generators),
        options={
            name: {option: configured.get(name, options)[option] for option in options}
            for name, options in settings.options.items()
            if options
        },
        seed=settings.seed,
        pictures=settings.pictures,
        force=settings.force,
    )


def settings_of(choices: Choices) -> SuiteSettings:
    """The settings by which a suite was made; neither weights nor keys are among them."""
    return SuiteSettings(**{name: getattr(choices, name) for name in Choices.__struct_fields__}, sketch=False)


def chosen_otherwise(choices: Choices) -> dict[str, Any]:
    """What is not as in the standard profile, by name; nothing for the standard profile."""
    standard, chosen = plain(choices_of(SuiteSettings())), plain(choices)
    return {name: value for name, value in chosen.items() if value != standard[name]}
