"""Configurations of the rows that limit, count and tell what they pass on."""

import atexit
import shutil
import subprocess
import time
from pathlib import Path

_SECRET = "whsec_YmVuY2gtbm90LWEtc2VjcmV0LWFuZC1sb25n"

_LIMITS = """\
    limits:
      - {requests: 1000000000, per: minute}
      - {tokens: 1000000000000, per: day}
      - {usd: 1000000, per: month}
      - {concurrency: 100000}
"""
"""Of the token; none of them is ever reached."""

_PRICES = """\
prices:
  - {model: "mock/*", input_usd: 0.15, output_usd: 0.6}
"""

_WEBHOOKS = """\
webhooks:
  - {name: config, url: "http://127.0.0.1:9/", secret: SECRET, events: ["config.*"]}
  - {name: credentials, url: "http://127.0.0.1:9/", secret: SECRET, events: ["credential.*"]}
"""

_SAMPLED = """\
  - {name: requests, url: "http://UPSTREAM/v1/chat/completions", secret: SECRET, events: [request.completed], sample: 0.01}
"""


def accounted(config: str) -> str:
    """``config`` with limits of four kinds, prices, the ledger, and two webhooks that are told nothing while all is well."""
    head, token, rest = config.replace("usage: {ledger: false}\n", "").partition('models: ["*"]}\n')
    assert token, "there is one token"
    inline = token.replace("}\n", "")
    limits = ", ".join(line.strip().removeprefix("- ") for line in _LIMITS.splitlines()[1:])
    return f"{head}{inline}, limits: [{limits}]}}\n{rest}{_PRICES}{_WEBHOOKS.replace('SECRET', _SECRET)}"


def sampled(config: str, upstream: str) -> str:
    """The same, and a hundredth of the requests told to a webhook."""
    return accounted(config) + _SAMPLED.replace("UPSTREAM", upstream).replace("SECRET", _SECRET)


def shared(config: str, redis_url: str) -> str:
    """As :func:`accounted`, the limits counted by Redis."""
    return accounted(config) + f"redis: {{url: {redis_url}}}\n"


def start_redis(scratch: Path) -> str:
    """A Redis of its own for this run, on the core of the load; its URL. It ends with the bench."""
    found = shutil.which("redis-server")
    assert found is not None, "the row says that it needs it"
    path = scratch / "redis.sock"
    arguments = [found, "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    atexit.register(process.kill)
    deadline = time.perf_counter() + 10
    while not path.exists() and time.perf_counter() < deadline:
        time.sleep(0.01)
    return f"unix://{path}"
