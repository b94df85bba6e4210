"""The API as a document: OpenAPI from the table of routes, and the page that shows it."""
