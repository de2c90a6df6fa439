"""The page in a real browser: no sideways scrolling on a phone, dark in dark mode."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageStat

from netfit.report import from_run, render

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on PATH")

# Shows the page in a frame of a phone's and of a desk's width (a window cannot be narrower than 500) with every
# fold open, and writes into the title: width needed/width given, of both, and the tables wider than the phone.
MEASURE = """<!DOCTYPE html><html><body>{frames}<script>
onload = () => {{
  const pages = [...document.querySelectorAll("iframe")].map(f => f.contentDocument);
  pages.forEach(p => p.querySelectorAll("details").forEach(d => d.open = true));
  const widths = pages.map(p => p.documentElement.scrollWidth + "/" + p.documentElement.clientWidth);
  const wide = [...pages[0].querySelectorAll(".scroll")].filter(t => t.scrollWidth > t.clientWidth).length;
  document.title = widths.join(" ") + " wide tables " + wide;
}}</script></body></html>"""


def browse(page: Path, *flags: str) -> str:
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
        f"--user-data-dir={page.parent / 'profile'}", *flags, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture
def page(tmp_path: Path, make_result: Callable[..., dict[str, Any]]) -> Path:
    result = make_result(40)
    result["layers"][3]["name"] = "a.very.long.module.path." * 8
    result["command"] += " --run " + "x" * 300
    result["host"]["cpu"] = "W" * 200
    (tmp_path / "result.json").write_text(json.dumps(result))
    path = tmp_path / "report.html"
    path.write_text(render(from_run(tmp_path)), encoding="utf-8")
    return path


def test_no_sideways_scrolling_at_phone_and_desk_width(page: Path) -> None:
    source = html.escape(page.read_text(encoding="utf-8"))
    frames = "".join(
        f'<iframe srcdoc="{source}" style="width:{w}px;height:900px;border:0"></iframe>' for w in (400, 1200)
    )
    host = page.with_name("host.html")
    host.write_text(MEASURE.format(frames=frames), encoding="utf-8")
    # The first title of the dump is the host's: those of the frames are escaped inside srcdoc.
    title = re.search(r"<title>(.*?)</title>", browse(host, "--dump-dom"))
    assert title is not None
    needed_phone, phone, needed_desk, desk, wide = map(int, re.findall(r"\d+", title[1]))
    assert (phone, desk) == (400, 1200)
    assert needed_phone == 400 and needed_desk == 1200
    assert wide >= 1  # the long names do scroll, inside their own box


def test_dark_mode_is_dark_and_light_mode_light(page: Path) -> None:
    means = {}
    for scheme, number in (("dark", 0), ("light", 1)):
        shot = page.with_name(f"{scheme}.png")
        browse(
            page, f"--blink-settings=preferredColorScheme={number}", f"--screenshot={shot}", "--window-size=1200,1800"
        )
        with Image.open(shot) as image:
            assert image.size == (1200, 1800)
            means[scheme] = ImageStat.Stat(image.convert("L")).mean[0]
            colours = image.convert("RGB").getcolors(1 << 24)
        assert colours is not None and len(colours) > 50  # drawn, not blank
    assert means["dark"] < 80 and means["light"] > 200
