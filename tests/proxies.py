"""Debian's nginx and HAProxy in front of replicas, on the loopback address, with what a user would write."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from bridge.embedded import guarded
from tests.stack import until

_NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream bridge {{
{nginx_servers}
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://bridge;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 310s;
      proxy_next_upstream error timeout;
    }}
  }}
}}
"""

_HAPROXY = """
defaults
  mode http
  timeout connect 2s
  timeout client 310s
  timeout server 310s
  retries 2
  option redispatch
frontend clients
  bind 127.0.0.1:{port}
  default_backend bridge
backend bridge
  balance roundrobin
  option httpchk GET /readyz
{haproxy_servers}
"""

PROXIES = tuple(
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            shutil.which(name) is None, reason=f"{name} is not installed: apt-get install {name}"
        ),
    )
    for name in ("nginx", "haproxy")
)


@contextmanager
def open_proxy(name: str, urls: Sequence[str], folder: Path) -> Iterator[str]:
    """Run a load balancer, round robin over replicas; gives its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hosts = [url.removeprefix("http://") for url in urls]
    settings = {
        "folder": folder,
        "port": port,
        "nginx_servers": "\n".join(f"    server {host} fail_timeout=1s;" for host in hosts),
        "haproxy_servers": "\n".join(
            f"  server r{number} {host} check inter 500ms rise 1 fall 1"
            for number, host in enumerate(hosts)
        ),
    }
    file = folder / f"{name}.conf"
    file.write_text((_NGINX if name == "nginx" else _HAPROXY).format(**settings), encoding="utf-8")
    command = {
        "nginx": ["nginx", "-p", str(folder), "-c", str(file)],
        "haproxy": ["haproxy", "-db", "-f", str(file)],
    }[name]
    url = f"http://127.0.0.1:{port}"
    with (folder / f"{name}.out").open("wb") as output:
        child = subprocess.Popen(  # noqa: S603 - chosen above
            guarded(command, on_parent_death=signal.SIGTERM), stdout=output, stderr=output
        )
    try:
        until(lambda: _answers(url), timeout_s=20, what=f"{name} answers")
        yield url
    finally:
        child.terminate()
        child.wait(timeout=20)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.HTTPError:
        return False
