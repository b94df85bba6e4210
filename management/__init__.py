"""The control plane: one file a REST resource, authenticated by default, in one table (:mod:`management.routes`)."""
