import pytest

from core.secret import Secret
from credentials.errors import CredentialUnavailable, LoginFailed
from credentials.oauth.server import Pending
from tests.unit.credentials.oauth.scripted_server import TOKENS, ScriptedServer
from transport.script import Refuse

DEVICE = "https://login.example.com/device"
SHOWN = {
    "device_code": "secret-of-the-device",
    "user_code": "WDJB-MJHT",
    "verification_uri": "https://login.example.com/enter",
    "verification_uri_complete": "https://login.example.com/enter?user_code=WDJB-MJHT",
    "expires_in": 900,
    "interval": 7,
}


async def test_what_a_device_shows_is_read() -> None:
    server = ScriptedServer()
    server.answers_json(DEVICE, SHOWN)
    shown = await server.known_as(
        device_authorization_endpoint=DEVICE, scopes=("a", "b"), audience="models"
    ).begin_device()
    assert ("secret-of-the-device", "WDJB-MJHT", 900, 7) == (
        shown.device_code.reveal(),
        shown.user_code,
        shown.expires_in_seconds,
        shown.interval_seconds,
    )
    assert SHOWN["verification_uri_complete"] == shown.verification_uri_complete
    assert {"client_id": "sluice", "scope": "a b", "audience": "models"} == server.asked[0].form


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"interval": None, "expires_in": None}, (600, 5)),
        ({"interval": "9", "expires_in": "60"}, (60, 9)),
        ({"interval": 0, "expires_in": 1e9}, (3600, 1)),
        ({"interval": "soon", "expires_in": "nan"}, (600, 5)),
    ],
)
async def test_its_times_are_bounded(given: dict[str, object], found: tuple[int, int]) -> None:
    server = ScriptedServer()
    server.answers_json(DEVICE, SHOWN | given)
    shown = await server.known_as(device_authorization_endpoint=DEVICE).begin_device()
    assert found == (shown.expires_in_seconds, shown.interval_seconds)


@pytest.mark.parametrize(
    "given",
    [
        {"device_code": None},
        {"user_code": 17},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "http://login.example.com/"},
        {"verification_uri": "https://login.example.com/\x1b[2J"},
        {"verification_uri": None},
    ],
)
async def test_what_could_not_be_shown_is_refused(given: dict[str, object]) -> None:
    server = ScriptedServer()
    server.answers_json(DEVICE, SHOWN | given)
    with pytest.raises(LoginFailed, match=r"without a code and an https address.*see that it is the right address"):
        await server.known_as(device_authorization_endpoint=DEVICE).begin_device()


async def test_google_names_the_address_otherwise() -> None:
    server = ScriptedServer()
    document = SHOWN | {"verification_uri": None, "verification_url": "https://www.example.com/device"}
    server.answers_json(DEVICE, document | {"verification_uri_complete": "ftp://a"})
    shown = await server.known_as(device_authorization_endpoint=DEVICE).begin_device()
    assert ("https://www.example.com/device", None) == (shown.verification_uri, shown.verification_uri_complete)


async def test_a_server_without_the_flow_says_so() -> None:
    with pytest.raises(LoginFailed, match="no flow for devices: take `code`, or write `device_authorization_endpoint`"):
        await ScriptedServer().known_as().begin_device()
    assert () == ScriptedServer().known_as().flows
    assert ("device",) == ScriptedServer().known_as(device_authorization_endpoint=DEVICE).flows


async def test_a_refused_beginning_names_the_mend() -> None:
    server = ScriptedServer()
    server.answers_json(DEVICE, {"error": "unauthorized_client"}, 400)
    with pytest.raises(LoginFailed, match=r"`unauthorized_client`.*allow the client there"):
        await server.known_as(device_authorization_endpoint=DEVICE).begin_device()


async def test_a_server_that_cannot_be_reached_or_is_busy_is_no_reason_to_give_up() -> None:
    server = ScriptedServer()
    server.answers(TOKENS, Refuse())
    with pytest.raises(CredentialUnavailable):
        await server.known_as().poll_device(Secret.literal("code"))
    server.answers_json(TOKENS, {"error": "server_error"}, 503, {"retry-after": "17"})
    with pytest.raises(CredentialUnavailable) as raised:
        await server.known_as().poll_device(Secret.literal("code"))
    assert 17.0 == raised.value.retry_after_seconds


@pytest.mark.parametrize("status", [200, 400, 429])
async def test_who_asks_too_often_is_told_to_slow_down_by_whatever_status(status: int) -> None:
    server = ScriptedServer()
    server.answers_json(TOKENS, {"error": "slow_down"}, status)
    assert Pending(slow_down=True) == await server.known_as().poll_device(Secret.literal("code"))


async def test_a_refused_client_ends_the_sign_in() -> None:
    server = ScriptedServer()
    server.answers_json(TOKENS, {"error": "invalid_client"}, 401)
    with pytest.raises(LoginFailed, match=r"`invalid_client`.*Then begin the sign-in anew"):
        await server.known_as().poll_device(Secret.literal("code"))
