"""Command lines of programs that use gflags: -flag value, -flag=value, --flag, -noflag."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ocr_serving.errors import ConfigError

_TRUE = ("true", "t", "yes", "y", "1")
_FALSE = ("false", "f", "no", "n", "0")


def parse(arguments: Sequence[str], switches: Collection[str], values: Collection[str]) -> dict[str, str]:
    """Flag -> value, as text; of a flag that comes twice, the last counts, as in gflags.

    Args:
        arguments: the command line without the program.
        switches: flags that are on or off; they take a value after = only.
        values: flags that always take a value. Of any other flag, the next argument is the value if it is no flag.

    Raises:
        ConfigError: an argument that is no flag, or a flag without its value.
    """
    found: dict[str, str] = {}
    pending = list(reversed(arguments))
    while pending:
        argument = pending.pop()
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or not name:
            raise ConfigError(f"{argument!r} is no flag; write -port 9393 or -port=9393.")
        if not equals:
            if name.startswith("no") and name[2:] in switches:
                name, value = name[2:], _FALSE[0]
            elif name in switches:
                value = _TRUE[0]
            elif name in values and not pending:
                raise ConfigError(f"-{name} needs a value.")
            elif pending and (name in values or not pending[-1].startswith("-")):
                value = pending.pop()
        found[name] = value
    return found


def switch(name: str, text: str) -> bool:
    """The value of a flag that is on or off.

    Raises:
        ConfigError: it is neither.
    """
    if text.lower() not in (*_TRUE, *_FALSE):
        raise ConfigError(f"-{name} is true or false, not {text!r}.")
    return text.lower() in _TRUE


def number(name: str, text: str) -> int:
    """The value of a flag that is a whole number.

    Raises:
        ConfigError: it is none.
    """
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"-{name} takes a whole number, not {text!r}.") from error
