"""The page at `/`: files that a browser reads, all from the service, and nothing of what is stored.

Knows no call of the API: the page makes them itself, with the key that its user gives it. Invariants: what is served
here is the same for everybody, so it needs no key; its addresses are relative, as those of `app.docs_page`.
"""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parent / "web"
CHARTS = Path(str(files("youplot"))) / "vendor"
"""uPlot, as a package of Python's index carries it (docs/decisions.md)."""

router = APIRouter(include_in_schema=False)

_PAGE, _CHARTS = StaticFiles(directory=FOLDER), StaticFiles(directory=CHARTS)
PARTS = {path.name: (_PAGE, path.name) for path in FOLDER.iterdir() if path.suffix in (".css", ".js", ".svg")}
PARTS |= {"uplot.js": (_CHARTS, "uplot.iife.min.js"), "uplot.css": (_CHARTS, "uplot.min.css")}
"""What `/web/` has, and nothing else: who serves it, by which name."""


@router.get("/")
async def show_page(request: Request) -> Response:
    """The one page; what it shows is chosen behind the `#` of its address."""
    return await _answer(_PAGE, "index.html", request)


@router.get("/web/{name}")
async def show_part_of_page(request: Request, name: str) -> Response:
    """Code, style and drawings of the page."""
    if name not in PARTS:
        raise HTTPException(404)
    return await _answer(*PARTS[name], request)


async def _answer(kept: StaticFiles, name: str, request: Request) -> Response:
    """304 to a browser that has it; it asks each time, or a service that was updated showed yesterday's page."""
    answer = await kept.get_response(name, request.scope)
    answer.headers["Cache-Control"] = "no-cache"
    return answer
