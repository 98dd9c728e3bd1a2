"""The plans that are kept, and forgotten when what they were made for holds no longer."""

from __future__ import annotations

from typing import Any

__all__ = ["Plans"]


class Plans:
    """The plans of calls, by what they depend on, and the quick looks that go with them."""

    def __init__(self) -> None:
        self.made: dict[Any, Any] = {}
        self.looks: dict[Any, Any] = {}
        self.at_once: dict[Any, Any] = {}  # of looks that take a step by one native call, what takes it

    def clear(self) -> None:
        """Forget all, as what they were made for holds no longer."""
        self.made.clear()
        self.look_anew()

    def look_anew(self) -> None:
        """Forget the looks, as something no longer lies where it lay."""
        self.looks.clear()
        self.at_once.clear()

    def put(self, look: Any) -> None:
        """Keep a look at the next call like that one."""
        self.looks[look.plan.way[:3]] = look
        if look.is_atomic:
            self.at_once[look.plan.way[:2]] = look.take

    def pop(self, way: Any) -> Any:
        """Take out the look at calls like that one, if there is one."""
        self.at_once.pop(way[:2], None)
        return self.looks.pop(way[:3], None)

    def keep_apart(self) -> None:
        """Forget those in which leaves share what depends on the steps that they took."""
        self.made = {way: plan for way, plan in self.made.items() if way.apart}
        for plan in [look.plan for look in self.looks.values() if not look.plan.way.apart]:
            self.pop(plan.way)

    def revalue(self) -> None:
        """Have all take settings that are numbers as they are now."""
        for plan in self.made.values():
            plan.revalue()
