"""The colours of a report, light and dark, and what is painted with which.

Shapes carry the light colours themselves, so that a figure can be looked at anywhere; the page's style, which knows
the reader's theme, overrides them by class.
"""

from collections.abc import Mapping
from dataclasses import dataclass

LIGHT: Mapping[str, str] = {
    "page": "#ffffff",
    "ink": "#1b2027",
    "muted": "#545e69",
    "line": "#cfd5db",
    "tint": "#f3f5f7",
    "band": "#dde3ea",
    "copy": "#a32a1c",
    "independent": "#1d5c87",
    "inconclusive": "#73560f",
    "failed": "#7a3173",
}
DARK: Mapping[str, str] = {
    "page": "#14171b",
    "ink": "#e7eaed",
    "muted": "#a9b2bb",
    "line": "#3b434b",
    "tint": "#1c2126",
    "band": "#2c343c",
    "copy": "#ff9c8d",
    "independent": "#8cc4ee",
    "inconclusive": "#dcc372",
    "failed": "#e3a6dc",
}


@dataclass(frozen=True)
class Paint:
    """How a shape is painted: names of colours, None for none, and the width and dashes of its outline."""

    fill: str | None = None
    stroke: str | None = None
    width: float = 1
    dashes: str | None = None

    def attributes(self) -> dict[str, str]:
        """As the attributes of an SVG element, in light colours."""
        attributes = {"fill": LIGHT[self.fill] if self.fill else "none"}
        if self.stroke:
            attributes |= {"stroke": LIGHT[self.stroke], "stroke-width": f"{self.width:g}"}
        if self.dashes:
            attributes["stroke-dasharray"] = self.dashes
        return attributes

    def style(self) -> str:
        """As a CSS rule's declarations, in the colours of the reader's theme."""
        fill = f"fill:var(--{self.fill})" if self.fill else "fill:none"
        return f"{fill};stroke:var(--{self.stroke})" if self.stroke else fill


PAINTS: Mapping[str, Paint] = {
    "text": Paint(fill="ink"),
    "note": Paint(fill="muted"),
    "axis": Paint(stroke="muted"),
    "grid": Paint(stroke="line"),
    "zone": Paint(fill="tint"),
    "band": Paint(fill="band", stroke="muted", width=0.75, dashes="1.5 2"),
    "control": Paint(stroke="ink"),
    "stolen": Paint(fill="ink", stroke="page", width=0.75),
    "threshold": Paint(stroke="ink", width=1.5, dashes="5 3"),
    "leader": Paint(stroke="muted", width=0.75),
    "part": Paint(stroke="muted", width=1),
    "part-dashed": Paint(stroke="muted", width=1, dashes="6 3"),
    "part-dotted": Paint(stroke="muted", width=1.25, dashes="1.5 2.5"),
    "part-mixed": Paint(stroke="muted", width=1, dashes="7 2 1.5 2"),
    "whole": Paint(stroke="ink", width=2),
    "chance": Paint(stroke="line", width=1, dashes="3 3"),
    "copy": Paint(fill="copy", stroke="page", width=0.75),
    "independent": Paint(fill="independent", stroke="page", width=0.75),
    "inconclusive": Paint(fill="inconclusive", stroke="page", width=0.75),
    "failed": Paint(fill="failed", stroke="page", width=0.75),
    "copy-line": Paint(stroke="copy", width=2),
    "independent-line": Paint(stroke="independent", width=2),
    "inconclusive-line": Paint(stroke="inconclusive", width=2),
    "failed-line": Paint(stroke="failed", width=2),
}
"""What a figure is painted with, by the class of its shapes."""
