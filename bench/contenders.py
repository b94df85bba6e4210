"""The rows of the table: what is started, and how. To add one, add an entry to `CONTENDERS`."""

import hashlib
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.accounting import accounted, sampled, shared, start_redis
from bench.managed import make_database
from bench.workload import ALIAS, PROVIDER_MODEL, TOKEN

_COMMON_MEASURES = ("json", "streams", "latency", "first_event", "memory", "prompts")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contender finds itself: the address to listen on, the mock provider's, and a folder of its own."""

    listen: str
    upstream: str
    scratch: Path


@dataclass(frozen=True, slots=True)
class Contender:
    """One row. It takes `POST /v1/chat/completions` and passes it to the mock provider."""

    name: str
    what: str
    command: Callable[[Place], list[str]] | None
    """Writes the configuration that it needs into the place's folder and gives the arguments to start it with.
    None: no proxy, the load goes straight to the mock provider."""
    ready_path: str = "/"
    """Ready when this answers with any status below 500."""
    env: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    """What its requests need more than others'; `{upstream}` stands for the mock provider's address."""
    measures: tuple[str, ...] = _COMMON_MEASURES
    """What is done to it; to a row without a proxy, no `memory`."""
    workers: int = 1
    """How many it has. One is put on one core, two may use two."""
    needs: str | None = None
    """A program that the machine may lack; then the row is left out with a note."""


def program(name: str) -> str | None:
    """Where the program is, or None. Debian keeps nginx in /usr/sbin, which is not on every user's path."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


def free_address() -> str:
    """An address on 127.0.0.1 that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def _nginx(place: Place) -> list[str]:
    # Started by root, its worker runs as another user, who must be able to enter the folder.
    place.scratch.chmod(0o755)
    config = place.scratch / "nginx.conf"
    config.write_text(_NGINX_CONFIG.format(listen=place.listen, upstream=place.upstream, scratch=place.scratch))
    return [program("nginx") or "nginx", "-c", str(config), "-e", str(place.scratch / "error.log")]


# The log is formatted and written like any, but in batches and to nowhere, so that no disk is measured; long bodies are
# kept in memory, as Sluice keeps them, not in files. When a sixteenth of its connections is left, nginx drops idle ones.
_NGINX_CONFIG = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {scratch}/nginx.pid;
events {{ worker_connections 19000; }}
http {{
  client_body_temp_path {scratch}/body; proxy_temp_path {scratch}/proxy; fastcgi_temp_path {scratch}/fastcgi;
  uwsgi_temp_path {scratch}/uwsgi; scgi_temp_path {scratch}/scgi;
  log_format line escape=json '{{"time":"$time_iso8601","request_id":"$request_id","method":"$request_method",'
    '"path":"$uri","status":$status,"seconds":$request_time,"upstream":"$upstream_addr","bytes":$bytes_sent}}';
  access_log /dev/null line buffer=64k flush=1s;
  keepalive_requests 1000000000;
  client_max_body_size 32m; client_body_buffer_size 32m;
  upstream provider {{
    server {upstream};
    keepalive 1024;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {listen} backlog=4096;
    location / {{
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


def _sluice(place: Place, workers: int) -> list[str]:
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    config = place.scratch / "sluice.yaml"
    values = {"workers": workers, "digest": digest, "upstream": place.upstream, "alias": ALIAS, "model": PROVIDER_MODEL}
    config.write_text(_SLUICE_CONFIG.format(**values))
    return [sys.executable, "-m", "gateway", "serve", "-c", str(config), "--listen", place.listen]


def _managed(place: Place) -> list[str]:
    make_database(place.scratch / "data" / "sluice.db")
    # Its caller's token is in the database, where the file has one that nobody sends.
    command = _sluice(place, workers=1)
    config = place.scratch / "sluice.yaml"
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    config.write_text(config.read_text().replace(digest, hashlib.sha256(b"sk-bench-nobody").hexdigest()))
    return command


def _accounted(place: Place) -> list[str]:
    return _rewritten(place, accounted)


def _sampled(place: Place) -> list[str]:
    return _rewritten(place, lambda config: sampled(config, place.upstream))


def _shared(place: Place) -> list[str]:
    url = start_redis(place.scratch)
    return _rewritten(place, lambda config: shared(config, url))


def _rewritten(place: Place, change: Callable[[str], str]) -> list[str]:
    command = _sluice(place, workers=1)
    config = place.scratch / "sluice.yaml"
    config.write_text(change(config.read_text()))
    return command


# Without the ledger, which rows of their own have: so this row stays comparable with what it was.
_SLUICE_CONFIG = """\
server: {{workers: {workers}}}
usage: {{ledger: false}}
tokens:
  - {{name: bench, sha256: {digest}, models: ["*"]}}
providers:
  - name: mock
    type: openai-compatible
    base_url: http://{upstream}/v1
    credentials: [{{name: main, api_key: "${{env:BENCH_PROVIDER_KEY}}"}}]
model_aliases:
  - {{from: {alias}, to: mock/{model}}}
routes:
  - name: bench
    match: {{model: "mock/*"}}
    targets: [mock/{model}]
"""

_SLUICE_ENV = (("BENCH_PROVIDER_KEY", "sk-bench-provider"),)

CONTENDERS = (
    Contender("direct", "no proxy: the load generator and the mock provider alone", None),
    Contender("nginx", "one worker, keep-alive on both sides, unbuffered, JSON access log", _nginx, needs="nginx"),
    Contender(
        "sluice",
        "one worker with a token, an alias, a route, metrics and the access log",
        partial(_sluice, workers=1),
        ready_path="/readyz",
        env=_SLUICE_ENV,
        measures=(*_COMMON_MEASURES, "workers"),
    ),
    Contender(
        "sluice-managed",
        "the same with 10,000 tokens in its database, the caller's among them, and the audit",
        _managed,
        ready_path="/readyz",
        env=_SLUICE_ENV,
        measures=("json", "streams", "latency", "first_event"),
    ),
    Contender(
        "sluice-accounting",
        "one worker with four limits of its token (in memory), prices, the ledger and two webhooks, besides",
        _accounted,
        ready_path="/readyz",
        env=_SLUICE_ENV,
        measures=("json", "streams", "latency", "first_event"),
    ),
    Contender(
        "sluice-webhooks",
        "the same, and a hundredth of its requests told to a third webhook",
        _sampled,
        ready_path="/readyz",
        env=_SLUICE_ENV,
        measures=("json", "latency"),
    ),
    Contender(
        "sluice-redis",
        "as sluice-accounting, the limits counted by a Redis beside the mock provider",
        _shared,
        ready_path="/readyz",
        env=_SLUICE_ENV,
        measures=("json", "latency"),
        needs="redis-server",
    ),
    Contender(
        "sluice-2",
        "the same with two workers, which may use two cores; beside `sluice` given the same cores",
        partial(_sluice, workers=2),
        ready_path="/readyz",
        env=_SLUICE_ENV,
        measures=("workers",),
        workers=2,
    ),
)
