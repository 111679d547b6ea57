"""What the control API is given, checked by pydantic."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import ControlError

Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], values: dict[str, Any]) -> Model:
    """``values`` as ``model``; raises ControlError that names what is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        mistakes = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ControlError("; ".join(mistakes).removeprefix(": ")) from None
