"""Reading settings, and writing them down.

Sources, the later ones winning: defaults, a TOML file (``path`` or ``STREAMGATE_CONFIG``),
the environment (``STREAMGATE__SECTION__KEY``), and what the command line overrides.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsError

from streamgate.core.settings import Settings
from streamgate.errors import StreamGateError

__all__ = ["PREFIX", "Row", "Settings", "load", "render_toml", "table"]

PREFIX = "STREAMGATE__"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as the table of settings shows it; ``minimum`` and ``maximum`` are None where there is no limit."""

    section: str
    name: str
    type: str
    unit: str
    default: Any
    minimum: float | None
    maximum: float | None
    reason: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"{PREFIX}{self.section}__{self.name}".upper()


def load(path: Path | None = None, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Settings:
    """The settings in force; ``overrides`` are by section and name.

    Raises :class:`StreamGateError` ``config_invalid`` that names the setting, and the nearest spelling of an unknown one.
    """
    chosen = path or (Path(named) if (named := os.environ.get("STREAMGATE_CONFIG")) else None)
    from_file = _read(chosen) if chosen else {}
    _check_names(from_file, str(chosen))
    _check_names(_from_environment(), "the environment")
    given = {section: dict(values) for section, values in (overrides or {}).items()}
    _check_names(given, "the command line")

    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings, env_settings, lambda: from_file)  # type: ignore[return-value]

    try:
        layered = Layered(**given)  # type: ignore[arg-type]
    except ValidationError as e:
        raise StreamGateError(
            "config_invalid", "; ".join(_explain(error) for error in e.errors(include_url=False))
        ) from None
    except SettingsError:
        raise StreamGateError("config_invalid", f'{_not_json()}: write lists as JSON, for example ["a", "b"]') from None
    return Settings(**{name: getattr(layered, name) for name in Settings.model_fields})


def table(model: type[BaseModel] = Settings) -> Iterator[Row]:
    """All settings in the order of their declaration."""
    for section, field in model.model_fields.items():
        for name, info in _section(field).model_fields.items():
            limits = {type(m).__name__: m for m in info.metadata}
            extra = info.json_schema_extra
            yield Row(
                section,
                name,
                _type_name(info.annotation),
                str(extra.get("unit", "")) if isinstance(extra, dict) else "",
                info.get_default(call_default_factory=True),
                getattr(limits.get("Ge"), "ge", None),
                getattr(limits.get("Le"), "le", None),
                info.description or "",
            )


def render_toml(settings: BaseModel) -> str:
    """``settings`` as a TOML file in which each setting stands with its type, limits, unit and reason; secrets are left out."""
    lines = [
        "# StreamGate's settings: each with its reason, type, unit and limits.",
        f"# Each can also be set in the environment, for example {PREFIX}SERVER__PORT=9000; lists are written as JSON.",
    ]
    section = ""
    for row in table(type(settings)):
        if row.section != section:
            section = row.section
            about = (_section(type(settings).model_fields[section]).__doc__ or "").strip()
            lines += ["", "", f"[{section}]", f"# {about}"]
        value = getattr(getattr(settings, section), row.name)
        lines += ["", f"# {row.reason}", f"# {_describe(row)}"]
        lines.append(f"# {row.name} = (secret)" if isinstance(value, SecretStr) else f"{row.name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as e:
        raise StreamGateError("config_invalid", f"{path}: {os.strerror(e.errno or 0)}") from e
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise StreamGateError("config_invalid", f"{path}: {e}") from e


def _from_environment() -> dict[str, Any]:
    """The names that the environment sets, without their values."""
    found: dict[str, Any] = {}
    for variable in os.environ:
        if variable.upper().startswith(PREFIX):
            section, _, name = variable[len(PREFIX) :].lower().partition("__")
            found.setdefault(section, {}).update({name: None} if name else {})
    return found


def _not_json() -> str:
    """The variable whose value cannot be read; never the value, which may be a secret."""
    for row in table():
        if row.type.startswith("list"):
            try:
                json.loads(os.environ.get(row.variable, "[]"))
            except ValueError:
                return row.variable
    return PREFIX + "*"


def _check_names(given: Mapping[str, Any], where: str) -> None:
    """Refuse names that are not in the table, with the one that was probably meant."""
    for section, values in given.items():
        if section not in Settings.model_fields:
            raise _unknown(section, list(Settings.model_fields), where)
        if not isinstance(values, Mapping):
            raise StreamGateError("config_invalid", f"{section} in {where}: write it as a section, [{section}]")
        names = list(_section(Settings.model_fields[section]).model_fields)
        for name in values:
            if name not in names:
                raise _unknown(f"{section}.{name}", [f"{section}.{known}" for known in names], where)


def _unknown(name: str, known: list[str], where: str) -> StreamGateError:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return StreamGateError("config_invalid", f"there is no setting {name!r} ({where}); did you mean {nearest[0]!r}?")


def _explain(error: Any) -> str:
    """One sentence of a pydantic error; without the value, which may be a secret."""
    return f"{'.'.join(str(part) for part in error['loc'])}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _section(field: FieldInfo) -> type[BaseModel]:
    section = field.annotation
    assert isinstance(section, type) and issubclass(section, BaseModel)
    return section


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(json.dumps(choice) for choice in get_args(annotation))
    if get_origin(annotation) is tuple:
        return f"list of {_type_name(get_args(annotation)[0])}"
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false", "SecretStr": "secret text"}[
        annotation.__name__
    ]


def _describe(row: Row) -> str:
    told = f"{row.type}, {row.unit}" if row.unit else row.type
    if row.minimum is not None and row.maximum is not None:
        told += f", {row.minimum:.15g} to {row.maximum:.15g}"
    return told


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    # JSON's numbers, booleans and strings are TOML's too.
    return json.dumps(value, ensure_ascii=False)
