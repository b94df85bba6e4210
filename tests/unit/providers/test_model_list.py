"""Lists of models: lenient about entries, strict about what is no list."""

import pytest

from core.errors import UpstreamMalformed
from proxy.providers.base import ListedModel
from proxy.providers.model_list import MAX_ID, read_models

OPENAI = b'{"object":"list","data":[{"id":"gpt-4o","object":"model","created":1715367049,"owned_by":"system"}]}'
OLLAMA = b'{"models":[{"name":"llama3.2:latest","model":"llama3.2:latest","size":2019393189}]}'
TOGETHER = b'[{"id":"meta/llama","type":"chat","created":1692896905,"organization":"Meta"}]'
ANTHROPIC = b'{"data":[{"type":"model","id":"claude-x","display_name":"X","created_at":"2025-02-19T00:00:00Z"}]}'

NAMES: dict[bytes, list[str]] = {
    OPENAI: ["gpt-4o"],
    OLLAMA: ["llama3.2:latest"],
    TOGETHER: ["meta/llama"],
    ANTHROPIC: ["claude-x"],
    b"\xef\xbb\xbf" + OPENAI: ["gpt-4o"],
    b"\r\n " + OPENAI + b"\n": ["gpt-4o"],
    b"[]": [],
    b'{"data":[]}': [],
    b'{"models":[]}': [],
    b'{"data":null,"models":["a"]}': ["a"],
    b'{"data":["a"],"models":["b"]}': ["a"],
    b'["a","b","a"]': ["a", "b"],
    b'{"data":[{"id":"a","created":1},{"id":"b"},{"id":"a","created":2}]}': ["a", "b"],
    b'[{"id":"a"},{"id":""},{"id":7},{"name":"b"},null,3,["c"],{},"d"]': ["a", "b", "d"],
    b'["a\\u0000","b\\n","caf\\u00e9"]': ["caf\u00e9"],
    b'[{"id":null,"name":"a"}]': ["a"],
    b'[{"id":"a","created":1e999,"n":1e999},1e999]': ["a"],
    b'["%s","%s"]' % (b"x" * MAX_ID, b"y" * (MAX_ID + 1)): ["x" * MAX_ID],
}


@pytest.mark.parametrize("body", NAMES, ids=lambda body: repr(body[:60]))
def test_every_entry_that_names_a_model_counts_once(body: bytes) -> None:
    assert NAMES[body] == [model.id for model in read_models(body).models]


NO_LISTS: dict[bytes, str] = {
    b"": "is not JSON",
    b"<html>": "is not JSON",
    b'"gpt-4o"': "is not JSON",
    b"null": "is not JSON",
    b"[": "is not JSON",
    b"[" * 100_000: "is not JSON",
    OPENAI[:-1]: "is not JSON",
    OPENAI + b"x": "is not JSON",
    b'["\xff"]': "is not JSON",
    b'{"data":[{"id":"a","note":"\xff"}]}': "is not JSON",
    b"{}": "has neither `data` nor `models`",
    b'{"data":{"id":"a"}}': "has neither `data` nor `models`",
    b'{"error":{"message":"no"}}': "has neither `data` nor `models`",
    b"[1,2]": "names no model",
    b'{"data":[{"object":"model"}]}': "names no model",
}


@pytest.mark.parametrize("body", NO_LISTS, ids=lambda body: repr(body[:40]))
def test_what_is_no_list_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(UpstreamMalformed) as refused:
        read_models(body)
    assert f"The provider's list of models {NO_LISTS[body]}: check `base_url`." == refused.value.message


TIMES: dict[bytes, float | None] = {
    b"1715367049": 1715367049,
    b"1715367049.5": 1715367049.5,
    b"1715367049000": 1715367049,
    b"1715367049000000": 1715367049,
    b'"1715367049"': 1715367049,
    b'"2024-05-10T18:50:49Z"': 1715367049,
    b'"2024-05-10T18:50:49"': 1715367049,
    b'"2024-05-10T20:50:49+02:00"': 1715367049,
    b"0": None,
    b"-1": None,
    b"null": None,
    b"true": None,
    b'"soon"': None,
    b'"nan"': None,
    b'"infinity"': None,
    b"1e300": None,
    b"[1715367049]": None,
}


@pytest.mark.parametrize("member", ["created", "created_at"])
@pytest.mark.parametrize("value", TIMES, ids=bytes.decode)
def test_a_time_is_read_in_whatever_unit_it_is(member: str, value: bytes) -> None:
    body = b'[{"id":"a","%s":%s}]' % (member.encode(), value)
    assert TIMES[value] == read_models(body).models[0].created


def test_what_an_entry_says_is_kept_as_it_was_written() -> None:
    entry = b'{ "id" : "a" , "owned_by" : "b" , "created" : 5 , "x" : [ 1.50, "\\u00e9" ] }'
    assert (ListedModel("a", "b", 5.0, entry), ListedModel("c")) == read_models(b'[%s,"c"]' % entry).models


QUERIES: dict[bytes, str | None] = {
    OPENAI: None,
    b'{"data":["a"],"has_more":false,"last_id":"a"}': None,
    b'{"data":["a"],"has_more":true}': None,
    b'{"data":["a"],"has_more":true,"last_id":null}': None,
    b'{"data":[],"has_more":true,"last_id":"a"}': None,
    b'{"data":["a"],"has_more":true,"last_id":"a&b"}': "after=a%26b",
    b'{"data":[{"type":"model","id":"a"}],"has_more":true,"last_id":"a"}': "after_id=a",
    b'{"models":[{"name":"models/a"}],"nextPageToken":"t/1"}': "pageToken=t%2F1",
    b'{"models":[{"name":"a"}],"next_page_token":"t"}': "page_token=t",
    b'{"models":[{"name":"a"}],"next_page_token":""}': None,
    b'{"models":[{"name":"a"}],"next_page_token":7}': None,
    b'{"models":[{"name":"a"}],"next_page_token":"\\r\\n"}': None,
}


@pytest.mark.parametrize("body", QUERIES, ids=lambda body: repr(body[:60]))
def test_the_next_page_is_asked_for_as_this_one_wants(body: bytes) -> None:
    assert QUERIES[body] == read_models(body).next_query
