"""Vendors that speak OpenAI's HTTP API, one row each, and the one adapter for them.

https://platform.openai.com/docs/api-reference/introduction
"""

from typing import Annotated
from urllib.parse import SplitResult

import msgspec
from msgspec import Meta

from config.faults import ConfigFaults, Fault
from config.schema import Provider
from core.errors import UpstreamAnswered
from core.headers import Headers
from core.secret import Secret
from proxy.providers.base import Call, ModelPage, Trial
from proxy.providers.classify import classify
from proxy.providers.entry import read_base_url, read_headers, read_options
from proxy.providers.model_list import read_models
from transport.messages import UpstreamRequest

_FieldText = Annotated[str, Meta(pattern=r"^[!-~]+\Z")]


class VendorOptions(msgspec.Struct, frozen=True):
    """Settings of a vendor; none unless its own class adds some."""

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The fields that the settings add to each request."""
        return ()


class OpenAIOptions(VendorOptions, frozen=True):
    """Settings of `openai`: whose account a key's requests are counted on."""

    organization: _FieldText | None = None
    """Sent as `OpenAI-Organization`, for keys that belong to several."""
    project: _FieldText | None = None
    """Sent as `OpenAI-Project`."""

    def headers(self) -> tuple[tuple[str, str], ...]:
        given = (("openai-organization", self.organization), ("openai-project", self.project))
        return tuple((name, value) for name, value in given if value is not None)


class Vendor(msgspec.Struct, frozen=True):
    """What tells one vendor from the next."""

    base_url: str | None
    """None: every entry must give its own."""
    options: type[VendorOptions] = VendorOptions
    output_limit: str = "max_tokens"
    """The member of a chat request that bounds its answer."""


VENDORS: dict[str, Vendor] = {
    "openai": Vendor("https://api.openai.com/v1", OpenAIOptions, "max_completion_tokens"),
    "openai-compatible": Vendor(None),
}


class OpenAICompatible:
    """:class:`proxy.providers.base.ProviderAdapter` for the types of ``VENDORS``."""

    account_headers = frozenset({"openai-organization", "openai-project"})
    models_path = "/models"

    def __init__(self, provider: Provider) -> None:
        """
        Raises:
            config.faults.ConfigFaults: what is wrong with the entry, with paths relative to it.
        """
        vendor = VENDORS[provider.type]
        faults: list[Fault] = []
        base_url = provider.base_url or vendor.base_url
        if base_url is None:
            faults.append(
                Fault(("base_url",), f"the type `{provider.type}` needs one: add `base_url: http://host:port/v1`")
            )
        base: SplitResult = read_base_url(base_url or "http://unset", faults)
        self._base = f"{base.scheme}://{base.netloc}{base.path}"
        self._query = base.query
        options = read_options(provider.options, vendor.options, faults)
        extra = dict(options.headers()) | dict(read_headers(provider.headers, faults))
        if faults:
            raise ConfigFaults(faults)
        self._output_limit = vendor.output_limit
        self._extra = tuple(extra.items())
        self._dropped = frozenset(extra) | {"authorization"} | self.account_headers
        self._authenticates = "authorization" not in extra

    def url(self, path: str, query: str = "") -> str:
        """``base_url``'s path with ``path`` after it; its query, if it has one, before ``query``."""
        queries = f"{self._query}&{query}" if self._query and query else self._query or query
        return f"{self._base}{path}?{queries}" if queries else f"{self._base}{path}"

    def prepare(self, call: Call, api_key: Secret | None) -> UpstreamRequest:
        """Bearer authentication, then the entry's own ``headers``, which win over all others."""
        fields = [(name, value) for name, value in call.headers if name not in self._dropped]
        if api_key is not None and self._authenticates:
            fields.append(("authorization", f"Bearer {api_key.reveal()}"))
        fields.extend(self._extra)
        return UpstreamRequest(
            call.method,
            self.url(call.path, call.query),
            Headers(fields),
            call.body,
            call.body_length,
            call.clocks,
            call.options,
        )

    def classify(self, status: int, headers: Headers, body: bytes) -> UpstreamAnswered:
        """See :func:`proxy.providers.classify.classify`."""
        return classify(status, headers, body)

    def read_models(self, body: bytes) -> ModelPage:
        """See :func:`proxy.providers.model_list.read_models`."""
        return read_models(body)

    def trial(self, model: str) -> Trial:
        """A chat of one word. Some models refuse limits below 16 tokens."""
        message = {"role": "user", "content": "ping"}
        body = {"model": model, "messages": [message], self._output_limit: 16}
        return Trial("/chat/completions", msgspec.json.encode(body))
