"""What notebooks ask of an object; how it is drawn is loaded when one does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fallline._formula.rule import Link

__all__ = ["Drawn"]


class Drawn:
    """What notebooks draw as formulas with their settings."""

    def _sections(self) -> list[tuple[str, Link]]:
        """The rules in it with their settings, each with a title if there are several."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        from fallline._formula.notation.display import as_html

        return as_html(repr(self), self._sections())

    def _repr_latex_(self) -> str | None:
        from fallline._formula.notation.display import as_latex

        return as_latex(self._sections())
