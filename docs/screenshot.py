"""Take the picture of the report that the README and the site show, of the page that `make demo` wrote.

    python docs/screenshot.py [PAGE.html] [PICTURE.png]

It needs Chromium or Chrome on the path. Only the first screen is taken, in the light theme.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_WIDTH, _HEIGHT = 1100, 860  # of the window, in CSS pixels
_COLOURS = 64  # a page has few, and the rarest tell the answers; this keeps the picture small


def main() -> int:
    parser = argparse.ArgumentParser(description="Take a picture of the first screen of a report.")
    parser.add_argument("page", nargs="?", type=Path, default=Path("demo/report.html"))
    parser.add_argument("picture", nargs="?", type=Path, default=Path(__file__).parent / "start" / "report.png")
    parser.add_argument("--height", type=int, default=_HEIGHT, help=f"of the window, in pixels (default: {_HEIGHT})")
    given = parser.parse_args()
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        sys.exit(f"expected a browser on the path, one of {', '.join(_BROWSERS)}; found none")
    if not given.page.is_file():
        sys.exit(f"{given.page}: expected the page of a report, found no such file; make demo writes one")
    with tempfile.TemporaryDirectory() as work:
        taken = Path(work, "taken.png")
        size = f"--window-size={_WIDTH},{given.height}"
        # A browser that runs as root, as in a container, has no sandbox of its own; the page is ours.
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", size, f"--screenshot={taken}")
        subprocess.run([browser, *flags, given.page.resolve().as_uri()], check=True, capture_output=True)
        with Image.open(taken) as picture:
            picture.convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE).save(given.picture, optimize=True)
    print(f"{given.picture}: {given.picture.stat().st_size // 1024} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
