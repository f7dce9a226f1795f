"""The report as its readers meet it: in Chromium, from a file, with the internet out of reach."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from qwen_shots.client.cli.main import main
from qwen_shots.client.exports.text import one_line
from qwen_shots.client.report.curves import SMOOTH_SHOTS, Step, area_path, line_path, smooth_path, steps_of
from qwen_shots.client.report.page import Report, to_html
from qwen_shots.client.store import FilmRecord, ShotRecord, open_store
from tests.helpers import PATIENCE_SECONDS, ROOT
from tests.qwen_shots.client.answering import ATTRIBUTES
from tests.qwen_shots.client.conftest import CAPTIONS, FAILED, HOSTILE
from tests.qwen_shots.client.test_store import FILM


@pytest.fixture(scope="module")
def report(answers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    assert main(["report", str(answers), "--out", str(file)]) == 0
    return file


@pytest.fixture(scope="module")
def known(answers: Path) -> list[ShotRecord]:
    with open_store(answers) as store:
        return store.shots()


# --- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """The report, open and watched: nothing is fetched, nothing complains, and no hostile caption gets to run."""
    # Without motion: nothing is on its way to another place while a test looks where it is.
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE_SECONDS)
    wrong: list[str] = []
    page.on("request", lambda request: wrong.append(request.url) if request.url.startswith(("http", "ws")) else None)
    page.on("console", lambda said: wrong.append(said.text) if said.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.goto(report.as_uri())
    yield page
    assert wrong == []
    context.close()


def shown(page: Page) -> list[int]:
    """The numbers of the shots in the list, in the order in which they stand there."""
    return [int(name.split("-")[1]) for name in page.eval_on_selector_all(
        "#list > .shot", "all => all.filter(each => each.checkVisibility()).map(each => each.id)"
    )]  # fmt: skip


def test_all_is_there_and_text_stays_text(page: Page, known: list[ShotRecord]) -> None:
    assert page.title() == "a: shots"
    assert page.locator(".curve").count() == len(ATTRIBUTES) == 6
    assert page.locator(".curve .name").all_text_contents() == [name.replace("_", " ") for name in ATTRIBUTES]
    assert all(page.locator(".curve .line").nth(row).get_attribute("d") for row in range(6))
    lanes = page.locator(".sound rect").count()
    assert lanes == sum(shot.audio_class is not None for shot in known) == 9
    texts = page.locator("#list .caption").all_text_contents()
    assert texts == [one_line(caption) for caption in CAPTIONS.values()]
    assert HOSTILE in texts
    assert "8 of 9 shots are analysed" in page.locator(".notice").inner_text()
    assert page.locator(f"#shot-{FAILED} .failure").text_content() == "No number: NaN came out"
    assert page.locator("#list .picture").count() == 9
    assert "model unknown" in " ".join(page.locator(".facts").inner_text().lower().split())


# The size at which an element's picture is painted, of what its style says.
PAINTED = """async (element) => {
  const image = new Image();
  image.src = getComputedStyle(element).backgroundImage.slice(5, -2);
  await image.decode();
  return [image.naturalWidth, image.naturalHeight];
}"""


def test_every_picture_is_shown_and_in_the_file_once(page: Page, report: Path, known: list[ShotRecord]) -> None:
    text = report.read_text(encoding="utf-8")
    for shot in known:
        assert shot.thumbnail is not None
        assert text.count(base64.b64encode(shot.thumbnail).decode()) == 1
        size = Image.open(io.BytesIO(shot.thumbnail)).size
        shown = page.locator(f"#shot-{shot.number} .picture")
        assert page.evaluate(PAINTED, shown.element_handle()) == list(size)
        box = shown.bounding_box()
        assert box is not None
        assert box["width"] / box["height"] == pytest.approx(size[0] / size[1], rel=0.05)


@pytest.mark.parametrize("width", [360, 1280])
def test_the_filmstrip_keeps_the_time_of_the_timeline(page: Page, known: list[ShotRecord], width: int) -> None:
    """Above each moment of the curves lies a picture of the shot that is there."""
    page.set_viewport_size({"width": width, "height": 900})
    curve = page.locator(".curve svg").first.bounding_box()
    assert curve is not None
    length = known[-1].end
    slots = [slot for slot in page.locator(".filmstrip .slot").all() if slot.is_visible()]
    assert len(slots) == (5 if width == 360 else 15)
    for slot in slots:
        box = slot.bounding_box()
        assert box is not None
        time = length * (box["x"] + box["width"] / 2 - curve["x"]) / curve["width"]
        (shot,) = (shot for shot in known if shot.start <= time < shot.end)
        assert f"p{shot.number}" in (slot.locator(".picture").get_attribute("class") or "").split()


def test_time_codes_and_frames(page: Page, known: list[ShotRecord]) -> None:
    lines = page.locator("#list .frames").all_inner_texts()
    assert lines[2] == "00:00:02:12, frames 60 to 83"  # at 24 a second, as the film was written
    assert len(lines) == len(known)


def test_the_best_of_each(page: Page, known: list[ShotRecord]) -> None:
    """No more than a quarter of a short film: all of its shots are below."""
    assert page.locator("#best-title").inner_text() == "The 2 best of each"
    for place, name in enumerate(ATTRIBUTES):
        links = page.locator(".ranking").nth(place).locator(".said a").all_inner_texts()
        best = sorted((shot for shot in known if shot.analysed), key=lambda shot: -shot.scores[name])[:2]
        assert links == [f"Shot {shot.number}" for shot in best]
        scores = page.locator(".ranking").nth(place).locator(".score").all_inner_texts()
        assert scores == [f"{shot.scores[name]:.2f}" for shot in best]


def test_order_and_filter(page: Page, known: list[ShotRecord]) -> None:
    assert shown(page) == list(range(1, 10))
    page.get_by_label("Order").select_option("darkness")
    by_darkness = sorted(known, key=lambda shot: -shot.scores.get("darkness", -1))
    assert shown(page) == [shot.number for shot in by_darkness]
    page.get_by_label("the other way round").check()
    assert shown(page) == [*(shot.number for shot in by_darkness[-2::-1]), FAILED]
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("Caption has").fill("dark HALL")
    expect(page.get_by_role("status")).to_have_text("1 of 9 shots")
    assert shown(page) == [1]
    page.get_by_label("Caption has").fill("")
    page.locator("[name=sound]").select_option("silent")
    assert shown(page) == [shot.number for shot in known if shot.audio_class == "silent"]
    page.locator("[name=sound]").select_option("any")
    page.get_by_label("At least").select_option("motion")
    page.get_by_label("Least value").fill("0.5")
    assert shown(page) == [shot.number for shot in known if shot.scores.get("motion", -1) >= 0.5]
    page.get_by_label("Least value").fill("0")
    page.get_by_label("Up to").fill("50")
    assert shown(page) == [1, 2, 3, 4]


def test_the_timeline_by_keyboard_and_by_pointer(page: Page) -> None:
    place = page.get_by_role("slider", name="Place in the film")
    place.focus()
    page.keyboard.press("ArrowRight")
    assert place.get_attribute("aria-valuenow") == "2"
    assert (place.get_attribute("aria-valuetext") or "").startswith("Shot 2 at 0:01: A crowd")
    assert "Shot 2, 0:01" in page.locator("#here").inner_text()
    page.keyboard.press("End")
    assert place.get_attribute("aria-valuenow") == "9"
    page.get_by_label("Caption has").fill("hallway")  # hides the shot that is gone to
    place.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#shot-9")).to_be_focused()
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.99, box["y"] + 40)
    expect(page.locator("#here")).to_contain_text("Shot 9")
    page.mouse.click(box["x"] + box["width"] * 0.15, box["y"] + 40)
    expect(page.locator("#shot-2")).to_be_focused()


def test_links_lead_to_the_moment(page: Page, film: Path, browser: Browser) -> None:
    link = page.get_by_role("link", name="Play shot 3 at 0:02").last
    assert link.get_attribute("href") == f"{film.as_uri()}#t=2.500,3.500"
    # A film in a format that browsers play.
    player = browser.new_page()
    player.goto(f"{(ROOT / 'samples/sintel-trailer.mp4').as_uri()}#t=14.000,16.583")
    player.wait_for_function("document.querySelector('video')?.currentTime > 0")
    began = "video => video.played.length ? video.played.start(0) : video.currentTime"
    assert player.eval_on_selector("video", began) == pytest.approx(14, abs=0.5)
    player.close()


# Texts that lie on one another, are cut off, or stick out of the page.
TROUBLE = """() => {
  const seen = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode, parent = node.parentElement;
    if (!node.textContent.trim() || parent.closest('script, .visually-hidden, .skip, option')) continue;
    if (!parent.checkVisibility()) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) if (box.width > 1) seen.push({box, text: node.textContent.trim()});
  }
  const told = seen.filter(({box}) => box.left < 0 || box.right > innerWidth + 0.5)
    .map(({text}) => 'sticks out: ' + text);
  for (const element of document.querySelectorAll('body *')) {
    const style = getComputedStyle(element);
    const cut = style.overflow !== 'visible' && element.scrollWidth > element.clientWidth + 1;
    if (cut && !element.matches('.visually-hidden, .filmstrip, svg *')) told.push('cut off: ' + element.className);
  }
  seen.sort((a, b) => a.box.top - b.box.top);
  seen.forEach((one, place) => {
    for (const other of seen.slice(place + 1)) {
      if (other.box.top > one.box.bottom - 2) break;
      const wide = Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left);
      const high = Math.min(one.box.bottom, other.box.bottom) - Math.max(one.box.top, other.box.top);
      // Lines of one paragraph may touch by what the font leaves above and below its letters.
      if (wide > 1 && high > 4) told.push(`on one another: ${one.text} | ${other.text}`);
    }
  });
  return told;
}"""


@pytest.mark.parametrize("width", [360, 768, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_text_is_clipped_or_overlaps(page: Page, width: int, scheme: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 900})
    page.add_style_tag(content=".shot { content-visibility: visible !important }")  # measured as if all were in view
    page.get_by_role("slider", name="Place in the film").focus()
    assert page.evaluate(TROUBLE) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (red + green + blue > 380) == (scheme == "light")


def test_the_timeline_of_a_film_that_is_longer_than_its_known_shots(
    browser: Browser, known: list[ShotRecord], tmp_path: Path
) -> None:
    film = replace(FILM, duration=10.0)
    (tmp_path / "r.html").write_text(to_html(Report(film, known[:2], False, "film.mp4", "made")), encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "r.html").as_uri())
    page.get_by_role("slider", name="Place in the film").focus()
    page.keyboard.press("ArrowRight")
    assert page.eval_on_selector(".place i", "line => line.style.left") == "18.75%"  # from 1.25 to 2.5 of 10 s
    page.close()


def test_without_scripts_all_can_be_read(browser: Browser, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator("#list .caption").all_text_contents() == [one_line(caption) for caption in CAPTIONS.values()]
    assert not page.locator("#controls").is_visible()
    context.close()


# --- the file --------------------------------------------------------------------------------------------------------


class Links(HTMLParser):
    """Every address that a page names, and how many scripts it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: set[str] = set()
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.addresses |= {value or "" for name, value in attrs if name in {"href", "src", "srcset", "action", "data"}}
        assert not any(name.startswith("on") for name, _ in attrs)


def test_one_file_that_asks_for_no_other(report: Path, film: Path) -> None:
    links = Links(report.read_text(encoding="utf-8"))
    assert links.scripts == 1
    kinds = {address.split(":")[0] if ":" in address else address[:1] for address in links.addresses}
    assert kinds == {"data", "file", "#"}
    assert {address.split("#")[0] for address in links.addresses if address.startswith("file")} == {film.as_uri()}


HOSTILE_FILM = replace(FILM, path=Path("/films/<b>'\"&</title><script>alert(1)</script>.mp4"), start_timecode="<i>")


class Elements(HTMLParser):
    """The elements of a page, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)


def elements(film: FilmRecord, caption: str, name: str) -> list[str]:
    shots = [ShotRecord(1, 0, 1, 0, 24, name=name, caption=caption, scores={name: 0.5})]
    parser = Elements()
    parser.feed(to_html(Report(film, shots, True, "film.mp4", "made")))
    return parser.found


PLAIN = elements(replace(FILM, start_timecode="00:00:00:00"), "caption", "name")


@given(st.text(max_size=30))
@settings(max_examples=20)
def test_any_text_is_only_text(text: str) -> None:
    """A page of hostile film, caption, attribute and name has the elements of a harmless one."""
    assert elements(HOSTILE_FILM, HOSTILE + text, HOSTILE + text) == PLAIN


def test_a_long_film_has_ten_best_and_a_model() -> None:
    shots = [ShotRecord(n, n - 1, n, 0, 1, caption="c", scores={"dread": n / 50}) for n in range(1, 51)]
    text = to_html(Report(replace(FILM, duration=50.0, model="a/<b>@1"), shots, True, "film.mp4", "made"))
    assert "The 10 best of each" in text
    assert text.count('<b class="score">') == 10
    assert "<dt>Model</dt><dd>a/&lt;b&gt;@1</dd>" in text


def test_a_short_films_report_is_small(report: Path, known: list[ShotRecord]) -> None:
    """A shot costs its picture once (a third more as base64), and its text."""
    pictures = sum(len(shot.thumbnail or b"") for shot in known)
    empty = len(to_html(Report(FILM, [], True, "film.mp4", "made")))
    assert report.stat().st_size - empty < 4 / 3 * pictures + 6000 * len(known)


def test_a_film_of_no_shots_and_one_of_no_length() -> None:
    for shots in ([], [ShotRecord(1, 0, 0, 0, 1)]):
        assert "<h1>" in to_html(Report(replace(FILM, duration=0.0), shots, False, "film.mp4", "made"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--film", "javascript:alert(1)"], 2, "--film is an http"),
        (["--out", "/nowhere/report.html"], 4, "No such file"),
        (["--film", "https://films.example/a b.mp4"], 0, 'href="https://films.example/a b.mp4#t=2.500,3.500"'),
    ],
)
def test_what_it_is_told(
    answers: Path, tmp_path: Path, arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path / "r.html"), *arguments]
    assert main(["report", str(answers), *arguments]) == code
    told = " ".join(capsys.readouterr().err.split()) if code else (tmp_path / "r.html").read_text(encoding="utf-8")
    assert words in told


def test_by_default_it_lies_beside_the_answers(answers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(answers)]) == 0
    file = Path(capsys.readouterr().out.strip())
    assert file == answers / "report.html"
    file.unlink()


# --- curves ----------------------------------------------------------------------------------------------------------


def shot(number: int, start: float, end: float, **scores: float) -> ShotRecord:
    return ShotRecord(number, start, end, 0, 0, caption="c", scores=scores)


def test_steps_leave_gaps_where_nothing_is_known() -> None:
    shots = [shot(1, 0, 2, motion=0.5), shot(2, 2, 4, motion=1.0), shot(3, 4, 6), shot(4, 6, 10, motion=0.0)]
    steps = steps_of(shots, "motion", 10)
    assert line_path(steps) == "M0 50H200V0H400M600 100H1000"
    assert area_path(steps) == "M0 50H200V0H400V100H0ZM600 100H1000V100H600Z"
    assert (line_path([]), area_path([]), smooth_path([])) == ("", "", "")


def points(path: str) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split())) for pair in path[1:].replace("M", "L").split("L")]  # type: ignore[misc]


def of_equal_length(values: list[float]) -> list[Step]:
    return [Step(n / len(values), (n + 1) / len(values), value) for n, value in enumerate(values)]


def test_the_smooth_curve_is_a_mean() -> None:
    level = points(smooth_path(of_equal_length([0.25] * 1500)))
    assert {height for _, height in level} == {75}
    assert (level[0][0], level[-1][0]) == (0, 1000)
    noisy = [0.5 + 0.4 * (-1) ** n for n in range(1500)]
    assert all(abs(height - 50) < 2 for _, height in points(smooth_path(of_equal_length(noisy))))
    rising = points(smooth_path(of_equal_length([n / 1500 for n in range(1500)])))
    assert all(one[1] >= other[1] for one, other in zip(rising, rising[1:], strict=False))
    assert smooth_path(of_equal_length([0.5] * (SMOOTH_SHOTS - 1))) == ""


def test_the_smooth_curve_has_the_gaps_of_the_steps() -> None:
    steps: list[Any] = [step for step in of_equal_length([0.5] * 1500) if not 0.4 < step.start < 0.6]
    places = [place for place, _ in points(smooth_path(steps))]
    assert not [place for place in places if 430 < place < 570]
    assert [place for place in places if place > 600]
