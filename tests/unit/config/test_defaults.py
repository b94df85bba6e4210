import msgspec
from hypothesis import given
from hypothesis import strategies as st

from config.defaults import with_defaults
from config.document import Value
from config.schema import Config
from core.secret import Secret

DOCUMENT: dict[str, Value] = {
    "server": {"workers": 2},
    "providers": [{"name": "a", "type": "echo", "credentials": [{"name": "main", "api_key": "${env:KEY}"}]}],
    "routes": [
        {"name": "r", "targets": ["a/b", {"to": "a/c"}], "fallbacks": {"error": [["a/d"]]}, "timeouts": {}},
    ],
}


def test_every_default_of_the_schema_is_written_out() -> None:
    filled = with_defaults(DOCUMENT)
    frozen = msgspec.convert(DOCUMENT, Config, dec_hook=lambda _, label: Secret(str, label))
    # Tuples are lists of JSON.
    assert msgspec.json.decode(msgspec.json.encode(frozen, enc_hook=lambda secret: secret.label)) == filled


def test_what_a_provider_says_is_no_default_of_a_route() -> None:
    filled = with_defaults(DOCUMENT)
    assert isinstance(filled, dict)
    assert {} == filled["routes"][0]["timeouts"]  # type: ignore[index,call-overload]  # a value of JSON


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(["server", "tls", "routes", "match", "x"]), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_a_document_that_is_wrong_stays_so(value: Value) -> None:
    filled = with_defaults(value)
    if not isinstance(value, dict):
        assert value == filled
        return
    assert isinstance(filled, dict)
    assert set(value) <= set(filled)
    for key, inner in value.items():
        if not isinstance(inner, dict | list):
            assert inner == filled[key]
