import pytest

from access.permissions import require_grant, require_model
from core.errors import EndpointNotAllowed, ModelNotAllowed, PermissionDenied
from core.identity import ApiToken, Grant, Scope

TOKEN = ApiToken("team", grants=frozenset({Grant.INFERENCE}), allows_model=lambda model: model.startswith("gpt-"))


def test_a_model_that_the_globs_name_is_allowed() -> None:
    require_model(TOKEN, "gpt-4o")


def test_another_model_answers_403_with_a_code_of_its_own() -> None:
    with pytest.raises(ModelNotAllowed) as raised:
        require_model(TOKEN, "claude-sonnet")
    assert isinstance(raised.value, PermissionDenied)
    assert (403, "model_not_allowed") == (raised.value.client_status, raised.value.client_code)
    assert "model" == raised.value.param
    assert "`claude-sonnet`" in raised.value.message
    assert "add it to the token's `models`" in raised.value.message


def test_a_long_model_name_is_not_repeated_whole() -> None:
    with pytest.raises(ModelNotAllowed) as raised:
        require_model(TOKEN, "m" * 10_000)
    assert len(raised.value.message) < 300


def test_a_token_may_use_what_it_was_granted() -> None:
    require_grant(TOKEN, Grant.INFERENCE)


@pytest.mark.parametrize("grant", [Grant.FILES, Grant.BATCHES, Grant.RESPONSES])
def test_what_callers_share_needs_a_grant_of_its_own(grant: Grant) -> None:
    with pytest.raises(EndpointNotAllowed) as raised:
        require_grant(TOKEN, grant)
    assert (403, "endpoint_not_allowed") == (raised.value.client_status, raised.value.client_code)
    assert "shares between callers" in raised.value.message
    assert f"add `{grant}`" in raised.value.message


def test_inference_can_be_withheld() -> None:
    with pytest.raises(EndpointNotAllowed, match="use inference endpoints"):
        require_grant(ApiToken("files", grants=frozenset({Grant.FILES})), Grant.INFERENCE)


def test_a_metrics_token_is_told_what_it_is_for() -> None:
    with pytest.raises(EndpointNotAllowed, match="opens /metrics alone"):
        require_grant(ApiToken("scraper", Scope.METRICS, frozenset()), Grant.INFERENCE)
