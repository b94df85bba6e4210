"""The official Python SDK → the gateway → a server nobody here wrote (npm `@copilotkit/aimock`), by alias and by route.

One gateway and one aimock serve the whole module; each test is one thing that an application does.
"""

import json
from collections.abc import AsyncIterator, Iterator

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.conftest import StartAimock
from tests.gateway_process import TOKEN, Gateway
from tests.integration.conftest import StartGateway
from tests.planted import planted

SPEECH = "The quick brown fox jumps over the lazy dog, and the dog does not mind at all."
WEATHER = {"city": "Bern", "unit": "celsius"}
VECTOR = [0.25, -0.5, 0.75]

FIXTURES = [
    {"match": {"userMessage": "speak", "model": "gpt-4o-mini"}, "response": {"content": SPEECH}},
    {"match": {"userMessage": "who are you", "model": "gpt-4o"}, "response": {"content": "The large one."}},
    {
        "match": {"userMessage": "weather", "hasToolResult": False},
        "response": {"toolCalls": [{"id": "call_1", "name": "get_weather", "arguments": WEATHER}]},
    },
    {"match": {"userMessage": "weather", "hasToolResult": True}, "response": {"content": "It rains in Bern."}},
    {"match": {"inputText": "embed me"}, "response": {"embedding": VECTOR}},
    {
        "match": {"userMessage": "too fast"},
        "response": {
            "error": {"message": "Slow down.", "type": "rate_limit_error", "code": "rate_limit_exceeded"},
            "status": 429,
        },
    },
    {
        "match": {"userMessage": "nonsense"},
        "response": {
            "error": {"message": "No sense.", "type": "invalid_request_error", "code": "nonsense"},
            "status": 400,
        },
    },
]

USER_SPEAKS: list[ChatCompletionMessageParam] = [{"role": "user", "content": "speak"}]
ASKS_FOR_WEATHER: list[ChatCompletionMessageParam] = [{"role": "user", "content": "weather in Bern?"}]
TOOLS: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "unit": {"type": "string"}}},
        },
    }
]


@pytest.fixture(scope="module")
def gateway(
    start_aimock: StartAimock, start_shared_gateway: StartGateway, tmp_path_factory: pytest.TempPathFactory
) -> Gateway:
    fixtures = tmp_path_factory.mktemp("fixtures") / "fixtures.json"
    fixtures.write_text(json.dumps({"fixtures": FIXTURES}))
    server = start_aimock(fixtures, chunk_chars=5)
    return start_shared_gateway(f"""
        providers:
          - name: mock
            type: openai-compatible
            base_url: {server.url}/v1
            credentials: [{{name: main, api_key: {planted("provider-key")}}}]
            models: ["gpt-4o*", "text-embedding-*"]
        model_aliases:
          - {{from: fast, to: mock/gpt-4o-mini}}
          - {{from: embedder, to: mock/text-embedding-3-small}}
        routes:
          - name: gold
            match: {{requested_model: smart}}
            targets: [mock/gpt-4o]
            retry: {{attempts: 1}}
          - name: single
            match: {{requested_model: fragile}}
            targets: [mock/gpt-4o-mini]
            retry: {{attempts: 1}}
    """)


@pytest.fixture
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.base_url, api_key=TOKEN, max_retries=0) as sdk:
        yield sdk


@pytest.fixture
async def async_client(gateway: Gateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=gateway.base_url, api_key=TOKEN, max_retries=0) as sdk:
        yield sdk


def test_a_chat_completion_by_an_alias_is_the_providers_under_the_name_that_was_asked_for(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="fast", messages=USER_SPEAKS)
    assert SPEECH == answer.choices[0].message.content
    assert "fast" == answer.model
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_routed_name_goes_to_the_routes_target(client: OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="smart", messages=[{"role": "user", "content": "who are you?"}]
    )
    assert "mock/gpt-4o" == answer.headers["x-sluice-target"]
    assert "1" == answer.headers["x-sluice-attempts"]
    parsed = answer.parse()
    assert "The large one." == parsed.choices[0].message.content
    assert "smart" == parsed.model


@pytest.mark.parametrize("model", ["fast", "gpt-4o-mini", "mock/gpt-4o-mini"])
def test_a_stream_comes_in_pieces_and_ends_with_its_usage(client: OpenAI, model: str) -> None:
    with client.chat.completions.create(
        model=model, messages=USER_SPEAKS, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert SPEECH == "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert 10 < len(chunks)
    assert {model} == {chunk.model for chunk in chunks}
    assert "stop" == [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1]
    last = chunks[-1]
    assert [] == last.choices
    assert last.usage is not None
    assert 0 < last.usage.completion_tokens


async def test_the_async_client_streams(async_client: AsyncOpenAI) -> None:
    stream = await async_client.chat.completions.create(model="fast", messages=USER_SPEAKS, stream=True)
    async with stream:
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert SPEECH == "".join(pieces)


async def test_the_async_client_gets_a_whole_answer(async_client: AsyncOpenAI) -> None:
    answer = await async_client.chat.completions.create(model="fast", messages=USER_SPEAKS)
    assert SPEECH == answer.choices[0].message.content


def test_a_tool_is_called_and_its_result_answered(client: OpenAI) -> None:
    first = client.chat.completions.create(model="fast", messages=ASKS_FOR_WEATHER, tools=TOOLS).choices[0]
    assert "tool_calls" == first.finish_reason
    assert first.message.tool_calls is not None
    call = first.message.tool_calls[0]
    assert "function" == call.type
    assert ("get_weather", WEATHER) == (call.function.name, json.loads(call.function.arguments))
    messages: list[ChatCompletionMessageParam] = [
        *ASKS_FOR_WEATHER,
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "content": "rain"},
    ]
    second = client.chat.completions.create(model="fast", messages=messages, tools=TOOLS).choices[0]
    assert "It rains in Bern." == second.message.content


def test_a_tool_calls_arguments_stream(client: OpenAI) -> None:
    with client.chat.completions.stream(model="fast", messages=ASKS_FOR_WEATHER, tools=TOOLS) as stream:
        deltas = [event.arguments_delta for event in stream if event.type == "tool_calls.function.arguments.delta"]
        message = stream.get_final_completion().choices[0].message
    assert WEATHER == json.loads("".join(deltas))
    assert 1 < len(deltas)
    assert message.tool_calls is not None
    assert "get_weather" == message.tool_calls[0].function.name


def test_embeddings_by_alias(client: OpenAI) -> None:
    answer = client.embeddings.create(model="embedder", input="please embed me", encoding_format="float")
    assert VECTOR == answer.data[0].embedding
    assert "embedder" == answer.model


def test_responses_are_passed_through(client: OpenAI) -> None:
    answer = client.responses.create(model="fast", input="speak")
    assert SPEECH == answer.output_text
    assert "fast" == answer.model


def test_a_streamed_response_has_its_events_and_the_asked_name(client: OpenAI) -> None:
    text, names, completed = "", set(), None
    with client.responses.create(model="fast", input="speak", stream=True) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                text += event.delta
            if event.type in ("response.created", "response.completed"):
                names.add(event.response.model)
            if event.type == "response.completed":
                completed = event.response
    assert SPEECH == text
    assert {"fast"} == names
    assert completed is not None
    assert SPEECH == completed.output_text


def test_the_models_that_can_be_asked_for_by_name_are_listed(client: OpenAI) -> None:
    assert ["fast", "embedder"] == [model.id for model in client.models.list()]
    assert "mock" == client.models.retrieve("fast").owned_by
    # A name that a glob of the provider serves is found too, though it cannot be listed.
    assert "mock" == client.models.retrieve("gpt-4o-2024-08-06").owned_by


def test_the_providers_own_refusal_reaches_the_caller(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="No sense") as caught:
        client.chat.completions.create(model="fragile", messages=[{"role": "user", "content": "nonsense"}])
    assert "nonsense" == caught.value.code


def test_the_providers_rate_limit_reaches_the_caller(client: OpenAI) -> None:
    with pytest.raises(openai.RateLimitError, match="Slow down") as caught:
        client.chat.completions.create(model="fragile", messages=[{"role": "user", "content": "too fast"}])
    assert "rate_limit_exceeded" == caught.value.code
