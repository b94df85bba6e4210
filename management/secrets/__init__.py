"""What the API neither shows nor gives away: secrets in documents and entries, and the guard over edits."""
