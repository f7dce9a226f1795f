"""The page at `/`, until there is a better one: where to go from here."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse

README = Path(__file__).parent.parent / "README.md"

POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Qwen shots</title>
<style>body { font: 1.1em/1.6 system-ui, sans-serif; max-width: 36em; margin: 4em auto; padding: 0 1em }</style>
<h1>Qwen shots</h1>
<p>This server says how each shot of a film feels: one caption and a score for each attribute.</p>
<ul>
<li><a href="/docs">Try it</a>: every request with an example. <a href="/redoc">The same as a reference</a>.</li>
<li><a href="/README.md">The README</a>: what the scores mean, settings, the film client.</li>
<li><a href="/health">Whether a shot could be analysed now</a>.</li>
</ul>
</html>
"""


def add_home(app: FastAPI) -> None:
    """Give the app its first page, and the README that it links to."""

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    def home() -> HTMLResponse:
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY})

    @app.head("/README.md", include_in_schema=False)
    @app.get("/README.md", include_in_schema=False)
    def readme() -> PlainTextResponse:
        return PlainTextResponse(README.read_text(encoding="utf-8"))
