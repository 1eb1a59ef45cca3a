"""Swagger UI at `/docs`, with every part of it from the service.

Knows no route of ours. Invariant: its addresses are relative, so that a page that came through a proxy, by another
scheme or below a path, finds its parts the way that it came.
"""

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

PARAMETERS = {"tryItOutEnabled": True, "filter": True, "displayRequestDuration": True}


def install(app: FastAPI) -> None:
    """Serve the page and its parts."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=f"{app.title} - Swagger UI",
            swagger_js_url="swagger/swagger-ui-bundle.js",
            swagger_css_url="swagger/swagger-ui.css",
            swagger_favicon_url="swagger/favicon-32x32.png",
            swagger_ui_parameters=PARAMETERS,
        )

    app.mount("/swagger", StaticFiles(packages=[("fastapi_swagger", "resources")]))
