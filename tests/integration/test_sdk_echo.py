"""The official Python SDK against the `echo` provider: what a newcomer without any key gets."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.gateway_process import TOKEN, Gateway
from tests.integration.conftest import StartGateway

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello, Sluice! How are you?"}]
TOOLS: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "parameters": {"type": "object", "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}}},
        },
    }
]


@pytest.fixture(scope="module")
def gateway(start_shared_gateway: StartGateway) -> Gateway:
    return start_shared_gateway("""
        providers:
          - {name: echo, type: echo, models: [echo-small, "echo-*"], options: {interval_seconds: 0.001}}
        model_aliases:
          - {from: fast, to: echo/echo-small}
          - {from: "team-*", to: "echo/echo-*"}
        routes:
          - {name: gold, match: {model: gold-model}, targets: [echo/echo-large]}
          - name: careful
            match: {requested_model: careful}
            targets: ["echo/echo-small"]
            overrides: {set: {max_tokens: 2}, default: {user: nobody}, remove: [logit_bias]}
    """)


@pytest.fixture
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.base_url, api_key=TOKEN, max_retries=0) as sdk:
        yield sdk


@pytest.fixture
async def async_client(gateway: Gateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=gateway.base_url, api_key=TOKEN, max_retries=0) as sdk:
        yield sdk


@pytest.mark.parametrize(
    ("model", "target"),
    [
        ("fast", "echo/echo-small"),
        ("team-blue", "echo/echo-blue"),
        ("gold-model", "echo/echo-large"),
        ("echo-small", "echo/echo-small"),
        ("echo/anything", "echo/anything"),
    ],
    ids=["alias", "alias with a capture", "route", "the provider's models", "prefix"],
)
def test_a_chat_completion_comes_back_whole(client: OpenAI, model: str, target: str) -> None:
    answer = client.chat.completions.with_raw_response.create(model=model, messages=HELLO)
    assert target == answer.headers["x-sluice-target"]
    parsed = answer.parse()
    assert "Hello, Sluice! How are you?" == parsed.choices[0].message.content
    assert model == parsed.model


def test_a_stream_says_the_same_word_by_word(client: OpenAI) -> None:
    with client.chat.completions.create(
        model="fast", messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert ["Hello,", " Sluice!", " How", " are", " you?"] == [piece for piece in pieces if piece]
    assert chunks[-1].usage is not None
    assert (5, 5) == (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens)


async def test_the_async_client_streams(async_client: AsyncOpenAI) -> None:
    async with await async_client.chat.completions.create(model="fast", messages=HELLO, stream=True) as stream:
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert "Hello, Sluice! How are you?" == text


def test_a_required_tool_is_called(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="fast", messages=HELLO, tools=TOOLS, tool_choice="required")
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert "function" == calls[0].type
    assert {"query": "Hello, Sluice! How are you?", "limit": 0} == json.loads(calls[0].function.arguments)


def test_a_tool_calls_arguments_stream(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="fast", messages=[{"role": "user", "content": "Please look_up the weather"}], tools=TOOLS
    ) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    function = message.tool_calls[0].function
    assert "look_up" == function.name
    assert {"query": "Please look_up the weather", "limit": 0} == json.loads(function.arguments)


def test_legacy_completions(client: OpenAI) -> None:
    answer = client.completions.create(model="fast", prompt=["one two", "three"])
    assert ["one two", "three"] == [choice.text for choice in answer.choices]
    with client.completions.create(model="fast", prompt="one two", stream=True) as stream:
        assert "one two" == "".join(chunk.choices[0].text for chunk in stream)


def test_embeddings_are_vectors_of_the_wanted_length(client: OpenAI) -> None:
    # Without `encoding_format` the SDK asks for base64 and decodes it by itself.
    answer = client.embeddings.create(model="fast", input=["one", "two"], dimensions=8)
    assert [8, 8] == [len(item.embedding) for item in answer.data]
    again = client.embeddings.create(model="fast", input="one", dimensions=8, encoding_format="float")
    assert answer.data[0].embedding == pytest.approx(again.data[0].embedding, abs=1e-6)


def test_responses_whole_and_streamed(client: OpenAI) -> None:
    answer = client.responses.create(model="fast", input="Say it again")
    assert ("Say it again", "fast", "completed") == (answer.output_text, answer.model, answer.status)
    with client.responses.stream(model="fast", input="Say it again") as stream:
        final = stream.get_final_response()
    assert ("Say it again", "fast") == (final.output_text, final.model)
    assert final.usage is not None
    assert 3 == final.usage.output_tokens


def test_models_are_listed_and_found(client: OpenAI) -> None:
    assert ["fast", "echo-small"] == [model.id for model in client.models.list()]
    assert "echo" == client.models.retrieve("echo-small").owned_by
    # By prefix, with the slash escaped as the SDK does.
    assert "echo/anything" == client.models.retrieve("echo/anything").id


def test_a_routes_overrides_change_the_request(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="careful", messages=HELLO, max_tokens=400, logit_bias={"5": 1})
    assert "Hello, Sluice!" == answer.choices[0].message.content
    assert "length" == answer.choices[0].finish_reason


def test_what_the_sdk_does_not_know_survives(client: OpenAI) -> None:
    # Unknown members go through, and so does an unknown query parameter.
    answer = client.chat.completions.create(
        model="fast", messages=HELLO, extra_body={"x_new_member": {"deep": [1, 2.50, None]}}, extra_query={"beta": "1"}
    )
    assert "Hello, Sluice! How are you?" == answer.choices[0].message.content


def test_the_management_prefix_serves_the_same_chat(gateway: Gateway) -> None:
    with OpenAI(base_url=f"{gateway.url}/api/v1", api_key=TOKEN, max_retries=0) as sdk:
        answer = sdk.chat.completions.create(model="fast", messages=HELLO)
    assert "Hello, Sluice! How are you?" == answer.choices[0].message.content


@pytest.mark.parametrize("field", ["x-api-key", "x-goog-api-key"])
def test_the_fields_of_other_sdks_carry_the_token_too(gateway: Gateway, field: str) -> None:
    body = {"model": "fast", "messages": cast(Any, HELLO)}
    answer = gateway.request("POST", "/v1/chat/completions", body, {field: TOKEN}, key=None)
    assert 200 == answer.status
