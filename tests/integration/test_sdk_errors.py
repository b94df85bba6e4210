"""Failures as the official Python SDK sees them: by its own classes, never as a short but clean answer."""

from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from openai.types.responses import ResponseStreamEvent

from tests.gateway_process import TOKEN, Gateway, sha256
from tests.integration.conftest import StartGateway
from tests.planted import planted

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "one two three four five six seven eight"}]
NARROW = planted("token-for-one-model")
METRICS = planted("token-for-metrics")


@pytest.fixture(scope="module")
def running(start_shared_gateway: StartGateway) -> Gateway:
    return start_shared_gateway(
        """
        providers:
          - name: echo
            type: echo
            models: [echo-small]
            options: {interval_seconds: 0.001}
            timeouts: {connect_seconds: 0.2, first_byte_seconds: 0.2, idle_seconds: 0.2}
        model_aliases:
          - {from: fast, to: echo/echo-small}
        routes:
          - name: once
            match: {model: "echo/*"}
            targets: ["echo/*"]
            retry: {attempts: 1}
            # So that no test's failure is another's.
            cooldown: {max_seconds: 0}
        """,
        access=f"""\
tokens:
  - {{name: tester, sha256: {sha256(TOKEN)}, models: ["*"]}}
  - {{name: narrow, sha256: {sha256(NARROW)}, models: [fast]}}
  - {{name: scraper, sha256: {sha256(METRICS)}, scope: scope_metrics}}
""",
    )


@pytest.fixture
def client(running: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=running.base_url, api_key=TOKEN, max_retries=0) as sdk:
        yield sdk


def ask(client: OpenAI, model: str) -> str | None:
    return client.chat.completions.create(model=model, messages=HELLO).choices[0].message.content


@pytest.mark.parametrize("key", [planted("wrong"), planted("wrong", "sk-sluice-"), "ключ"])
def test_an_unknown_key_is_an_authentication_error(running: Gateway, key: str) -> None:
    if not key.isascii():
        # The SDK refuses to send it; other clients do not.
        answer = running.request("GET", "/v1/models", headers={"authorization": f"Bearer {key}".encode()}, key=None)  # type: ignore[dict-item]
        assert (401, "invalid_api_key") == (answer.status, answer.code)
        return
    with (
        OpenAI(base_url=running.base_url, api_key=key, max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        ask(stranger, "fast")
    assert "invalid_api_key" == caught.value.code
    assert key not in caught.value.message


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, "gpt-77")
    assert ("model_not_found", "model") == (caught.value.code, caught.value.param)
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-77")
    assert "model_not_found" == caught.value.code


def test_a_model_that_the_token_does_not_open_is_forbidden(running: Gateway) -> None:
    with OpenAI(base_url=running.base_url, api_key=NARROW, max_retries=0) as narrow:
        assert ["fast"] == [model.id for model in narrow.models.list()]
        assert ask(narrow, "fast")
        for name in ("echo-small", "echo/echo-small"):
            with pytest.raises(openai.PermissionDeniedError) as caught:
                ask(narrow, name)
            assert "model_not_allowed" == caught.value.code
        with pytest.raises(openai.NotFoundError):
            narrow.models.retrieve("echo-small")


def test_a_metrics_token_opens_no_model(running: Gateway) -> None:
    with OpenAI(base_url=running.base_url, api_key=METRICS, max_retries=0) as scraper:
        with pytest.raises(openai.PermissionDeniedError):
            ask(scraper, "fast")
        assert 200 == running.request("GET", "/metrics", key=METRICS).status


@pytest.mark.parametrize(
    ("model", "kind", "status", "code"),
    [
        ("echo/status-400", openai.BadRequestError, 400, "rehearsed"),
        ("echo/context-exceeded", openai.BadRequestError, 400, "context_length_exceeded"),
        ("echo/content-refused", openai.BadRequestError, 400, "content_filter"),
        ("echo/status-404", openai.NotFoundError, 404, "model_not_found"),
        ("echo/status-409", openai.ConflictError, 409, "rehearsed"),
        ("echo/status-422", openai.UnprocessableEntityError, 422, "rehearsed"),
        ("echo/status-429", openai.RateLimitError, 429, "rate_limit_exceeded"),
        ("echo/status-500", openai.InternalServerError, 500, "rehearsed"),
        ("echo/status-503", openai.InternalServerError, 503, "rehearsed"),
        # Our credential was refused, not the caller's: a 401 would send the caller looking in the wrong place.
        ("echo/status-401", openai.InternalServerError, 502, "upstream_credentials_rejected"),
        ("echo/status-403", openai.InternalServerError, 502, "upstream_credentials_rejected"),
        ("echo/refuse", openai.InternalServerError, 502, "upstream_unreachable"),
        ("echo/cut-early", openai.InternalServerError, 502, "upstream_disconnected"),
        ("echo/cut", openai.InternalServerError, 502, "upstream_disconnected"),
        ("echo/unreachable", openai.InternalServerError, 504, "upstream_timeout"),
        ("echo/stall", openai.InternalServerError, 504, "upstream_timeout"),
        ("echo/stall-stream", openai.InternalServerError, 504, "upstream_timeout"),
    ],
)
def test_the_providers_failure_has_the_sdks_own_class(
    client: OpenAI, model: str, kind: type[openai.APIStatusError], status: int, code: str
) -> None:
    with pytest.raises(kind) as caught:
        ask(client, model)
    assert kind is type(caught.value)
    assert (status, code) == (caught.value.status_code, caught.value.code)


def test_how_long_to_stay_away_survives(client: OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client, "echo/status-429")
    assert "1" == caught.value.response.headers["retry-after"]


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("echo/cut", "upstream_disconnected"),
        ("echo/stall-stream", "upstream_timeout"),
        ("echo/error-midstream", "rehearsed"),
    ],
)
def test_a_stream_that_breaks_raises_and_never_ends_cleanly(client: OpenAI, model: str, code: str) -> None:
    chunks: list[ChatCompletionChunk] = []
    with (
        client.chat.completions.create(model=model, messages=HELLO, stream=True) as stream,
        pytest.raises(openai.APIError) as caught,
    ):
        chunks.extend(stream)
    assert code == caught.value.code
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert "one two three four five six seven eight".startswith(text)
    assert "" != text
    assert "eight" not in text
    assert {None} == {chunk.choices[0].finish_reason for chunk in chunks}


@pytest.mark.parametrize("model", ["echo/error-event", "echo/status-500", "echo/cut-early"])
def test_a_stream_that_fails_before_its_first_output_is_a_plain_error(client: OpenAI, model: str) -> None:
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=model, messages=HELLO, stream=True)


def test_a_response_stream_that_breaks_is_an_error(client: OpenAI) -> None:
    events: list[ResponseStreamEvent] = []
    with (
        client.responses.create(model="echo/cut", input="one two three four", stream=True) as stream,
        pytest.raises(openai.APIError) as caught,
    ):
        events.extend(stream)
    assert "upstream_disconnected" == caught.value.code
    assert "response.created" == events[0].type
    assert "response.completed" not in {event.type for event in events}


@pytest.mark.parametrize("model", ["echo/garbage", "echo/empty"])
def test_an_answer_that_is_no_json_is_no_answer(client: OpenAI, model: str) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=model, messages=HELLO)
    assert (502, "upstream_malformed") == (caught.value.status_code, caught.value.code)


def test_a_stream_without_its_final_event_is_a_cut_one(running: Gateway, client: OpenAI) -> None:
    answer = running.chat("echo/garbage", stream=True)
    assert b"data: {this is not JSON\n\n" == answer.body.partition(b'data: {"error"')[0]
    assert b"upstream_disconnected" in answer.body
    assert b"[DONE]" not in answer.body
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="echo/empty", messages=HELLO, stream=True)
    assert "upstream_malformed" == caught.value.code


def test_an_answer_after_eight_mebibytes_of_padding_is_understood(client: OpenAI) -> None:
    assert "one two three four five six seven eight" == ask(client, "echo/huge")
    with client.chat.completions.create(model="echo/huge", messages=HELLO, stream=True) as stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "one two three four five six seven eight" == text


def test_a_gateway_without_tokens_opens_nothing(start_gateway: StartGateway) -> None:
    closed = start_gateway("providers: [{name: echo, type: echo, models: [echo]}]", access="tokens: []\n")
    assert (401, "invalid_api_key") == (closed.chat("echo").status, closed.chat("echo").code)
    assert 401 == closed.request("GET", "/v1/models", key=None).status
    assert 401 == closed.management("GET", "/api/v1/health").status
    assert 401 == closed.request("GET", "/metrics", key="").status
