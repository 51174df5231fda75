"""One object per process for equal arguments: tools that are configured one by one share their models and stores."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from threading import RLock
from typing import Any, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")

_made: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()
_lock = RLock()  # what is made may share parts of its own


def shared(make: Callable[..., T], **arguments: Any) -> T:
    """Give what ``make`` made of equal arguments before, as long as somebody still uses it, else make it.

    Args:
        make: a class or a function; gives an object that weak references can name.
        arguments: texts, numbers, ``None``, and lists and mappings of them.

    Raises:
        TypeError: if an argument is none of these.

    Example:
        >>> from collections import UserDict
        >>> store = shared(UserDict, size=3)
        >>> shared(UserDict, size=3) is store, shared(UserDict, size=4) is store
        (True, False)
    """
    key = make, _fixed(arguments)
    with _lock:
        found = _made.get(key)
        if found is None:
            found = _made[key] = make(**arguments)
        return found


def _fixed(value: Any) -> Hashable:
    """Turn containers, also those of a configuration, into what can be a key; types are told apart: 1 is not True."""
    if isinstance(value, Mapping):
        return frozenset((str(name), _fixed(item)) for name, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_fixed(item) for item in value)
    if value is not None and not isinstance(value, str | int | float):
        raise TypeError(f"`shared` takes texts, numbers, lists and mappings, got {value!r} ({type(value).__name__}).")
    return type(value).__name__, value
