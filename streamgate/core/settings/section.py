"""What a section of settings and a row of it are."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def setting(default: Any, reason: str, *, unit: str = "", ge: float | None = None, le: float | None = None) -> Any:
    """One row of the table: its default, why it is there, its unit, and the least and greatest value allowed."""
    return Field(default, description=reason, ge=ge, le=le, json_schema_extra={"unit": unit})


class Section(BaseModel):
    """A section of settings; unknown keys are errors, so that a typing mistake does not go unnoticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
