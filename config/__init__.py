"""The YAML document and how it becomes a frozen :class:`config.schema.Config`."""
