"""The composition root: puts the parts together, starts and stops them. Imports everything, is imported by nobody."""
