"""Is a setting's value allowed? One line says which are, where it is not.

between("top_p", 1.5, 0, 1)            # UserError: top_p=1.5 must lie between 0 and 1.
"""

from __future__ import annotations

from numbers import Integral, Real

from .errors import UserError


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a value that is not on the list."""
    if value not in allowed:
        raise UserError(f"{name}={value!r} is not one of: {', '.join(allowed)}.")


def between(name: str, value: float, low: float, high: float) -> None:
    """Refuse what is no number, and a number outside [low, high]."""
    if not isinstance(value, Real) or not low <= value <= high:
        raise UserError(f"{name}={value!r} must lie between {low} and {high}.")


def at_least(name: str, value: int, low: int) -> None:
    """Refuse what is no whole number, and one below `low`."""
    if not isinstance(value, Integral) or value < low:
        raise UserError(f"{name}={value!r} must be at least {low}, as a whole number.")
