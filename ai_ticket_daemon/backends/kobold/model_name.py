"""The words that stand in place of a model's name in every API that KoboldCPP speaks."""

from __future__ import annotations

_NO_MODEL = "inactive"
_MASKED = "protected-model"


def names_no_model(name: str) -> bool:
    """Whether ``name`` says that no model is loaded."""
    return _bare(name) == _NO_MODEL


def is_masked(name: str) -> bool:
    """Whether ``name`` hides the model: KoboldCPP tells it only to who has the password."""
    return _bare(name) == _MASKED


def _bare(name: str) -> str:
    return name.rpartition("/")[2]
