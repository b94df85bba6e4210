"""What a sign-in service gives for who we are, or why it gives nothing."""

from collections.abc import Mapping, Sequence

from credentials.errors import CredentialFault, CredentialRefused, CredentialUnavailable
from credentials.oauth.answers import token_set
from credentials.oauth.http import Answer, Way, post_form
from credentials.tokens import TokenSet

_WHAT = "token endpoint"


async def exchange(
    way: Way, url: str, form: Mapping[str, str], *, secrets: Sequence[str], mends: Mapping[str, str], otherwise: str
) -> TokenSet:
    """Send ``form`` to the token endpoint at ``url``.

    Nobody signs in here: what a server refuses, an operator has to mend. ``mends`` says how, by the code of the error;
    ``otherwise`` is for all others. ``secrets`` are not repeated, whatever the server says.

    Raises:
        CredentialRefused, CredentialUnavailable: there is no token.
    """
    begun = way.clock.time()
    answer = await post_form(way, _WHAT, url, form, secrets=secrets)
    fault = _fault_of(way, answer, mends, otherwise)
    if fault is not None:
        raise fault
    assert answer.document is not None
    # From before it was asked for: what it takes to come is not added to its life.
    return token_set(way.whose, answer.document, begun)


def _fault_of(way: Way, answer: Answer, mends: Mapping[str, str], otherwise: str) -> CredentialFault | None:
    if answer.busy:
        return CredentialUnavailable(
            f"{way.whose}: its {_WHAT} is busy or out of order ({answer.said})",
            retry_after_seconds=answer.retry_after_seconds,
        )
    if answer.code is not None:
        return CredentialRefused(
            f"{way.whose}: its {_WHAT} refuses it ({answer.said}): {mends.get(answer.code, otherwise)}"
        )
    if not 200 <= answer.status < 300:
        return CredentialRefused(
            f"{way.whose}: its {_WHAT} answers with {answer.said} and without a reason: {otherwise}"
        )
    if answer.document is None:
        return CredentialUnavailable(
            f"{way.whose}: its {_WHAT} answers with something that is no JSON: is something in between?"
        )
    return None
