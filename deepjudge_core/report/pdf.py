"""A report as PDF: the HTML, as WeasyPrint prints it."""

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any, NoReturn

from deepjudge_core.errors import MissingExtraError
from deepjudge_core.report.documents import AnyReport
from deepjudge_core.report.html import html_of
from deepjudge_core.report.pages.any import Seal, page_of


def render_pdf(report: AnyReport, seal: Seal | None = None) -> bytes:
    """A report as pages of A4; equal reports give equal bytes on the same machine.

    Args:
        report: The report.
        seal: The bundle that holds it; None if there is none.

    Raises:
        MissingExtraError: Without WeasyPrint, or the system's library Pango that it needs.
    """
    weasyprint = check_pdf()
    document = weasyprint.HTML(string=html_of(page_of(report, seal)), url_fetcher=_refuse)
    with _timeless_fonts():
        pages: bytes = document.write_pdf(pdf_identifier=b"deepjudge")
    return pages


def check_pdf() -> Any:
    """WeasyPrint, if it can be used.

    Raises:
        MissingExtraError: As :func:`render_pdf`.
    """
    try:
        # Without Pango it prints a page of advice.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            import weasyprint
    except ImportError:
        raise MissingExtraError("a report as PDF", "WeasyPrint", "pdf") from None
    except OSError:
        mend = "install it as your system does, such as: apt-get install libpango-1.0-0 libpangoft2-1.0-0"
        raise MissingExtraError("a report as PDF", "the library Pango", "pdf", mend) from None
    return weasyprint


@contextlib.contextmanager
def _timeless_fonts() -> Iterator[None]:
    """Without HarfBuzz fonts are cut down by fontTools, which writes the time into them unless it is told one."""
    name, before = "SOURCE_DATE_EPOCH", os.environ.get("SOURCE_DATE_EPOCH")
    os.environ[name] = "0" if before is None else before
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def _refuse(url: str, *_: object, **__: object) -> NoReturn:
    raise ValueError(f"nothing is fetched: {url}")
