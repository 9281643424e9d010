"""How Sphinx builds the documentation's site, by `make site`: offline, and with every warning an error.

The source folder is the repository, so that a link between pages leads to the same place here and on a code host.
"""

import sys
from pathlib import Path

from deepjudge_core import __version__

_ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(_ROOT / shelf) for shelf in ("adapters", "plugins")]

project = "deepjudge"
author = "The deepjudge developers"
copyright = author  # noqa: A001
version = release = __version__

root_doc = "docs/index"
include_patterns = ["docs/*.md", "docs/**/*.md", "*.md", "benchmarks/README.md", "examples/*/README.md"]
exclude_patterns = [
    ".*",
    "build",
    "demo",
    "zoo-demo",
    "dist",
    "tests",
    "deepjudge_core",
    "adapters",
    "plugins",
    "shared",
]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]

# Headings are linked to as code hosts link to them.
myst_heading_anchors = 4
myst_links_external_new_tab = False

autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_title = f"deepjudge {__version__}"
html_extra_path = ["site"]  # index.html, which leads to docs/
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
