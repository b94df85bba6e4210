"""``/api/v1/webhooks[/{name}]``: the entries of `webhooks` of the configuration.

A secret to sign with may be made here: it is sealed as one that is set, and told by the answer to that edit alone.
"""

from typing import ClassVar

import msgspec

from core.moments import moment
from management.editing.entries import Entries, Entry, Section
from management.editing.entry_handlers import EntryCollection, EntryItem
from management.editing.entry_schema import EntryChanged, EntryGiven, EntryPatch, EntryShown, NewEntry
from management.errors import ManagementError, RequestError, WebhookError
from management.secrets.entry_values import Json, Translated
from storage.errors import NotFound
from webhooks.signing import new_secret

SECTION = Section(
    "webhooks", "webhook", "/api/v1/webhooks", one="a webhook", many="webhooks", missing=WebhookError.NOT_FOUND
)
MOST_FORMER_SECRETS = 4
"""As of `webhooks[].former_secrets` of the configuration."""


class NewWebhook(NewEntry, section="webhooks"):
    """A webhook to add."""


class WebhookGiven(EntryGiven, section="webhooks"):
    """A webhook as a whole, to be put in the place of the one that there is."""


class WebhookPatch(EntryPatch, section="webhooks"):
    """A merge patch (RFC 7396) of a webhook."""


class WebhookShown(EntryShown, section="webhooks"):
    """A webhook as its file has it; of its secrets, what kind they are."""


class WebhookChanged(EntryChanged, section="webhooks"):
    """A webhook as it is after an edit."""


class WebhookList(msgspec.Struct, frozen=True):
    """Webhooks, in the order of the configuration."""

    data: tuple[WebhookShown, ...]
    next_cursor: str | None
    """Of the next part; null: there is no more."""


class WebhookEntries(Entries):
    """Base of both: states, and secrets that are made."""

    _made: str | None = None

    def notes(self, key: str) -> dict[str, Json]:
        """`state`."""
        try:
            state = self.dependencies.webhooks.state(key)
        except NotFound:
            return {"state": None}
        return {"state": {"failing": state.failing, "disabled_since": moment(state.disabled_since)}}

    def notes_once(self) -> dict[str, Json]:
        """`new_secret`, where one was made."""
        return {} if self._made is None else {"new_secret": self._made}

    async def translate(self, key: str, body: dict[str, Json], present: Entry | None) -> Translated:
        """With a secret that is made where one is asked for."""
        asked = body.get("secret")
        if asked not in self._asking:
            return await super().translate(key, body, present)
        self._made = new_secret()
        given = await super().translate(key, {**body, "secret": {"action": "set", "value": self._made}}, present)
        if asked == self._GENERATE:
            return given
        if present is None:
            raise ManagementError(
                RequestError.INVALID_BODY,
                'There is no secret yet that another could take the place of: send `{"action": "generate"}`.',
                param="secret",
            )
        return msgspec.structs.replace(given, value={**given.value, "former_secrets": self._former(given, present)})

    _GENERATE: ClassVar = {"action": "generate"}
    _ROTATE: ClassVar = {"action": "rotate"}
    _asking: ClassVar = (_GENERATE, _ROTATE)

    def _former(self, given: Translated, present: Entry) -> list[Json]:
        # What a patch leaves out stays.
        former = given.value.get(
            "former_secrets", present.get("former_secrets") if self.request.method == "PATCH" else ()
        )
        rest = former if isinstance(former, list) else []
        return [present.get("secret"), *rest][:MOST_FORMER_SECRETS]


class Webhooks(
    WebhookEntries, EntryCollection, section=SECTION, listed=WebhookList, new=NewWebhook, changed=WebhookChanged
):
    """``/api/v1/webhooks``."""


class WebhookItem(
    WebhookEntries,
    EntryItem,
    section=SECTION,
    shown=WebhookShown,
    given=WebhookGiven,
    patched=WebhookPatch,
    changed=WebhookChanged,
):
    """``/api/v1/webhooks/{name}``."""
