"""What is passed through besides inference: files, audio, batches, stored responses, and who may use them."""

import asyncio
import hashlib
import json
import os
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from tests.gateway_process import TOKEN, Gateway, sha256
from tests.integration.conftest import StartGateway
from tests.planted import planted
from tests.provider import Call, Provider, entry, free_port, provider

KEY = planted("provider-key")
PLAIN = planted("plain-token")
MEBIBYTE = 1 << 20


class Recorder:
    """Answers everything with what the SDK wants to see, and keeps the digest of what was sent."""

    def __init__(self) -> None:
        self.digest = ""
        self.length = 0
        self.kept = bytearray()

    async def __call__(self, call: Call) -> None:
        digest, self.length, self.kept = hashlib.sha256(), 0, bytearray()
        async for piece in call.pieces():
            digest.update(piece)
            self.length += len(piece)
            self.kept += piece[: 4 * MEBIBYTE - len(self.kept)]
        self.digest = digest.hexdigest()
        call.content = bytes(self.kept)
        if call.path.endswith("/content"):
            await call.answer(bytes(range(256)) * 4, headers={"content-type": "application/octet-stream"})
        else:
            await call.answer(self._object(call), headers={"openai-organization": "org-ours", "set-cookie": "a=b"})

    def _object(self, call: Call) -> dict[str, Any]:
        identity = call.path.rpartition("/")[2]
        if "/files" in call.path:
            return {
                "id": "file-1",
                "object": "file",
                "bytes": self.length,
                "created_at": 1,
                "filename": "f",
                "purpose": "batch",
                "status": "processed",
            }
        if "/batches" in call.path:
            return {
                "id": "batch-1",
                "object": "batch",
                "endpoint": "/v1/chat/completions",
                "input_file_id": "file-1",
                "completion_window": "24h",
                "status": "validating",
                "created_at": 1,
            }
        if "/responses/" in call.path:
            return {"id": identity, "object": "response", "created_at": 1, "model": "real-model", "output": []}
        return {"text": "Heard."}


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def gateway(start_shared_gateway: StartGateway, port: int) -> Gateway:
    return start_shared_gateway(
        f"""
        providers:
          - {entry(port, extra=f"credentials: [{{name: main, api_key: {KEY}}}]")}
        model_aliases:
          - {{from: ears, to: real/whisper-of-the-provider}}
        routes:
          - {{name: batches, match: {{path: "/v1/batches*"}}, targets: ["real/*"]}}
        """,
        access=f"""\
tokens:
  - {{name: tester, sha256: {sha256(TOKEN)}, models: ["*"], endpoints: [inference, files, batches, responses]}}
  - {{name: plain, sha256: {sha256(PLAIN)}, models: ["*"]}}
""",
    )


@pytest.fixture
async def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def real(gateway: Gateway, port: int, recorder: Recorder) -> AsyncIterator[Provider]:
    async with provider(recorder, port) as running:
        yield running


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[AsyncOpenAI]:
    headers = {"x-sluice-provider": "real"}
    async with AsyncOpenAI(base_url=gateway.base_url, api_key=TOKEN, max_retries=0, default_headers=headers) as sdk:
        yield sdk


def multipart(boundary: str, *parts: bytes) -> bytes:
    return b"".join(b"--%s\r\n%s\r\n" % (boundary.encode(), part) for part in parts) + f"--{boundary}--\r\n".encode()


def text_part(name: str, value: str) -> bytes:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()


def file_part(content: bytes) -> bytes:
    head = (
        b'Content-Disposition: form-data; name="file"; filename="speech.bin"\r\nContent-Type: application/octet-stream'
    )
    return head + b"\r\n\r\n" + content


async def test_the_sdk_uploads_a_file_with_every_byte_of_it(client: AsyncOpenAI, real: Provider) -> None:
    content = os.urandom(MEBIBYTE)
    made = await client.files.create(file=("data.jsonl", content), purpose="batch")
    assert "file-1" == made.id
    call = real.calls[0]
    assert ("POST", "/v1/files") == (call.method, call.path)
    assert content in call.content
    assert f"Bearer {KEY}" == call.headers["authorization"]
    assert not [name for name in call.headers if name.startswith("x-sluice")]
    assert TOKEN not in str(call.headers)


async def test_the_sdk_reads_lists_and_deletes_files(client: AsyncOpenAI, real: Provider) -> None:
    assert "file-1" == (await client.files.retrieve("file-1")).id
    assert bytes(range(256)) * 4 == (await client.files.content("file-1")).content
    await client.files.delete("file-1")
    asked = [(call.method, call.path) for call in real.calls]
    assert [("GET", "/v1/files/file-1"), ("GET", "/v1/files/file-1/content"), ("DELETE", "/v1/files/file-1")] == asked


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_64_mebibytes_pass_through_without_staying(
    gateway: Gateway, http: aiohttp.ClientSession, real: Provider, recorder: Recorder, chunked: bool
) -> None:
    block = os.urandom(MEBIBYTE)
    body = [multipart("b0undary", text_part("purpose", "batch"), file_part(block))[: -len("\r\n--b0undary--\r\n")]]
    body += [block] * 63 + [b"\r\n--b0undary--\r\n"]
    expected = hashlib.sha256(b"".join(body)).hexdigest()
    length = sum(map(len, body))
    most = before = gateway.memory_bytes()

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal most
        for piece in body:
            yield piece
            most = max(most, gateway.memory_bytes())

    headers = {"content-type": "multipart/form-data; boundary=b0undary", "x-sluice-provider": "real"}
    if not chunked:
        headers["content-length"] = str(length)
    async with http.post(f"{gateway.base_url}/files", data=pieces(), headers=headers) as answer:
        assert 200 == answer.status, await answer.text()
    assert (length, expected) == (recorder.length, recorder.digest)
    assert ("chunked" if chunked else None) == real.calls[0].headers.get("transfer-encoding")
    assert (None if chunked else str(length)) == real.calls[0].headers.get("content-length")
    print(f"\n64 MiB uploaded, memory grew by {(most - before) / MEBIBYTE:.1f} MiB at most")
    assert most - before < 16 * MEBIBYTE


async def test_a_transcriptions_model_is_renamed_and_nothing_else(
    gateway: Gateway, http: aiohttp.ClientSession, real: Provider
) -> None:
    speech = b"\r\n--almost-b0undary\r\nname=model" + os.urandom(200_000)
    parts = (text_part("language", "en"), text_part("model", "ears"), file_part(speech), text_part("prompt", "ears"))
    sent = multipart("b0undary", *parts)
    headers = {"content-type": "multipart/form-data; boundary=b0undary"}
    async with http.post(f"{gateway.base_url}/audio/transcriptions", data=sent, headers=headers) as answer:
        assert (200, {"text": "Heard."}) == (answer.status, await answer.json())
        assert "real/whisper-of-the-provider" == answer.headers["x-sluice-target"]
    renamed = multipart("b0undary", parts[0], text_part("model", "whisper-of-the-provider"), *parts[2:])
    call = real.calls[0]
    assert "/v1/audio/transcriptions" == call.path
    assert str(len(renamed)) == call.headers["content-length"]
    assert renamed == call.content


async def test_the_sdk_transcribes_by_alias(client: AsyncOpenAI, real: Provider) -> None:
    heard = await client.audio.transcriptions.create(model="ears", file=("a.wav", b"RIFF" + bytes(1000)))
    assert "Heard." == heard.text
    assert re.search(rb'name="model"\r\n\r\nwhisper-of-the-provider\r\n', real.calls[0].content)


async def test_batches_go_where_their_paths_route_says(gateway: Gateway, real: Provider) -> None:
    async with AsyncOpenAI(base_url=gateway.base_url, api_key=TOKEN, max_retries=0) as sdk:
        made = await sdk.batches.create(
            input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h"
        )
        assert "batch-1" == made.id
        await sdk.batches.retrieve("batch-1")
        await sdk.batches.cancel("batch-1")
    assert ["/v1/batches", "/v1/batches/batch-1", "/v1/batches/batch-1/cancel"] == [call.path for call in real.calls]
    assert "file-1" == json.loads(real.calls[0].content)["input_file_id"]


async def test_stored_responses_are_read_and_deleted_with_the_grant(client: AsyncOpenAI, real: Provider) -> None:
    stored = await client.responses.retrieve("resp_1")
    assert "resp_1" == stored.id
    await client.responses.delete("resp_1")
    await client.responses.cancel("resp_1")
    await client.responses.input_items.list("resp_1", limit=5)
    assert [
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("GET", "/v1/responses/resp_1/input_items?limit=5"),
    ] == [(call.method, call.path) for call in real.calls]


async def test_what_is_made_of_an_input_names_its_model(client: AsyncOpenAI, real: Provider) -> None:
    await client.responses.input_tokens.count(model="ears", input="how long is this?")
    await client.responses.compact(model="ears", input="and this?")
    assert ["/v1/responses/input_tokens", "/v1/responses/compact"] == [call.path for call in real.calls]
    assert ["whisper-of-the-provider"] * 2 == [json.loads(call.content)["model"] for call in real.calls]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/files"),
        ("POST", "/v1/files"),
        ("GET", "/v1/files/file-1"),
        ("GET", "/v1/files/file-1/content"),
        ("DELETE", "/v1/files/file-1"),
        ("POST", "/v1/batches"),
        ("GET", "/v1/batches/batch-1"),
        ("POST", "/v1/batches/batch-1/cancel"),
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("GET", "/v1/responses/resp_1/input_items"),
    ],
)
async def test_what_callers_would_share_takes_a_grant(gateway: Gateway, real: Provider, method: str, path: str) -> None:
    answer = gateway.request(method, path, headers={"x-sluice-provider": "real"}, key=PLAIN)
    assert (403, "endpoint_not_allowed") == (answer.status, answer.code)
    assert [] == real.calls


async def test_a_previous_response_takes_the_grant_too(gateway: Gateway, real: Provider) -> None:
    body = {"model": "ears", "input": "?", "previous_response_id": "resp_1"}
    answer = gateway.request("POST", "/v1/responses", body, key=PLAIN)
    assert (403, "endpoint_not_allowed") == (answer.status, answer.code)
    assert [] == real.calls


async def test_without_a_model_the_provider_must_be_named(gateway: Gateway, client: AsyncOpenAI) -> None:
    answer = gateway.request("GET", "/v1/files")
    assert (400, "provider_required") == (answer.status, answer.code)
    assert "x-sluice-provider" in answer.json()["error"]["message"]
    with pytest.raises(openai.BadRequestError) as caught:
        await client.files.retrieve("file-1", extra_headers={"x-sluice-provider": "nobody"})
    assert "provider_not_found" == caught.value.code


async def test_what_is_only_between_us_and_the_provider_is_dropped(
    gateway: Gateway, http: aiohttp.ClientSession, real: Provider
) -> None:
    headers = {"x-sluice-provider": "real", "cookie": "session=1", "x-forwarded-for": "10.0.0.1", "x-custom": "kept"}
    async with http.get(f"{gateway.base_url}/files/file-1?after=a%20b&limit=2", headers=headers) as answer:
        assert "set-cookie" not in answer.headers
    call = real.calls[0]
    assert "/v1/files/file-1?after=a%20b&limit=2" == call.path
    assert "kept" == call.headers["x-custom"]
    assert not {"cookie", "x-forwarded-for"} & call.headers.keys()


def test_a_websocket_for_responses_is_told_to_speak_http(gateway: Gateway) -> None:
    headers = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
    }
    answer = gateway.request("GET", "/v1/responses", headers=headers)
    assert (426, "upgrade_required") == (answer.status, answer.code)
    assert "POST" in answer.json()["error"]["message"]


async def test_an_upload_that_the_provider_refuses_early_is_answered(gateway: Gateway, real: Provider) -> None:
    async def refuses(call: Call) -> None:
        await call.answer({"error": {"message": "Too big.", "code": "too_big"}}, 413, {"connection": "close"})
        await call.gone()

    real.behave = refuses
    body = multipart("b0undary", file_part(bytes(4 * MEBIBYTE)))
    head = [
        "POST /v1/files HTTP/1.1",
        "host: gateway",
        f"authorization: Bearer {TOKEN}",
        "x-sluice-provider: real",
        "content-type: multipart/form-data; boundary=b0undary",
        f"content-length: {len(body)}",
    ]
    async with asyncio.timeout(60), gateway.connect() as (reader, writer):
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
        assert b"too_big" in await reader.readuntil(b"too_big")


def test_paths_that_climb_are_not_served(gateway: Gateway) -> None:
    for path in ("/v1/files/..%2fmodels", "/v1/files/../../admin", "/v1/responses/..", "/v1/files/a%2fb"):
        assert 404 == gateway.request("GET", path, headers={"x-sluice-provider": "real"}).status, path
