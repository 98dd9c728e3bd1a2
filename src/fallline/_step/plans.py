"""The plans that are kept, and forgotten when what they were made for holds no longer."""

from __future__ import annotations

from typing import Any

__all__ = ["Plans"]


class Plans:
    """The plans of calls, by what they depend on, and the quick looks that go with them."""

    def __init__(self) -> None:
        self.made: dict[Any, Any] = {}
        self.looks: dict[Any, Any] = {}

    def clear(self) -> None:
        """Forget all, as what they were made for holds no longer."""
        self.made.clear()
        self.looks.clear()

    def keep_apart(self) -> None:
        """Forget those in which leaves share what depends on the steps that they took."""
        self.made = {way: plan for way, plan in self.made.items() if way.apart}
        self.looks = {key: look for key, look in self.looks.items() if look.plan.way.apart}

    def revalue(self) -> None:
        """Have all take settings that are numbers as they are now."""
        for plan in self.made.values():
            plan.revalue()
