"""What every configuration shares: values are checked, stored and changed in the same way.

Notable choices
- pydantic checks types and limits. `sentence` turns its report into one sentence for a reader.
- A configuration may hold others, its parts. `changed` finds a field at any depth, so a setting
  can be named alone: `changed(preset, steps=10)`. Field names are unique over all parts of a preset
  (`tests/test_settings.py` checks it). Were a name in two parts, both fields would change.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class Config(BaseModel):
    """All configurations: no unknown fields, no changes later. `ValueError` for a wrong value.

    No text becomes a number, but lists become tuples, 3 becomes 3.0, and NumPy numbers plain ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        values = {name: as_tuples(as_python(value)) for name, value in values.items()}
        try:
            super().__init__(**values)
        except ValidationError as error:
            # `from None` hides pydantic's report of many lines.
            raise ValueError(sentence(error, type(self))) from None


def as_python(value: Any) -> Any:
    """A number of NumPy or torch as one of Python; anything else as it is."""
    # Only values of NumPy and torch have `ndim`; of a single number it is 0.
    return value.item() if getattr(value, "ndim", None) == 0 else value


def as_tuples(value: Any) -> Any:
    """A value with its lists, also lists in lists, as tuples."""
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


# type of pydantic's error -> (our words, key of the limit in the error's `ctx`)
LIMITS = {
    "greater_than_equal": ("be at least", "ge"),
    "greater_than": ("be larger than", "gt"),
    "less_than_equal": ("be at most", "le"),
    "less_than": ("be smaller than", "lt"),
}


def sentence(error: ValidationError, cls: type[Config]) -> str:
    """The first complaint of pydantic as one sentence that names the field of a class."""
    first = error.errors()[0]
    # `loc` is the way to the value: names of fields (only they are kept) and places in tuples.
    name = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
    if first["type"] == "extra_forbidden":
        return f"{error.title} has no field {name!r}; was it written by another version?"
    if first["type"] == "missing" and first["loc"] == (name,):
        return f"{error.title} needs the field {name!r}, which is missing"
    # An error of our own, from a `model_validator` or from a part, is already a sentence.
    if not name or first["type"] == "value_error":
        return first["msg"].removeprefix("Value error, ")
    if first["type"] in LIMITS:
        words, key = LIMITS[first["type"]]
        complaint = f"must {words} {first['ctx'][key]}"
    # What should be a list is none or too long, or a value is missing in it: its form is shown.
    elif first["type"] in ("tuple_type", "too_long", "missing"):
        field = cls.model_fields[name]
        complaint = f"must be a list such as {json.dumps((field.examples or [field.default])[0])}"
    else:
        # "Input should be a valid integer" -> "must be a valid integer"
        complaint = first["msg"].removeprefix("Input ").removeprefix("Tuple ")
        complaint = complaint.replace("should", "must", 1).replace(" after validation", "")
    return f"{name} {complaint}, got {first['input']!r}"


# So that a type checker knows: `changed` of a TrainingConfig is a TrainingConfig.
C = TypeVar("C", bound=Config)


def plain_fields(config: Config) -> dict[str, Any]:
    """Name -> value of all plain fields, also of those in parts; a part is no entry itself."""
    found: dict[str, Any] = {}
    for name, value in config:
        if isinstance(value, Config):
            found |= plain_fields(value)
        else:
            found[name] = value
    return found


def changed(config: C, /, **values: Any) -> C:
    """A copy with some fields changed, wherever they stand. `ValueError` for an unknown name."""
    fields = type(config).model_fields  # of this class: plain fields and whole parts
    plain = plain_fields(config)  # plain fields at any depth, but no parts
    # 1. Every name must be one of these. A part must be a `Config`: a dict may fit two classes.
    for name, value in values.items():
        if name not in plain and not (name in fields and isinstance(value, Config)):
            way = "give each value in it by its own name," if isinstance(value, dict) else "choose"
            names = ", ".join(sorted(plain))
            raise ValueError(f"there is no setting {name!r}; {way} one of {names}")
    # 2. Each field takes its new value or keeps the old one.
    new = {}
    for name in fields:
        value = values.get(name, getattr(config, name))
        if isinstance(value, Config):
            # A part also takes the new values of its own fields, even if the part itself is new.
            inside = plain_fields(value)
            value = changed(value, **{key: values[key] for key in values if key in inside})
        new[name] = value
    # 3. A new object is made, which checks all of its values.
    return type(config)(**new)


def to_dict(config: Config) -> dict[str, Any]:
    """A configuration as plain JSON types: parts become dicts, tuples become lists."""
    return config.model_dump(mode="json")


def from_dict(cls: type[C], values: dict[str, Any]) -> C:
    """The inverse of `to_dict`. `ValueError` names a field that is unknown, missing or wrong."""
    if not isinstance(values, dict):
        raise ValueError(f"{cls.__name__} is made of fields by name, got {values!r}")
    fields = {}
    for name, value in values.items():
        # An unknown name stays, so that pydantic's report can name it.
        inner = cls.model_fields[name].annotation if name in cls.model_fields else None
        # A part is made by its own class. `config.Preset.model` is left out: it may have several
        # classes (`A | B`), and a dict does not say which. Whole presets are never stored.
        if isinstance(inner, type) and issubclass(inner, Config) and isinstance(value, dict):
            fields[name] = from_dict(inner, value)
        else:
            fields[name] = value
    return cls(**fields)
