"""What handlers ask of limits. `gateway/limit_service.py` answers."""

from typing import Protocol

from access.quotas.outcomes import Standing
from access.quotas.rules import Listed
from core.identity import ApiToken


class LimitService(Protocol):
    """The limits of the configuration that is in force, and how they stand."""

    def not_kept_because(self) -> str | None:
        """Why no limit can be kept, in words with a mend; None: each can."""
        ...

    async def of_token(self, token: ApiToken) -> tuple[Standing, ...] | None:
        """Its own, and those of the configuration that count all of its requests; None: nobody can tell at the moment.

        Nothing is charged.
        """
        ...

    async def of_config(self) -> tuple[tuple[Listed, Standing | None], ...] | None:
        """Those of the configuration; where one counts each name apart there is no standing. Else as of :meth:`of_token`."""
        ...
