"""What every configuration shares: values are checked, stored and changed in the same way.

Notable choices
- pydantic checks types and limits. `sentence` turns its report into one sentence for a reader.
- Configurations hold configurations. `changed` finds a field at any depth, so a setting can be
  named alone: `changed(preset, steps=10)`.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class Config(BaseModel):
    """What all configurations share: no unknown fields, no silent conversion, no changes later."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(sentence(error)) from None


# pydantic's name of a complaint -> our words, and where pydantic keeps the limit
LIMITS = {
    "greater_than_equal": ("be at least", "ge"),
    "greater_than": ("be larger than", "gt"),
    "less_than_equal": ("be at most", "le"),
    "less_than": ("be smaller than", "lt"),
}


def sentence(error: ValidationError) -> str:
    """The first complaint of pydantic as one sentence that names the field."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
    if first["type"] == "extra_forbidden":
        return f"{error.title} has no field {name!r}; was it written by another version?"
    if first["type"] == "missing":
        return f"{error.title} needs the field {name!r}, which is missing"
    if not name:  # a rule about several fields says by itself what is wrong
        return first["msg"].removeprefix("Value error, ")
    if first["type"] in LIMITS:
        words, key = LIMITS[first["type"]]
        complaint = f"must {words} {first['ctx'][key]}"
    else:
        complaint = first["msg"].removeprefix("Input ").replace("should", "must", 1)
    return f"{name} {complaint}, got {first['input']!r}"


C = TypeVar("C", bound=Config)


def settings(config: Config) -> dict[str, Any]:
    """The value of every field by name; fields of a configuration inside another count as well."""
    found: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            found |= settings(value)
        else:
            found[name] = value
    return found


def changed(config: C, **values: Any) -> C:
    """A copy with some fields changed, wherever they stand. `ValueError` for an unknown name."""
    fields = type(config).model_fields
    known = settings(config)
    for name in values:
        if name not in known and name not in fields:
            names = ", ".join(sorted(known))
            raise ValueError(f"there is no setting {name!r}; choose one of {names}")
    parts = {}
    for name in fields:
        part = values.get(name, getattr(config, name))
        if isinstance(part, Config):
            # A field of this part is changed inside it.
            inside = settings(part)
            part = changed(part, **{key: values[key] for key in values if key in inside})
        parts[name] = part
    return type(config)(**parts)


def to_dict(config: Config) -> dict[str, Any]:
    """A configuration as plain JSON types."""
    return config.model_dump(mode="json")


def from_dict(cls: type[C], values: dict[str, Any]) -> C:
    """The inverse of `to_dict`. `ValueError` names a field that is unknown, missing or wrong."""
    if not isinstance(values, dict):
        raise ValueError(f"{cls.__name__} is made of fields by name, got {values!r}")
    parts = {}
    for name, value in values.items():
        inner = cls.model_fields[name].annotation if name in cls.model_fields else None
        if isinstance(inner, type) and issubclass(inner, Config) and isinstance(value, dict):
            parts[name] = from_dict(inner, value)
        else:
            parts[name] = frozen(value)
    return cls(**parts)


def read_settings(texts: list[str]) -> dict[str, Any]:
    """Values by name from texts such as `steps=10` or `mask_rate=[0.1, 1.0]`; values are JSON."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ValueError(f"a setting is written NAME=VALUE, got {text!r}")
        try:
            values[name] = frozen(json.loads(value))
        except (json.JSONDecodeError, RecursionError):
            values[name] = value  # a word without quotation marks
    return values


def frozen(value: Any) -> Any:
    """A JSON value as a configuration holds it: lists become tuples, at any depth."""
    return tuple(map(frozen, value)) if isinstance(value, list) else value
