"""Where a token stands on a request."""

import pytest

from config.schema import Provider, TokenPlacement
from core.headers import Headers
from core.secret import Secret
from credentials.members import Member
from proxy.headers import sent_secret
from proxy.placement import prepared
from proxy.providers import build_adapter
from proxy.providers.base import Call
from tests.planted import planted
from transport.messages import Clocks

TOKEN = planted("token")
CALL = Call(
    "GET", "/models", "", Headers([("x-mode", "client"), ("x-else", "client")]), None, None, None, Clocks(1, 1, 1)
)
BEARER = ("authorization", f"Bearer {TOKEN}")
CLIENT = [("x-mode", "client"), ("x-else", "client")]


@pytest.mark.parametrize(
    ("placement", "own", "fields", "secret"),
    [
        (None, {}, [*CLIENT, BEARER], TOKEN),
        (TokenPlacement(), {}, [*CLIENT, BEARER], TOKEN),
        (TokenPlacement(header="X-Key", scheme=None), {}, [*CLIENT, ("x-key", TOKEN)], TOKEN),
        (TokenPlacement(scheme="Token"), {}, [*CLIENT, ("authorization", f"Token {TOKEN}")], TOKEN),
        # What goes with the token is ours to say, not the client's.
        (TokenPlacement(headers={"X-Mode": "oauth"}), {}, [("x-else", "client"), ("x-mode", "oauth"), BEARER], TOKEN),
        # The entry's own fields win over all others.
        (TokenPlacement(), {"authorization": "Basic eA=="}, [*CLIENT, ("authorization", "Basic eA==")], None),
        (
            TokenPlacement(headers={"X-Mode": "oauth"}),
            {"x-mode": "entry"},
            [("x-else", "client"), ("x-mode", "entry"), BEARER],
            TOKEN,
        ),
    ],
)
def test_a_token_stands_where_it_belongs(
    placement: TokenPlacement | None, own: dict[str, str], fields: list[tuple[str, str]], secret: str | None
) -> None:
    entry = Provider(name="up", type="openai-compatible", base_url="http://up.test/v1", headers=own)
    member = Member(name="work", secret=Secret.literal(TOKEN), placement=placement)
    request = prepared(build_adapter(entry), CALL, member)
    assert fields == list(request.headers)
    assert secret == sent_secret(request.headers, placement)
