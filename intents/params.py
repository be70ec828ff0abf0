"""Reads one section of params.yaml into a checked, immutable model."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

PARAMS_PATH = Path("params.yaml")


class Params(BaseModel):
    """A section of params.yaml: frozen, and an unknown key is an error."""

    # An intent may be called 0, which YAML reads as a number.
    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), coerce_numbers_to_str=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _keep_numbers_from_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `true` where a number is meant, which Python would take for 1."""
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, bool) and bool not in kinds and kinds & {int, float}:
            raise ValueError("is a number, neither true nor false")
        return value


class OutOfScopeParams(Params):
    """Those settings of section `prepare` that later stages read: an out-of-scope intent, and what it is for."""

    model_config = ConfigDict(extra="ignore")

    out_of_scope_intent: str | None
    out_of_scope_use: str


P = TypeVar("P", bound=Params)


def load_params(section: str, model: type[P], path: Path = PARAMS_PATH) -> P:
    """Return `section` of the YAML file at `path` as a `model`.

    Raises:
        ValueError: the file or section is missing, or settings are unknown, missing or out of range; every wrong
            setting is named once, by its dotted name, with the value given and what is valid.

    """
    params = read_params(path)
    if section not in params:
        raise ValueError(f"{path} has no section {section!r}; it has: {', '.join(map(str, params))}")
    try:
        return model.model_validate(params[section] if params[section] is not None else {})
    except ValidationError as error:
        wrong: dict[str, list[Any]] = {}
        for details in error.errors():
            wrong.setdefault(".".join([section, *_location(model, details)]), []).append(details)
        lines = [f"  {name}: {_explain(section, model, found)}" for name, found in wrong.items()]
        raise ValueError(f"{path}: {len(lines)} wrong setting(s)\n" + "\n".join(lines)) from None


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + str(key)] = value
    return flat


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads YAML 1.2, not 1.1: in what DVC writes for -S, off, no and 12:30 are words, 3e-05 and 010 numbers."""

    yaml_implicit_resolvers = {
        sign: [(tag, pattern) for tag, pattern in known if tag.rpartition(":")[2] not in ("bool", "int", "float")]
        for sign, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def flatten_mapping(self, node: Any) -> None:
        """Merge what << names; a key that stands in the mapping twice, of which DVC takes none, is a mistake."""
        seen = set()
        for key, _ in node.value:
            if _name(key) in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is there twice", problem_mark=key.start_mark)
            seen.add(_name(key))
        super().flatten_mapping(node)
        # A mapping that others merge is flattened more than once: of a merged key and its own the last holds.
        node.value = list({_name(key): (key, value) for key, value in node.value}.values())


def _name(key: Any) -> Any:
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


for kind, pattern, signs in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?\d+|0o[0-7]+|0x[\da-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"(?:{pattern})$"), list(signs))


def _whole_number(loader: Any, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 0 if text.startswith(("0x", "0o")) else 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


def load_yaml(text: str) -> Any:
    """Return the value that `text` holds; raises yaml.YAMLError where it is not YAML."""
    return yaml.load(text, _Loader)  # noqa: S506, it is a safe loader


def read_params(path: Path = PARAMS_PATH) -> dict[str, Any]:
    """Return the whole YAML mapping at `path`."""
    try:
        loaded = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: run this from the root of the repository") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(loaded, dict):
        raise ValueError(f"{path} must hold sections of settings, found {type(loaded).__name__}")
    return loaded


def _location(model: type[Params], details: Any) -> list[str]:
    """Return the setting that is wrong, and where in it: of one that may be of several kinds, the setting alone."""
    location = [str(part) for part in details["loc"]]
    field = model.model_fields.get(location[0]) if location else None
    kinds = set(get_args(field.annotation)) - {type(None)} if field and _is_union(field.annotation) else set()
    return location[:1] if len(kinds) > 1 else location


def _kinds(annotation: Any) -> set[Any]:
    """Return the types that a setting may be of."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    return {kind for each in get_args(annotation) for kind in _kinds(each)} if _is_union(annotation) else {annotation}


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)


# What pydantic says of Python's types, in the words of params.yaml.
_IN_YAML = {
    "tuple_type": "Must be a list, such as [a, b]",
    "list_type": "Must be a list, such as [a, b]",
    "dict_type": "Must be a mapping, such as {a: 0.01}",
}


def _explain(section: str, model: type[Params], found: Sequence[Any]) -> str:
    """Return what is wrong with one setting; several errors are those of the kinds that it may be of."""
    if found[0]["type"] == "extra_forbidden":
        return f"unknown setting; {section} has: {', '.join(model.model_fields)}"
    if found[0]["type"] == "missing":
        return "missing; add it to params.yaml (git diff params.yaml shows what was removed)"
    if found[0]["type"] == "path_type":
        return f"must be the path of a file (data/none: none), got {found[0]['input']!r}"
    messages = dict.fromkeys(
        _IN_YAML.get(details["type"], details["msg"].removeprefix("Value error, ")) for details in found
    )
    joined = ", or ".join(message[0].lower() + message[1:] for message in messages)
    return f"{joined}, got {found[0]['input']!r}" if found[0]["loc"] else joined  # not the whole section
