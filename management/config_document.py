"""The files of the configuration as text, one at a time: with comments, in their order, without secrets."""

from config.document import MAX_DOCUMENT_BYTES
from config.edit.errors import Unreadable
from config.faults import ConfigFaults
from core.identity import Role
from management.config import readable
from management.editing.config_edits import ANSWERS, Comment, DocumentQuery, commit, document_edit, named_file
from management.editing.config_errors import COMMIT_CODES, edit_errors
from management.errors import ConfigError, RequestError
from management.handler.base import ManagementHandler
from management.handler.in_thread import in_thread
from management.handler.operation import YAML, operation
from management.handler.permit import requires
from management.secrets.secret_values import masked_document


class DocumentEditQuery(DocumentQuery, frozen=True):
    """The same of an edit."""

    comment: Comment | None = None


class ConfigDocument(ManagementHandler):
    """``/api/v1/config/document``."""

    @operation(
        requires(Role.ADMIN),
        summary="Show a file of the configuration as it is written, with `${kept}` in the place of each secret.",
        query=DocumentQuery,
        answers={200: YAML},
        errors=(RequestError.INVALID_QUERY, ConfigError.ENTRY_MISSING, ConfigError.UNREADABLE),
        etag=True,
    )
    async def get(self) -> None:
        query = self.read_query(DocumentQuery)
        found, revision = await readable(self)
        with edit_errors():
            file = named_file(found.files, query.file)
            try:
                shown = await in_thread(masked_document, file.data, file.shown)
            except ConfigFaults as error:
                # Nobody can tell what in it is a secret.
                raise Unreadable(error.faults) from None
        self.write_bytes(shown, YAML, etag=revision)

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Replace a file of the configuration and put it in force; `${kept}` keeps the secret that is there.",
        body=YAML,
        query=DocumentEditQuery,
        answers=ANSWERS,
        errors=(
            RequestError.INVALID_QUERY,
            RequestError.INVALID_IF_MATCH,
            RequestError.IF_MATCH_REQUIRED,
            ConfigError.ENTRY_MISSING,
            *COMMIT_CODES,
        ),
        etag=True,
        if_match=True,
        audit="config.put",
        max_body_bytes=MAX_DOCUMENT_BYTES,
    )
    async def put(self) -> None:
        query = self.read_query(DocumentEditQuery)
        await commit(self, document_edit(self.raw_body(), query.file), comment=query.comment)
