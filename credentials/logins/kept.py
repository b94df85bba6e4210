"""What the exchange of a sign-in needs, sealed in the store meanwhile."""

import msgspec

from credentials.errors import LoginFailed, RecordDamaged
from credentials.logins.needs import TextSealer
from credentials.records import AccountSettings, PendingLogin
from credentials.sealer import login_purpose


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Opens for the sign-in that it was sealed for alone."""

    redirect_url: str
    verifier: str | None
    settings: AccountSettings | None
    proxy_url: str | None
    replaces: bool = True

    def __repr__(self) -> str:
        return "Kept(…)"


async def with_kept(login: PendingLogin, kept: Kept, sealer: TextSealer) -> PendingLogin:
    """``login`` with ``kept`` in it."""
    sealed = await sealer.seal_text(msgspec.json.encode(kept).decode(), _purpose(login))
    return msgspec.structs.replace(login, sealed=sealed)


async def kept_in(login: PendingLogin, sealer: TextSealer) -> Kept:
    """
    Raises:
        LoginFailed: it does not open.
    """
    try:
        text = await sealer.open_text(login.sealed or "", _purpose(login), "what was kept of the sign-in")
    except RecordDamaged as fault:
        raise LoginFailed(str(fault)) from None
    return msgspec.json.decode(text, type=Kept)


def _purpose(login: PendingLogin) -> str:
    return f"{login_purpose(login.key)}\0{login.provider}\0{login.name}\0{login.oauth}"
