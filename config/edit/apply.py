"""Edits made in the bytes of a document's files."""

import re
from collections.abc import Sequence

import msgspec

from config.document import Document, Value, parse
from config.edit.edits import Edit, MergePatch, PutDocument, PutEntry, PutFiles, RemoveEntry, key_field
from config.edit.errors import EditRefused, EntryExists, EntryMissing, Unreadable
from config.edit.nodes import Unfamiliar
from config.edit.ownership import distribute
from config.edit.render import Unwritable
from config.edit.rewrite import Rewriter
from config.edit.values import is_same
from config.faults import Fault
from config.merge import merge
from config.sources import SourceFile

Files = tuple[SourceFile, ...]
Mapping = dict[str, Value]

_ALIAS = re.compile(r"(?<![^\s,\[{:-])\*([A-Za-z0-9_-]+)")


def apply(files: Files, edit: Edit) -> Files:
    """The files with ``edit`` made; those that it does not concern are the same objects.

    ``files`` are the root and then its includes, as :attr:`config.load.LoadedConfig.files` has them. An edit goes to
    the file that owns the entry, a new entry to the root. What comes out is read again before it is given back.

    Raises:
        Unreadable: a file cannot be parsed.
        EntryMissing, EntryExists: the entry, or the file, is not there, or is.
        EditRefused: the text is such that the edit would change more than it should.
    """
    if isinstance(edit, PutDocument):
        return _put_document(files, edit)
    if isinstance(edit, PutFiles):
        return _put_files(files, edit)
    documents = [_parse(file) for file in files]
    document = merge(documents[0], documents[1:])
    if document.faults:
        raise Unreadable(document.faults)
    values = [each.value for each in documents]
    match edit:
        case MergePatch():
            intended = merge_patch(document.value, edit.patch)
            if not isinstance(intended, dict):
                raise EditRefused([Fault((), "a document must stay a mapping: patch it with a mapping")])
            wanted = distribute(values, intended)
        case PutEntry():
            wanted = _put_entry(values, edit)
        case RemoveEntry():
            wanted = _remove_entry(values, edit)
    edited = tuple(
        file if is_same(before, after) else _rewrite(file, after)
        for file, before, after in zip(files, values, wanted, strict=True)
    )
    if isinstance(edit, MergePatch):
        again = merge(_parse(edited[0]), [_parse(file) for file in edited[1:]])
        if again.faults or not is_same(again.value, intended):
            raise EditRefused([Fault((), "the patch cannot be parted among the files: edit them themselves")])
    return edited


def merge_patch(target: Value, patch: Value) -> Value:
    """RFC 7396 section 2, as its pseudocode has it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def _parse(file: SourceFile) -> Document:
    document = parse(file.data, file.shown)
    if document.faults:
        raise Unreadable(document.faults)
    return document


def _put_document(files: Files, edit: PutDocument) -> Files:
    number = 0
    if edit.file is not None:
        known = [file.relative for file in files]
        if edit.file not in known:
            raise EntryMissing([Fault((), f"`{edit.file}` is not a file of this document")])
        number = known.index(edit.file)
    _parse(files[number])
    changed = msgspec.structs.replace(files[number], data=edit.data)
    return tuple(changed if place == number else file for place, file in enumerate(files))


def _put_files(files: Files, edit: PutFiles) -> Files:
    for file in files:
        _parse(file)
    root, *_ = files
    if edit.files[0][0] != root.relative:
        raise EditRefused([Fault((), f"these are the files of `{edit.files[0][0]}`, and not of `{root.relative}`")])
    known = {file.relative: file for file in files}
    return tuple(
        msgspec.structs.replace(known.get(name) or SourceFile(name, name, b""), data=data) for name, data in edit.files
    )


def _put_entry(values: list[Mapping], edit: PutEntry) -> list[Mapping]:
    section, field = edit.section, key_field(edit.section)
    value: Mapping = edit.value if field in edit.value else {field: edit.key, **edit.value}
    if value[field] != edit.key:
        raise EditRefused([Fault((section, field), f"must be `{edit.key}`: an entry keeps its name")])
    found = _find(values, section, edit.key)
    if found is None and edit.must_exist:
        raise _missing(section, edit.key)
    if found is not None and edit.must_exist is False:
        raise EntryExists([Fault((section,), f"there is an entry `{edit.key}` already")])
    if found is not None and edit.before in (None, edit.key):
        return _spliced(values, section, *found, 1, [value])
    if found is not None:
        values = _spliced(values, section, *found, 1, [])
    if edit.before is None:
        return _spliced(values, section, 0, len(_entries(values[0], section)), 0, [value])
    place = _find(values, section, edit.before)
    if place is None:
        raise _missing(section, edit.before)
    return _spliced(values, section, *place, 0, [value])


def _remove_entry(values: list[Mapping], edit: RemoveEntry) -> list[Mapping]:
    found = _find(values, edit.section, edit.key)
    if found is None:
        raise _missing(edit.section, edit.key)
    return _spliced(values, edit.section, *found, 1, [])


def _missing(section: str, key: str) -> EntryMissing:
    return EntryMissing([Fault((section,), f"there is no entry `{key}`")])


def _find(values: Sequence[Mapping], section: str, key: str) -> tuple[int, int] | None:
    """The file and the number in its list of the entry ``key``."""
    field = key_field(section)
    found = [
        (number, index)
        for number, value in enumerate(values)
        for index, entry in enumerate(_entries(value, section))
        if isinstance(entry, dict) and entry.get(field) == key
    ]
    if len(found) > 1:
        raise EditRefused([Fault((section,), f"there are several entries `{key}`: keep one")])
    return found[0] if found else None


def _entries(value: Mapping, section: str) -> list[Value]:
    entries = value.get(section)
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise EditRefused([Fault((section,), "must be a list, to have entries put into it")])
    return entries


def _spliced(
    values: Sequence[Mapping], section: str, file: int, index: int, length: int, entries: list[Value]
) -> list[Mapping]:
    """``values`` with ``entries`` in the place of ``length`` ones at ``index`` in the list of one file."""
    old = _entries(values[file], section)
    changed: Mapping = {**values[file], section: [*old[:index], *entries, *old[index + length :]]}
    return [changed if number == file else value for number, value in enumerate(values)]


def _rewrite(file: SourceFile, value: Mapping) -> SourceFile:
    """``file`` with ``value`` in it, read again."""
    text = file.data.decode()
    touched: int | None = None
    try:
        rewriter = Rewriter(text)
        written = rewriter.rewrite(value)
        touched = rewriter.touched
    except Unwritable as error:
        raise EditRefused([Fault((), str(error), file.shown, 1, 1)]) from None
    except Unfamiliar as error:
        message = "this spelling is read, but edits cannot keep it: write it otherwise, or edit the file itself"
        raise EditRefused([_fault(file, text, error.position, message)]) from None
    try:
        data = written.encode()
    except UnicodeEncodeError:
        raise EditRefused([Fault((), "a text with half a character cannot be written", file.shown, 1, 1)]) from None
    document = parse(data, file.shown)
    if document.faults or not is_same(document.value, value):
        message = "the edit cannot be made here without changing more than it should: edit the file itself"
        shared = [name for name in _ALIAS.findall(text) if f"&{name}" in text]
        if shared:
            names = ", ".join(f"`&{name}`" for name in dict.fromkeys(shared))
            message = (
                f"what it changes may be used in several places by an anchor ({names}): write the values out where "
                "the aliases stand, or edit the file itself"
            )
        raise EditRefused([_fault(file, text, touched or 0, message)])
    return msgspec.structs.replace(file, data=data)


def _fault(file: SourceFile, text: str, position: int, message: str) -> Fault:
    lines = text[:position].replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return Fault((), message, file.shown, len(lines), len(lines[-1]) + 1)
