"""A report as one HTML file: no script, nothing from elsewhere; light or dark as the reader's system is; printable."""

from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from deepjudge_core.report.documents import AnyReport
from deepjudge_core.report.pages import palette
from deepjudge_core.report.pages.any import Seal, page_of
from deepjudge_core.report.pages.document import Name, Page
from deepjudge_core.text import LONGEST_LINE, clean

if TYPE_CHECKING:
    import jinja2


def render_html(report: AnyReport, seal: Seal | None = None) -> bytes:
    """A report as a page; equal reports of equal bundles give equal bytes.

    Args:
        report: The report.
        seal: The bundle that holds it; None if there is none.
    """
    return html_of(page_of(report, seal)).encode()


def html_of(page: Page) -> str:
    """The document."""
    return _environment().get_template("page.html.jinja").render(page=page, palette=palette)


@cache
def _environment() -> "jinja2.Environment":
    import jinja2  # late: most commands that can write a page write none

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deepjudge_core.report", ""),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"parts": _parts, "breakable": _breakable}
    environment.tests["name"] = lambda part: isinstance(part, Name)
    environment.tests["block"] = lambda block, kind: type(block).__name__ == kind
    return environment


def _shown(value: Any) -> Any:
    # Whatever a template writes passes here: nothing that hides or turns what stands beside it gets through.
    return clean(value, LONGEST_LINE) if isinstance(value, str) and not isinstance(value, Markup) else value


def _breakable(name: str) -> Markup:
    # Long paths are folded behind their slashes before they are folded anywhere.
    return Markup("/<wbr>").join(clean(name, LONGEST_LINE).split("/"))


def _parts(line: Any) -> tuple[Any, ...]:
    return line if isinstance(line, tuple) else (line,)
