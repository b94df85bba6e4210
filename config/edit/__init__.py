"""Edits of documents that leave every byte outside the edited entry as it stands, and their way to the disk."""
