"""The picture of a report in docs/client.md: the sample trailer, as the bundled checkpoint sees it, in Chromium."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from qwen_shots.client.analysis import analyze
from qwen_shots.client.cli.main import main as qwen_shots
from scripts.readme import examples

PICTURE = examples.ROOT / "docs/report.webp"
FILM = examples.ROOT / "samples/sintel-trailer.mp4"
SIZE = {"width": 1280, "height": 1000}
POINTED_AT = 0.62  # of the film


def draw(url: str, key: str) -> Image.Image:
    """Analyse the trailer, make its report, and take a picture of the page's top.

    Args:
        url: the server.
        key: its key.
    """
    with tempfile.TemporaryDirectory() as name:
        for _ in analyze(FILM, url, key=key, folder=Path(name)):
            pass
        qwen_shots(["report", name])
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
            page = browser.new_page(viewport={"width": SIZE["width"], "height": SIZE["height"]})
            page.goto((Path(name) / "report.html").as_uri())
            _point(page)
            shot = page.screenshot()
            browser.close()
    return Image.open(io.BytesIO(shot)).convert("RGB")


def _point(page: Page) -> None:
    """Put the pointer on the timeline, as a reader would."""
    box = page.get_by_role("slider", name="Place in the film").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + POINTED_AT * box["width"], box["y"] + box["height"] / 2)
