"""An edit of the configuration by the API, made as far as what guards its secrets lets it."""

from config.document import Document, parse
from config.edit.writer import Draft, Files
from config.faults import ConfigFaults
from config.merge import merge
from config.schema import Config
from config.sources import SourceFile
from gateway.account_checks import KeptAccounts
from management.editing.editor import Change, Changing
from management.secrets.compared import GuardRefused
from management.secrets.guard import check_edit, check_includes


def edit_guarded(
    draft: Draft, edit: Changing, config: Config, accounts: KeptAccounts, *, restoring: bool
) -> tuple[str, ...]:
    """Make ``edit`` in ``draft``, as ``config``, which is in force, lets it; what there is to say of it.

    Raises:
        ConfigFaults, GuardRefused, EditRefused: it cannot be, or may not be.
    """
    made = edit(draft.before) if callable(edit) else edit
    change = made if isinstance(made, Change) else Change(made)
    draft.edit(change.edit, _admit_includes)
    after = _merged(draft.after)
    if after.faults:
        # Before anything that it refers to is read, the guard has to see it whole.
        raise ConfigFaults(after.faults)
    try:
        amendments = check_edit(
            _merged(draft.before).value,
            after.value,
            config.management.allowed_references,
            config.server.allow_private_targets,
            given=change.given,
            restoring=restoring,
            accounts=accounts,
        )
    except GuardRefused as refused:
        raise GuardRefused(refused.code, map(after.place.locate, refused.faults)) from None
    for amendment in amendments.edits:
        draft.edit(amendment)
    return amendments.notices


def _admit_includes(before: SourceFile, after: SourceFile) -> None:
    if before.data == after.data:
        return
    old, new = (parse(root.data, root.shown) for root in (before, after))
    try:
        check_includes(old.value, new.value)
    except GuardRefused as refused:
        raise GuardRefused(refused.code, map(new.place.locate, refused.faults)) from None


def _merged(files: Files) -> Document:
    root, *included = (parse(file.data, file.shown) for file in files)
    return merge(root, included)
