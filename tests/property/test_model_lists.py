"""Whatever a provider answers, its list of models is read, or refused by the one error there is for that."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from core.errors import UpstreamMalformed
from proxy.providers.model_list import MAX_ID, read_models

_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300)
_JSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=8
)
_MEMBERS = st.sampled_from(["id", "name", "model", "owned_by", "organization", "created", "created_at", "type", "x"])
_ENTRIES = st.lists(_JSON | st.dictionaries(_MEMBERS, _JSON, max_size=5), max_size=6)
_OUTER = st.sampled_from(["data", "models", "object", "has_more", "last_id", "nextPageToken", "next_page_token"])
_LISTS = _ENTRIES | st.dictionaries(_OUTER, _JSON | _ENTRIES, max_size=5)


def _read(body: bytes) -> None:
    try:
        page = read_models(body)
    except UpstreamMalformed:
        return
    names = [model.id for model in page.models]
    assert len(set(names)) == len(names)
    for model in page.models:
        assert 0 < len(model.id) <= MAX_ID
        assert model.id.encode().decode().isprintable()
        assert model.created is None or 0 < model.created < 253402300800
        # What is kept of it gives the same again.
        if model.raw:
            assert (model,) == read_models(b"[%s]" % model.raw).models
    assert page.next_query is None or page.next_query.isascii()


@given(_LISTS, st.booleans())
def test_any_json_is_read_or_refused(value: Any, ascii_alone: bool) -> None:
    _read(json.dumps(value, ensure_ascii=ascii_alone).encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:0truefalsn \\u', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    _read(body)
