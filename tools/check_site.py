"""Open every page of the site in Chromium and list what would stop a reader.

Each page is opened as the published site serves it: in light and dark, at the width of a desk and of a phone, by a
reader who has only a keyboard, by axe-core (accessibility), and for paper. Then words are looked up, and the site is
read from the disk. Each slide is opened, and must fit. With --pictures FOLDER pictures of the pages and slides, and the
printed pages, are kept there, for people to look at; that takes half as long again. Where there is no Chromium, no
page is opened, and the exit status is 77.
"""

import argparse
import contextlib
import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = 77
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SLIDE = {"width": 1280, "height": 720}
PAPER = {"width": 718, "height": 1017}  # A4 at 96 dots per inch, less the margins of styles.css
AT_ONCE = 2  # browsers
HIGHEST_PICTURE = 6_000  # pixels: some screens; the printed page is whole
WRONG_ADDRESS = "no/such/page.html"  # shows 404.html
WORDS = {  # what is looked up, and what each first hit must show
    "select_genes": r"\bselect_genes\b",
    "INS": r"\bINS\b",
    "install": r"(?i)\binstall",
    "Xenium": r"Xenium",
    "batch effect": r"(?i)\bbatch|effect",
    "Excel": r"Excel|xlsx|[Ss]preadsheet",
}


class PublishedSite(SimpleHTTPRequestHandler):
    """Serve the site under the path of its address, and its own page for every address that does not exist."""

    prefix = "/"

    def translate_path(self, path: str) -> str:
        """Find the file of an address; addresses outside the site have none."""
        inside = path.startswith(self.prefix)
        return super().translate_path("/" + path.removeprefix(self.prefix) if inside else "/outside")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with the site's own page instead of the server's."""
        text = (Path(self.directory) / "404.html").read_bytes()
        self.send_response(code, message)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(text)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(site: Path) -> Iterator[str]:
    """Serve the site on this machine only; gives the address of its first folder."""
    found = re.search(r"<loc>https?://[^/]+(/.*?)index.html</loc>", (site / "sitemap.xml").read_text(encoding="utf-8"))
    PublishedSite.prefix = found[1] if found else "/"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(PublishedSite, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{PublishedSite.prefix}"
    finally:
        server.shutdown()


class Reader:
    """One window of the browser, and the faults that its pages showed."""

    def __init__(self, browser: Any, address: str, theme: str, pictures: Path | None) -> None:
        context = browser.new_context(color_scheme=theme, viewport=DESK)
        context.set_default_timeout(180_000)  # a machine may be busy
        context.add_init_script(path=Path(__file__).with_suffix(".js"))
        self.page, self.address, self.theme, self.pictures = context.new_page(), address, theme, pictures
        self.where, self.faults = "", list[tuple[str, str]]()
        self.kinds_of_text = list[str]()  # ways to show text whose contrast is known to be enough
        self.page.on("pageerror", lambda error: self.note([f"script error: {error}"]))
        self.page.on("console", lambda line: self.note(self.complaint(line)))
        self.page.on("request", lambda request: self.note(self.outside(request.url)))

    def complaint(self, line: Any) -> list[str]:
        """Say what the console complains of; a wrong address may be called wrong."""
        expected = self.where == "404.html" and line.location["url"] == self.address + WRONG_ADDRESS
        return [f"console: {line.text}"] if line.type == "error" and not expected else []

    def outside(self, url: str) -> list[str]:
        """Say which request leaves the site."""
        return [] if url.startswith((self.address, "data:", "blob:", "file:")) else [f"a request to {url}"]

    def note(self, faults: list[str]) -> None:
        """Keep faults of the page that is open."""
        self.faults += [(self.where, fault) for fault in faults]

    def ask(self, question: str) -> None:
        """Ask the page one of the questions of check_site.js and keep the faults that it names."""
        self.note([f"{fault} [{self.theme}]" for fault in self.page.evaluate(f"reader.{question}")])

    def open(self, name: str) -> None:
        """Open a page at the width of a desk."""
        self.where = name
        self.page.set_viewport_size(DESK)
        self.page.goto(self.address + (WRONG_ADDRESS if name == "404.html" else name))

    def keep(self, kind: str) -> None:
        """Keep a picture of the page, where pictures are wanted."""
        if self.pictures is None:
            return
        size = {axis: self.page.evaluate(f"document.documentElement.scroll{axis}") for axis in ("Width", "Height")}
        clip = {"x": 0, "y": 0, "width": size["Width"], "height": min(size["Height"], HIGHEST_PICTURE)}
        path = self.pictures / f"{Path(self.where).stem}_{kind}_{self.theme}.jpg"
        self.page.screenshot(path=path, type="jpeg", quality=60, full_page=True, clip=clip, animations="disabled")

    def axe(self, rules: str = "") -> None:
        """Let axe-core judge the page by one of its rules, or by all."""
        from axe_playwright_python.base import AXE_SCRIPT

        self.page.evaluate(AXE_SCRIPT)
        n_faults = len(self.faults)
        self.ask(f"axe({rules!r}, {json.dumps(self.kinds_of_text)})")
        if len(self.faults) == n_faults:
            self.kinds_of_text = self.page.evaluate("reader.kindsOfText()")


def look(reader: Reader) -> None:
    """Look at an open page for what depends on the theme: contrast, on the screen and on paper."""
    reader.keep("desk")
    reader.axe("color-contrast" if reader.theme == "dark" else "")
    reader.page.emulate_media(media="print")
    reader.page.set_viewport_size(PAPER)
    reader.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    reader.ask(f"paper({PAPER['height']})")
    reader.ask("cutOff(true)")
    reader.page.evaluate("dispatchEvent(new Event('afterprint'))")
    reader.page.emulate_media(media="null")


def look_once(reader: Reader) -> None:
    """Look at an open page for what no theme changes: its structure, the keyboard's way, the phone."""
    reader.page.set_viewport_size(DESK)
    reader.ask("pictures()")
    reader.ask("keyboard()")
    reader.page.set_viewport_size(PHONE)
    reader.ask("keyboard()")
    reader.ask("cutOff()")
    reader.keep("phone")
    if reader.pictures is not None:
        reader.page.pdf(path=reader.pictures / f"{Path(reader.where).stem}.pdf", prefer_css_page_size=True)


def look_at_slides(reader: Reader, deck: str) -> None:
    """Look at every slide of a deck: whether it fits, its letters and what its pictures say."""
    reader.where = deck
    reader.page.set_viewport_size(SLIDE)
    reader.page.goto(reader.address + deck)
    reader.page.wait_for_function("window.Reveal && Reveal.isReady()")
    for number in range(reader.page.evaluate("Reveal.getTotalSlides()")):
        reader.where = f"{deck}, slide {number + 1}"
        reader.page.evaluate(f"Reveal.slide({number})")
        reader.page.wait_for_timeout(50)
        reader.ask("slide()")
        reader.ask("pictures()")
        if reader.pictures is not None:
            path = reader.pictures / f"slides_{Path(deck).stem}_{number + 1:02d}.jpg"
            reader.page.screenshot(path=path, type="jpeg", quality=60)
    reader.axe("color-contrast")


def look_at_decks(site: Path, pictures: Path | None, executable: str) -> list[tuple[str, str]]:
    """Open every slide of the site and list the faults: deck and slide, and fault."""
    decks = [path.relative_to(site).as_posix() for path in sorted(site.glob("slides/*.html"))]
    with readers(site, pictures, executable) as (light, _):
        for deck in decks:
            start = time.monotonic()
            look_at_slides(light, deck)
            print(f"{deck}: {time.monotonic() - start:.1f} s", flush=True)
        return light.faults


def skip_to_text(reader: Reader) -> None:
    """Go from the address of a page to its text by keyboard; from then on the browser shows where the focus is."""
    reader.page.keyboard.press("Tab")
    reader.page.keyboard.press("Enter")
    skipped = reader.page.evaluate("document.activeElement.closest('main') !== null")
    reader.note([] if skipped else ["the first press of Tab, then Enter, does not lead to the text"])


def look_up(reader: Reader, words: str, shows: str) -> None:
    """Look words up in the search box: what is listed first must show them, and so must the page that it leads to."""
    reader.page.locator(".smalldocs-search input").fill(words)
    first = reader.page.locator(".search-result").first
    first.wait_for()
    listed = reader.page.locator(".search-result").all_inner_texts()[:3]
    reader.note([f"looked up {words}, found {text!r}" for text in listed if not re.search(shows, text)])
    reader.axe("color-contrast")
    first.click()
    reader.page.wait_for_load_state()
    text = reader.page.locator("main").inner_text()
    reader.note([] if re.search(shows, text) else [f"{reader.page.url} does not show {words}"])


def look_around(reader: Reader, site: Path) -> None:
    """Search, change the theme by keyboard, and open the site from the disk."""
    for words, shows in WORDS.items():
        reader.open("index.html")
        look_up(reader, words, shows)
    reader.open("index.html")
    before = reader.page.evaluate("getComputedStyle(document.body).backgroundColor")
    reader.page.locator(".quarto-color-scheme-toggle").focus()
    reader.page.keyboard.press("Enter")
    reader.page.wait_for_timeout(300)
    after = reader.page.evaluate("getComputedStyle(document.body).backgroundColor")
    reader.note(["the theme does not change by keyboard"] if before == after else [])
    reader.where = "from the disk"
    reader.page.goto((site / "index.html").as_uri())
    look_up(reader, *next(iter(WORDS.items())))


@contextlib.contextmanager
def readers(site: Path, pictures: Path | None, executable: str) -> Iterator[tuple[Reader, Reader]]:
    """Serve the site and open two windows of a browser on it, one in the light theme and one in the dark."""
    from playwright.sync_api import sync_playwright

    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
    with serving(site) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield Reader(browser, address, "light", pictures), Reader(browser, address, "dark", pictures)
        browser.close()


def look_at_some(site: Path, pictures: Path | None, names: list[str], executable: str) -> list[tuple[str, str]]:
    """Open pages in light and dark and list the faults: page and fault."""
    with readers(site, pictures, executable) as (light, dark):
        for name in names:
            start = time.monotonic()
            for reader in (dark, light):
                reader.open(f"{name}.html")
                skip_to_text(reader)
                look(reader)
            look_once(light)
            print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
        return light.faults + dark.faults


def look_at_pages(site: Path, pictures: Path | None, names: list[str], executable: str) -> list[tuple[str, str]]:
    """Open pages, with some browsers at once, and list the faults."""
    parts = [part for part in (names[first::AT_ONCE] for first in range(AT_ONCE)) if part]
    with ThreadPoolExecutor(AT_ONCE) as pool:  # the work is the browsers', which are processes of their own
        return sum(pool.map(partial(look_at_some, site, pictures, executable=executable), parts), start=[])


def main() -> int:
    """Read the arguments and look at the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", help="the pages to open, such as masking; all if none is named")
    parser.add_argument("--site", type=Path, default=ROOT / "_docs", help="the folder of the site")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="keep pictures there, such as runs/pages")
    arguments = parser.parse_args()
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        print(f"no page was opened in a browser: there is none of {', '.join(BROWSERS)} on this machine")
        return SKIPPED
    if not (arguments.site / "sitemap.xml").exists():
        print(f"there is no site in {arguments.site}; build it with: make site")
        return 1
    start = time.monotonic()
    site = arguments.site.resolve()
    names = arguments.pages or [path.stem for path in sorted(site.glob("*.html"))]
    faults = look_at_pages(site, arguments.pictures, names, executable)
    faults += look_at_decks(site, arguments.pictures, executable)
    with readers(site, arguments.pictures, executable) as both:
        for reader in both:
            look_around(reader, site)
            faults += reader.faults
    for page, fault in dict.fromkeys(faults):
        print(f"{page}: {fault}")
    kept = f"; pictures of the pages: {arguments.pictures}" if arguments.pictures else ""
    print(f"{len(faults)} faults in {time.monotonic() - start:.0f} s{kept}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
