"""The environment as a source of settings: `OH_<FIELD>` variables in every form the published server reads.

* scalar: `OH_X=text`
* optional: `OH_X_IS_NONE=1` is null, whatever else is set
* list: `OH_X='["a","b"]'`, or `OH_X_0`, `OH_X_1`, ... up to the first gap, or `OH_X=2` for exactly `OH_X_0` and
  `OH_X_1`; beside a JSON list an indexed item replaces the item of its index, and indexes past its end are ignored
* list of objects: an item is `OH_X_0='{...}'` or `OH_X_0_<FIELD>`, the latter over the former
* object: `OH_X='{...}'`

A variable that does not begin with `OH_` belongs to others too, so blank it counts as unset; so does a blank variable
of a setting that has two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from service.settings import Settings
from service.settings.errors import Location, SettingsError, json_path, kind_of
from service.settings.values import Named, parse_flag

_ABSENT: Any = object()


class Shape(NamedTuple):
    """What the forms of a value depend on. `item` and `model` exclude each other."""

    annotation: Any
    """The bare type, without `Annotated` and `| None`."""
    is_optional: bool
    item: Any
    """The item type of a list, else None."""
    model: type[BaseModel] | None

    @property
    def is_object(self) -> bool:
        return get_origin(self.annotation) is dict


def shape_of(annotation: Any) -> Shape:
    """The shape of a field's annotation; a union of two types or more is a scalar."""
    bare, is_optional = annotation, False
    while (origin := get_origin(bare)) in (Annotated, Union, UnionType):
        arms = get_args(bare)[:1] if origin is Annotated else get_args(bare)
        kept = [arm for arm in arms if arm is not NoneType]
        is_optional = is_optional or len(kept) < len(arms)
        if len(kept) > 1:
            return Shape(bare, is_optional, None, None)
        bare = kept[0]
    item = get_args(bare)[0] if get_origin(bare) in (tuple, list) else None
    model = bare if isinstance(bare, type) and issubclass(bare, BaseModel) else None
    return Shape(bare, is_optional, item, model)


def environment_names(field_name: str, field: FieldInfo) -> tuple[str, ...]:
    """The variables a setting is read from; the first that is set wins."""
    for mark in field.metadata:
        if isinstance(mark, Named):
            return mark.names
    return (f"OH_{field_name.upper()}",)


class EnvironmentSource:
    """Raw values of the settings found in `environ`, with the variable that each came from."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._variables: dict[Location, str] = {}
        self.unreachable: list[tuple[str, int]] = []
        """Variables of list items after a gap or past the end, which nothing reads, each with its list's length."""

    def read(self) -> dict[str, Any]:
        """Raises SettingsError: JSON is missing where only JSON can stand, or a list is shorter than announced."""
        found = {name: self._read_setting(name, field) for name, field in Settings.model_fields.items()}
        return {name: value for name, value in found.items() if value is not _ABSENT}

    def name(self, location: Location) -> tuple[str, str]:
        """The variable behind a location, with a JSON path if the value is inside one; no remark."""
        for end in range(len(location), 0, -1):
            if (variable := self._variables.get(location[:end])) is not None:
                rest = json_path(location[end:])
                separator = "" if rest == "" or rest.startswith("[") else "."
                return f"{variable}{separator}{rest}", ""
        return "_".join(["OH", *(str(part).upper() for part in location)]), ""

    def _read_setting(self, name: str, field: FieldInfo) -> Any:
        variables = environment_names(name, field)
        for variable in variables:
            is_shared = len(variables) > 1 or not variable.startswith("OH_")
            if is_shared and self._environ.get(variable) is not None and not self._environ[variable].strip():
                continue
            value = self._read(variable, field.annotation, (name,))
            if value is not _ABSENT:
                return value
        return _ABSENT

    def _read(self, variable: str, annotation: Any, location: Location) -> Any:
        shape = shape_of(annotation)
        if shape.is_optional and self._says_none(f"{variable}_IS_NONE"):
            return None
        if shape.item is not None:
            return self._read_list(variable, shape.item, location)
        if shape.model is not None:
            return self._read_model(variable, shape.model, location)
        if variable not in self._environ:
            return _ABSENT
        self._variables[location] = variable
        if shape.is_object:
            return self._json(variable, "object", dict)
        return self._environ[variable]

    def _says_none(self, variable: str) -> bool:
        try:
            return parse_flag(self._environ.get(variable, ""))
        except ValueError as error:
            raise SettingsError(variable, str(error)) from None

    def _read_list(self, variable: str, item: Any, location: Location) -> Any:
        if variable not in self._environ:
            items = self._items_up_to_gap(variable, item, location)
            self._note_unreachable(variable, len(items))
            return items or _ABSENT
        given = self._json(variable, "list", list, int)
        if isinstance(given, int):
            items = self._announced_items(variable, given, item, location)
        else:
            self._variables[location] = variable
            items = [self._replaced(variable, index, old, item, location) for index, old in enumerate(given)]
        self._note_unreachable(variable, len(items))
        return items

    def _items_up_to_gap(self, variable: str, item: Any, location: Location) -> list[Any]:
        items: list[Any] = []
        while (value := self._read_item(variable, len(items), item, location)) is not _ABSENT:
            items.append(value)
        return items

    def _announced_items(self, variable: str, count: int, item: Any, location: Location) -> list[Any]:
        if count < 0:
            raise SettingsError(variable, f"expected a JSON list or a number of items, got {count}")
        items: list[Any] = []
        for index in range(count):
            value = self._read_item(variable, index, item, location)
            if value is _ABSENT:
                raise SettingsError(f"{variable}_{index}", f"is missing, and {variable} announces {count} items")
            items.append(value)
        return items

    def _replaced(self, variable: str, index: int, old: Any, item: Any, location: Location) -> Any:
        """A JSON list's item, or what stands in the variable of its index; single fields of an object go over it."""
        new = self._read_item(variable, index, item, location)
        if new is _ABSENT:
            return old
        is_partial = isinstance(old, dict) and isinstance(new, dict) and f"{variable}_{index}" not in self._environ
        return {**old, **new} if is_partial else new

    def _read_item(self, variable: str, index: int, item: Any, location: Location) -> Any:
        return self._read(f"{variable}_{index}", item, (*location, index))

    def _read_model(self, variable: str, model: type[BaseModel], location: Location) -> Any:
        if not any(name == variable or name.startswith(f"{variable}_") for name in self._environ):
            return _ABSENT
        values: dict[str, Any] = {}
        if variable in self._environ:
            self._variables[location] = variable
            values = self._json(variable, "object", dict)
        for name, field in model.model_fields.items():
            value = self._read(f"{variable}_{name.upper()}", field.annotation, (*location, name))
            if value is not _ABSENT:
                values[name] = value
        return values

    def _json(self, variable: str, kind: str, *types: type) -> Any:
        """The JSON in a variable. The text is not quoted in an error, for it may hold keys."""
        try:
            value = json.loads(self._environ[variable])
        except ValueError:
            raise SettingsError(variable, f"expected a JSON {kind}, got text that is not JSON") from None
        if type(value) not in types:
            raise SettingsError(variable, f"expected a JSON {kind}, got {kind_of(value)}")
        return value

    def _note_unreachable(self, variable: str, count: int) -> None:
        index = re.compile(rf"{re.escape(variable)}_(\d+)(?:_.*)?")
        for name in sorted(self._environ):
            found = index.fullmatch(name)
            if found is not None and int(found[1]) >= count:
                self.unreachable.append((name, count))
