"""Seals what is secret of accounts and sign-ins, with the master key and in the format of `${sealed:…}`.

Each part is sealed for a purpose of its own: what is moved to another account, or to another place, does not open there.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from config.sealing import KeyRing, SealedFault, UnknownKey, WrongKey
from core.secret import Secret
from credentials.errors import RecordDamaged, RecordElsewhere, RecordLocked, RecordUnknown
from credentials.records import AccountRecord, AccountSettings, purpose
from credentials.tokens import TokenSet

LOGIN = "credential login"
"""Purpose of what the exchange of a sign-in needs; followed by its key (:func:`login_purpose`)."""
EXPORT_FORMAT = 1

_EXPORT = "credential export"
_SIGN_IN_AGAIN = "sign in again"


def login_purpose(key: str) -> str:
    """Of what is sealed in the sign-in ``key``."""
    return f"{LOGIN}\0{key}"


class _Tokens(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A :class:`TokenSet` as it is sealed."""

    access_token: str
    issued_at: float
    expires_at: float | None = None
    refresh_token: str | None = None
    scopes: tuple[str, ...] = ()
    account: str | None = None

    def __repr__(self) -> str:
        return type(self).__name__


class _Exported(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is secret of an account that was exported."""

    tokens: _Tokens | None = None
    proxy_url: str | None = None
    goes_to: str = ""
    """Where the tokens are sent: what stands beside the sealed part could be edited, and a provider of another address put
    there."""

    def __repr__(self) -> str:
        return type(self).__name__


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An account that was exported."""

    sluice_credential: int
    provider: str
    name: str
    oauth: str
    settings: AccountSettings = AccountSettings()
    sealed: str


class RecordSealer:
    """Seals and opens. No rendering of what it gives shows a secret."""

    def __init__(self, keys: Callable[[], Awaitable[KeyRing]]) -> None:
        """``keys`` gives the master keys as they are now; what it raises is passed on."""
        self._keys = keys

    async def seal_tokens(self, provider: str, name: str, tokens: TokenSet) -> str:
        """For ``sealed_tokens`` of the account."""
        return await self._seal(msgspec.json.encode(_plain(tokens)), purpose(provider, name, "tokens"))

    async def open_tokens(self, record: AccountRecord) -> TokenSet | None:
        """None: it has not signed in.

        Raises:
            RecordDamaged: they do not open.
        """
        if record.sealed_tokens is None:
            return None
        return _tokens(await self._opened_tokens(record), _shown(record))

    async def seal_proxy_url(self, provider: str, name: str, url: str) -> str:
        """For ``sealed_proxy_url`` of the account."""
        return await self._seal(url.encode(), purpose(provider, name, "proxy_url"))

    async def open_proxy_url(self, record: AccountRecord) -> Secret | None:
        """None: it has none of its own.

        Raises:
            RecordDamaged: it does not open.
        """
        if record.sealed_proxy_url is None:
            return None
        text = (await self._opened_proxy_url(record)).decode()
        return Secret.literal(text, f"proxy_url of {record.provider}/{record.name}")

    async def seal_text(self, text: str, for_what: str) -> str:
        """Anything else; ``for_what`` is its purpose, such as :func:`login_purpose` gives."""
        return await self._seal(text.encode(), for_what)

    async def open_text(self, sealed: str, for_what: str, shown: str, mend: str = _SIGN_IN_AGAIN) -> str:
        """The same. ``shown`` and ``mend`` are for the message.

        Raises:
            RecordDamaged: it does not open.
        """
        return (await self._open(sealed, for_what, shown, mend)).decode()

    async def rekeyed(self, record: AccountRecord) -> AccountRecord | None:
        """The same, sealed with the first of the keys; None: it is already.

        Raises:
            RecordDamaged: something of it does not open; nothing of it is changed then.
        """
        changes: dict[str, str] = {}
        first_id = (await self._keys()).first_id
        # Opened also where the key is the first one: what does not open is to be told of.
        if record.sealed_tokens is not None:
            plain = await self._opened_tokens(record)
            if _key_id(record.sealed_tokens) != first_id:
                changes["sealed_tokens"] = await self._seal(plain, purpose(record.provider, record.name, "tokens"))
        if record.sealed_proxy_url is not None:
            plain = await self._opened_proxy_url(record)
            if _key_id(record.sealed_proxy_url) != first_id:
                for_what = purpose(record.provider, record.name, "proxy_url")
                changes["sealed_proxy_url"] = await self._seal(plain, for_what)
        return msgspec.structs.replace(record, **changes) if changes else None

    async def export(self, record: AccountRecord, goes_to: str = "") -> dict[str, Any]:
        """The account as JSON, for another gateway that has the same master key. ``goes_to``: any text that says where its
        tokens are sent.

        Raises:
            RecordDamaged: something of it does not open.
        """
        tokens = await self.open_tokens(record)
        proxy_url = await self.open_proxy_url(record)
        exported = _Exported(
            tokens=None if tokens is None else _plain(tokens),
            proxy_url=None if proxy_url is None else proxy_url.reveal(),
            goes_to=goes_to,
        )
        document = _Document(
            sluice_credential=EXPORT_FORMAT,
            provider=record.provider,
            name=record.name,
            oauth=record.oauth,
            settings=record.settings,
            sealed=await self._seal(msgspec.json.encode(exported), _EXPORT),
        )
        found: dict[str, Any] = msgspec.to_builtins(document)
        return found

    async def import_(self, document: Mapping[str, Any], goes_to: str = "") -> AccountRecord:
        """A record of what :meth:`export` gave, sealed for its place, which no store has yet: its version is 0. Provider,
        name and settings may have been edited since, and are to be checked.

        Raises:
            RecordElsewhere: it was exported with another ``goes_to``.
            RecordUnknown: a newer version of the program has exported it.
            RecordDamaged: it is no such document, or does not open.
        """
        number = document.get("sluice_credential")
        if isinstance(number, int) and not isinstance(number, bool) and number > EXPORT_FORMAT:
            raise RecordUnknown(
                f"the exported credential has format {number}, and this version of the program knows none later than "
                f"{EXPORT_FORMAT}: import it with the version that exported it"
            )
        try:
            given = msgspec.convert(document, _Document)
        except msgspec.ValidationError as error:
            # The words of msgspec name fields and types, and repeat no value.
            raise RecordDamaged(f"this is no credential that was exported: {error}") from None
        if given.sluice_credential != EXPORT_FORMAT:
            raise RecordDamaged(f"this is no credential that was exported: `sluice_credential` is not {EXPORT_FORMAT}")
        shown = f"the exported credential `{given.provider}/{given.name}`"
        plain = await self._open(given.sealed, _EXPORT, shown, "export it again")
        try:
            exported = msgspec.json.decode(plain, type=_Exported)
        except msgspec.MsgspecError:
            raise RecordDamaged(f"{shown} is not what this program exports: export it again") from None
        if exported.goes_to != goes_to:
            raise RecordElsewhere(
                f"{shown} would be sent elsewhere: its provider or where it signs in has another address, type or "
                "authority here than where it was exported; sign in again"
            )
        return await self._imported(given, exported)

    async def _imported(self, given: _Document, exported: _Exported) -> AccountRecord:
        provider, name, tokens = given.provider, given.name, exported.tokens
        record = AccountRecord(
            provider=provider,
            name=name,
            version=0,
            oauth=given.oauth,
            settings=given.settings,
            created_at=0,
            updated_at=0,
        )
        if exported.proxy_url is not None:
            sealed = await self.seal_proxy_url(provider, name, exported.proxy_url)
            record = msgspec.structs.replace(record, sealed_proxy_url=sealed)
        if tokens is None:
            return record
        return msgspec.structs.replace(
            record,
            sealed_tokens=await self._seal(msgspec.json.encode(tokens), purpose(provider, name, "tokens")),
            account=tokens.account,
            scopes=tokens.scopes,
            expires_at=None if tokens.expires_at is None else round(tokens.expires_at * 1_000_000),
        )

    async def _opened_tokens(self, record: AccountRecord) -> bytes:
        assert record.sealed_tokens is not None
        for_what = purpose(record.provider, record.name, "tokens")
        return await self._open(record.sealed_tokens, for_what, _shown(record), _SIGN_IN_AGAIN)

    async def _opened_proxy_url(self, record: AccountRecord) -> bytes:
        assert record.sealed_proxy_url is not None
        for_what = purpose(record.provider, record.name, "proxy_url")
        shown = f"`proxy_url` of the account `{record.provider}/{record.name}`"
        return await self._open(record.sealed_proxy_url, for_what, shown, "set it again")

    async def _seal(self, plain: bytes, for_what: str) -> str:
        return (await self._keys()).seal(plain, for_what)

    async def _open(self, sealed: str, for_what: str, shown: str, mend: str) -> bytes:
        key_id, _, text = sealed.partition(":")
        try:
            return (await self._keys()).open(key_id, text, for_what)
        except SealedFault as fault:
            kind = RecordLocked if isinstance(fault, UnknownKey | WrongKey) else RecordDamaged
            raise kind(f"{shown}: {_why(fault, key_id)}; or {mend}") from None


def _why(fault: SealedFault, key_id: str) -> str:
    match fault:
        case UnknownKey():
            return f"what is sealed needs the master key `{key_id}`, which is not among ours: add it"
        case WrongKey():
            return f"what is sealed does not open with the master key `{key_id}`: set the one that it was sealed with"
    return "what is sealed was changed or cut: restore it from a backup"


def _key_id(sealed: str) -> str:
    return sealed.partition(":")[0]


def _plain(tokens: TokenSet) -> _Tokens:
    return _Tokens(
        access_token=tokens.access_token.reveal(),
        issued_at=tokens.issued_at,
        expires_at=tokens.expires_at,
        refresh_token=None if tokens.refresh_token is None else tokens.refresh_token.reveal(),
        scopes=tokens.scopes,
        account=tokens.account,
    )


def _tokens(plain: bytes, shown: str) -> TokenSet:
    try:
        found = msgspec.json.decode(plain, type=_Tokens)
    except msgspec.MsgspecError:
        raise RecordDamaged(f"{shown} are not what this program seals: {_SIGN_IN_AGAIN}") from None
    return TokenSet(
        access_token=Secret.literal(found.access_token, "access token"),
        issued_at=found.issued_at,
        expires_at=found.expires_at,
        refresh_token=None if found.refresh_token is None else Secret.literal(found.refresh_token, "refresh token"),
        scopes=found.scopes,
        account=found.account,
    )


def _shown(record: AccountRecord) -> str:
    return f"the tokens of the account `{record.provider}/{record.name}`"
