"""The table of endpoints, and which paths it takes."""

import pytest

from core.errors import MethodNotAllowed, UnknownPath
from core.identity import Grant
from proxy.dialects import DIALECTS
from proxy.endpoints import ENDPOINTS, PATH_ALIASES, ModelRule, Service, canonical_path, find, require


def test_every_row_names_a_dialect_and_its_own_path() -> None:
    assert {row.dialect for row in ENDPOINTS} <= set(DIALECTS)
    assert len(ENDPOINTS) == len({row.path for row in ENDPOINTS})
    assert {"/v1/chat/completions"} == set(PATH_ALIASES.values())


def test_what_shares_the_account_needs_a_grant_of_its_own() -> None:
    shared = {row.name: row.grant for row in ENDPOINTS if row.grant is not Grant.INFERENCE}
    assert {"stored_responses": Grant.RESPONSES, "files": Grant.FILES, "batches": Grant.BATCHES} == shared


def test_only_inference_is_read_in_passing() -> None:
    read = {row.name for row in ENDPOINTS if row.reads_answer}
    assert {"chat_completions", "completions", "embeddings", "responses"} == read
    assert all(row.model is ModelRule.REQUIRED for row in ENDPOINTS if row.reads_answer)


FOUND = {
    "/v1/chat/completions": "chat_completions",
    "/api/v1/chat/completions": "chat_completions",
    "/v1/responses/resp_1": "stored_responses",
    "/v1/responses/resp_1/cancel": "stored_responses",
    "/v1/responses/resp_1/input_items": "stored_responses",
    "/v1/responses/compact": "responses",
    "/v1/responses/input_tokens": "response_input_tokens",
    "/v1/images/generations": "images",
    "/v1/audio/speech": "audio",
    "/v1/files/file-1/content": "files",
    "/v1/batches/b.1/cancel": "batches",
    "/v1/models": "models",
    "/v1/models/org/name": "models",
    "/v1/files/a..b": "files",
    "/v1/files/.a": "files",
}
NOT_FOUND = [
    "",
    "/",
    "/v1",
    "/v1/",
    "/v1/chat/completions/",
    "//v1/chat/completions",
    "/v1/chat/completions\n",
    "/V1/chat/completions",
    "/v1/files/",
    "/v1/files/.",
    "/v1/files/..",
    "/v1/files/...",
    "/v1/files/../content",
    "/v1/files/a/b",
    "/v1/files/a%2e",
    "/v1/files/a;b",
    "/v1/files/a?b",
    "/v1/files/a\n",
    "/v1/files/ä",
    "/v1/files/a/content/x",
    "/v1/models/",
    "/v1/images/a/b",
    "/api/v1/embeddings",
]


@pytest.mark.parametrize("path", FOUND)
def test_a_path_is_served_by_its_row(path: str) -> None:
    row = find(canonical_path(path))
    assert row is not None
    assert FOUND[path] == row.name


@pytest.mark.parametrize("path", NOT_FOUND)
def test_other_paths_are_not_served(path: str) -> None:
    assert find(canonical_path(path)) is None
    with pytest.raises(UnknownPath):
        require(path, "GET")


def test_another_method_is_told_which_are_allowed() -> None:
    with pytest.raises(MethodNotAllowed, match="takes GET or POST, not DELETE") as refused:
        require("/v1/files", "DELETE")
    assert ("GET", "POST") == refused.value.allowed
    assert Service.LIST_MODELS is require("/v1/models", "GET").service
