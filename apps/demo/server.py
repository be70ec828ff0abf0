"""The demo as one web application: the page, the REST call, and what protects both."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, StrictStr
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from apps.demo.guards import BodyLimit, SecurityHeaders, refuse_downloads
from apps.demo.limits import Busy, Gate
from apps.demo.page import ON_LOAD, THEME, Desk, build_page
from apps.demo.rendering import stylesheet


class Question(BaseModel):
    """Body of POST /api/classify."""

    model_config = ConfigDict(extra="forbid")

    text: StrictStr
    classifier: StrictStr = "workspace"


def build_server(desk: Desk, url: str, hosts: Sequence[str]) -> FastAPI:
    """Return the application that serves the page at / and the REST call at /api/classify.

    It answers only requests whose Host header is one of `hosts` ("*": any), whatever their port.
    """
    limits = desk.limits
    refuse_downloads()
    server = FastAPI(
        title=desk.title,
        openapi_url="/api/openapi.json",
        docs_url=None,  # FastAPI's documentation pages load scripts from a CDN
        redoc_url=None,
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts),
            Middleware(BodyLimit, upload_bytes=limits.upload_bytes, characters=limits.characters),
        ],
    )
    gate, downloads = Gate(limits.concurrency, limits.queue), Gate(1, limits.queue)

    @server.post("/api/classify")
    async def classify(question: Question) -> dict[str, Any]:
        """Return the intent of one text, the probabilities, and what to do."""
        here = await run_in_threadpool(desk.catalogue.is_here, question.classifier)
        if not here:  # a slow remote keeps nobody from what is here
            async with downloads:
                await run_in_threadpool(desk.catalogue.fetch, question.classifier)
        async with gate:
            answer = await run_in_threadpool(desk.ask, question.text, question.classifier)
        return asdict(answer)

    @server.get("/api/classifiers")
    def classifiers() -> list[str]:
        """Return the names of the classifiers at hand; any other revision's name works too."""
        return [name for _, name in desk.catalogue.choices()]

    _explain_mistakes(server)
    return gr.mount_gradio_app(
        server,
        build_page(desk, url),
        path="/",
        footer_links=[],
        show_error=False,
        max_file_size=limits.upload_bytes,
        ssr_mode=False,
        theme=THEME,
        css=stylesheet(),
        js=ON_LOAD,
        enable_monitoring=False,
    )


def _explain_mistakes(server: FastAPI) -> None:
    @server.exception_handler(ValueError)
    async def explain(request: Request, error: ValueError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @server.exception_handler(OSError)
    async def explain_outage(request: Request, error: OSError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 500)

    @server.exception_handler(HTTPException)
    async def explain_refusal(request: Request, error: HTTPException) -> Response:
        if not request.url.path.startswith("/api/"):
            return await http_exception_handler(request, error)
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @server.exception_handler(RequestValidationError)
    async def explain_shape(request: Request, error: RequestValidationError) -> JSONResponse:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in error.errors())
        if "json" not in request.headers.get("content-type", ""):
            wrong = "send a JSON object, with the header Content-Type: application/json"
        return JSONResponse({"error": wrong}, 422)

    @server.exception_handler(Busy)
    async def explain_busy(request: Request, error: Busy) -> JSONResponse:
        return JSONResponse(
            {"error": "too many clients are waiting; try again in a few seconds"}, 503, {"Retry-After": "5"}
        )
