"""The empty echo: the ingress's web server and framework with nothing behind them.

The same uvicorn settings as `bridge.cli.processes`, one route that returns its body. Run as
`python -m benchmarks.echo PORT`.
"""

import sys

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge.cli.processes import freeze


async def echo(request: Request) -> Response:
    """Give the body back."""
    return Response(await request.body(), media_type="application/json")


async def _run(port: int) -> None:
    config = uvicorn.Config(
        Starlette(routes=[Route("/", echo, methods=["POST"])]),
        host="127.0.0.1",
        port=port,
        loop="none",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=2048,
        timeout_keep_alive=75,
    )
    freeze()
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(_run(int(sys.argv[1])))
