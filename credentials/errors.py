"""What can go wrong with a credential that is obtained or refreshed, with a sign-in, and with where they are kept.

::

    CredentialFault
    ├── NeedsLogin             the server will not give a token for what we have: a person must sign in again
    │   └── LoginAwaited       … which has been told already
    ├── CredentialRefused      the server refuses our client, or what it is told of it: an operator must mend that
    └── CredentialUnavailable  not now: the server, the way to it or a program fails
        └── StoreAway          … or the store of accounts, where what is given could not be kept

    LoginFault                 a sign-in that does not come to a credential
    ├── LoginImpossible        it cannot begin as it is asked for
    ├── TooManyLogins          as many are under way as may be
    ├── LoginUnknown           there is no such sign-in
    │   └── LoginUsed          its state was used already, or it has ended
    ├── LoginExpired           it took longer than it may
    ├── LoginDenied            the person, or the server for them, has said no
    ├── LoginMismatch          the answer is not of the server or the address that was asked
    └── LoginFailed            the server does not exchange what it has given

    StoreFault
    ├── StoreUnavailable       not now
    ├── StoreConflict          the record has been changed meanwhile, or is there already
    ├── AccountMissing         there is no such account
    ├── RecordDamaged          what is kept of a record cannot be read, or does not open
    │   └── RecordLocked       … as the master key that it is sealed with is not ours
    ├── RecordElsewhere        its tokens would be sent elsewhere than they were meant to
    └── RecordUnknown          a newer version of the program has written it

Messages name the thing and the mend, and show no secret.
"""

from typing import ClassVar, Literal


class CredentialFault(Exception):
    """No token can be had for a credential."""

    reason: ClassVar[str] = "failed"
    """A word for events and metrics."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        """``retry_after_seconds``: what the server asks for."""
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NeedsLogin(CredentialFault):
    """Only a person who signs in again can mend it."""

    reason = "needs_login"


class LoginAwaited(NeedsLogin):
    """The same, which has been told already: another process has found it, or an earlier run."""


class CredentialRefused(CredentialFault):
    """Only a change of the configuration can mend it; it is tried again all the same, seldom."""

    reason = "refused"


class CredentialUnavailable(CredentialFault):
    """It will mend itself, mostly."""

    reason = "unavailable"


class StoreAway(CredentialUnavailable):
    """As soon as the store answers it is tried again."""


class LoginFault(Exception):
    """A sign-in failed; the message may be shown to who signs in."""

    reason: ClassVar[str] = "failed"
    """A word for its status."""


class LoginImpossible(LoginFault):
    """Nothing was begun."""

    reason = "impossible"

    def __init__(self, message: str, *, what: Literal["provider", "name", "flow"]) -> None:
        """``what`` of it cannot be."""
        super().__init__(message)
        self.what = what


class TooManyLogins(LoginFault):
    """Nothing was begun; some of those under way end by themselves."""

    reason = "too_many"

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class LoginUnknown(LoginFault):
    """No sign-in has this state, or none has it any more."""

    reason = "unknown"


class LoginUsed(LoginUnknown):
    """Each state is good once."""

    reason = "used"


class LoginExpired(LoginFault):
    """It was begun too long ago."""

    reason = "expired"


class LoginDenied(LoginFault):
    """The server's answer was an error, such as `access_denied`."""

    reason = "denied"


class LoginMismatch(LoginFault):
    """The answer's issuer (RFC 9207), state or address is not the one that was asked."""

    reason = "mismatch"


class LoginFailed(LoginFault):
    """The exchange of the code failed."""

    reason = "failed"


class StoreFault(Exception):
    """A credential that is kept cannot be read or written."""


class StoreUnavailable(StoreFault):
    """Whatever is kept is not touched."""


class StoreConflict(StoreFault):
    """Read it again, and decide again."""


class AccountMissing(StoreFault):
    """It never was, or has been removed."""


class RecordDamaged(StoreFault):
    """It stays as it is; others are not affected."""


class RecordLocked(RecordDamaged):
    """With the master key that it was sealed with it would open."""


class RecordElsewhere(StoreFault):
    """An account that was exported goes where it came from, or nowhere."""


class RecordUnknown(StoreFault):
    """Its version is not known here; it stays as it is."""
