"""Settings that check themselves: a frozen dataclass whose values fit their annotations, or one line on the first that
does not.

    @validated
    class Settings:
        top_p: PositiveShare = 0.9

    Settings(top_p=1.5)     # UserError: top_p=1.5: Input should be less than or equal to 1.
"""

from __future__ import annotations

from functools import wraps
from typing import Annotated, Any, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from .errors import UserError

Kind = TypeVar("Kind")

Count = Annotated[int, Field(ge=1)]
Number = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what scikit-learn takes
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Portion = Annotated[float, Field(ge=0.01, le=0.9)]  # leaves something on either side
Rate = Annotated[float, Field(ge=0, lt=1)]
Similarity = Annotated[float, Field(ge=50, le=100)]  # rapidfuzz's ratio
Temperature = Annotated[float, Field(ge=1e-3, le=10)]
Inverse = Annotated[float, Field(ge=1e-6, le=1e6)]  # of a regularisation


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def validated(cls: type[Kind]) -> type[Kind]:
    """A frozen pydantic dataclass that raises UserError; a number may be given as text, a path as a string."""
    checked: Any = dataclass(frozen=True, config=ConfigDict(allow_inf_nan=False))(cls)
    create = checked.__init__

    @wraps(create)
    def create_or_explain(self: Kind, *args: Any, **values: Any) -> None:
        try:
            create(self, *args, **values)
        except ValidationError as error:
            raise UserError(_first_line(error)) from None

    checked.__init__ = create_or_explain
    return cast(type[Kind], checked)


def _first_line(error: ValidationError) -> str:
    found = error.errors()[0]
    name = ".".join(map(str, found["loc"]))
    return f"{name}={found['input']!r}: {found['msg']}."
