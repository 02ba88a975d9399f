"""Argilla's SDK, whose import warns about pydantic's deprecated ways."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import argilla as rg

__all__ = ["rg"]
