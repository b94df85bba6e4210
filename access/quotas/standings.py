"""How limits stand, read without charging them."""

from collections.abc import Iterable

import msgspec

from access.quotas.amounts import NOTHING
from access.quotas.limits import Limit, Limits
from access.quotas.outcomes import Refused, Standing
from access.quotas.store import QuotaStore


async def standings(store: QuotaStore, limits: Iterable[Limit]) -> tuple[Standing, ...] | None:
    """Of each of the ``limits``, in their order; None: nobody can tell at the moment.

    The store is asked for a request with the same limits of which each allows nothing: it refuses, counts nothing, and
    says why.
    """
    asked = tuple(limits)
    if not asked:
        return ()
    outcome = await store.admit(Limits(map(_closed, asked)), NOTHING)
    if not isinstance(outcome, Refused):
        return None
    return tuple(
        msgspec.structs.replace(standing, limit=limit) for limit, standing in zip(asked, outcome.standings, strict=True)
    )


def _closed(limit: Limit) -> Limit:
    terms = msgspec.structs.replace(limit.terms, amount=0, shadow=False, max_wait_seconds=0.0)
    return msgspec.structs.replace(limit, terms=terms)
