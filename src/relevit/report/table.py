"""One table for a terminal, for Markdown and for a page."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from markupsafe import Markup, escape
from rich import box
from rich.table import Table as RichTable
from rich.text import Text

Kind = Literal["better", "worse", "open"]
Row = Sequence["Cell | str"]
_COLOURS: dict[str, str] = {"better": "blue", "worse": "yellow", "open": "dim"}


@dataclass(frozen=True)
class Cell:
    """One figure of a table, or the head of a column or a row.

    Attributes:
        text: the figure.
        best: it is set in bold.
        change: what it is compared with something else, such as "+2.1"; kind: whether that is settled.
        below: small lines beneath, such as the ends of its interval.
        title: what is shown on a page where the pointer rests; icon: what stands before it there.
        hidden: on a page, only readers of screens are told.
        classes: further classes of the cell on a page.
    """

    text: str = ""
    best: bool = False
    change: str = ""
    kind: Kind = "open"
    below: Sequence[str] = ()
    title: str = ""
    icon: Markup = field(default_factory=Markup)
    hidden: bool = False
    classes: str = ""

    def markdown(self) -> str:
        """ "**61.4** (60.1-62.7) +2.1"."""
        figure = f"**{self.text}**" if self.best else self.text
        below = [f"({line})" for line in self.below]
        return " ".join(filter(None, [figure, *below, self.change])).replace("|", "\\|")

    def terminal(self) -> Text:
        """The figure and its change, what is below in lines of its own."""
        cell = Text(self.text, style="bold" if self.best else "")
        if self.change:
            cell.append(f" {self.change}", style=f"not bold {_COLOURS[self.kind]}")
        for line in self.below:
            cell.append(f"\n{line}", style="not bold dim")
        return cell

    def html(self, tag: str = "td", scope: str = "") -> Markup:
        """The cell as an element; a figure that has something beside it is in a `span` of its own."""
        attributes = [
            f' {name}="{escape(value)}"'
            for name, value in (("scope", scope), ("class", self.classes), ("title", self.title))
            if value
        ]
        figure = escape(self.text)
        if self.hidden:
            figure = Markup('<span class="hidden">{}</span>').format(figure)
        elif self.icon:
            name = self.text.replace(" + ", "\u00a0+ ")  # a line may break behind the plus alone
            figure = Markup('<span class="name">{}<span>{}</span></span>').format(self.icon, name)
        elif self.best or (not scope and (self.change or self.below)):
            figure = Markup('<span class="mean{}">{}</span>').format(" best" if self.best else "", figure)
        change = Markup(' <span class="difference {}">{}</span>').format(self.kind, self.change) if self.change else ""
        below = Markup().join(Markup('<span class="range">{}</span>').format(line) for line in self.below)
        return Markup(f"<{tag}{''.join(attributes)}>{figure}{change}{below}</{tag}>")


@dataclass(frozen=True)
class Table:
    """Columns by their heads, and rows whose first cell is the row's head; text stands for a cell of its own.

    Attributes:
        title: above the table on a terminal, its name for readers of screens on a page.
        columns: the heads.
        rows: as many cells each; None is a rule between rows on a terminal.
        marked: numbers of rows that are set apart; on a page they are of the class `mark`.
        classes: of the table on a page.
        left: numbers of the columns of words, which are set to the left; figures are set to the right.
    """

    title: str
    columns: Row
    rows: Sequence[Row | None]
    marked: Iterable[int] = ()
    mark: str = "original"
    classes: str = ""
    left: Collection[int] = (0,)

    def turned(self) -> Table:
        """The same with rows as columns."""
        grid = list(zip(self.columns, *filter(None, self.rows), strict=True))
        return replace(self, columns=grid[0], rows=grid[1:])

    def markdown(self) -> str:
        """Figures to the right, heads of rows to the left."""
        lines = [[_cell(cell).markdown() for cell in row] for row in (self.columns, *filter(None, self.rows))]
        text = ["| " + " | ".join(cells) + " |" for cells in lines]
        return "\n".join([text[0], "| --- |" + " ---: |" * (len(self.columns) - 1), *text[1:]]) + "\n"

    def terminal(self) -> RichTable:
        """For `rich`, which prints the table by itself; rows are ruled where a cell has lines below, and heads without text
        are left out."""
        lines = any(_cell(cell).below for row in filter(None, self.rows) for cell in row)
        table = RichTable(
            title=Text(self.title) if self.title else None,
            title_justify="left",
            box=box.HORIZONTALS,
            show_header=any(self.columns),
            show_lines=lines,
            pad_edge=False,
        )
        for number, head in enumerate(map(_cell, self.columns)):
            text = Text("" if head.hidden else head.text)
            table.add_column(text, justify="left" if number in self.left else "right", overflow="fold")
        for number, row in enumerate(self.rows):
            if row is None:
                table.add_section()
                continue
            table.add_row(*(_cell(cell).terminal() for cell in row), style="dim" if number in set(self.marked) else "")
        return table

    __rich__ = terminal

    def html(self) -> Markup:
        """In a region of its own that can be scrolled."""
        heads = Markup().join(_cell(cell).html("th", "col") for cell in self.columns)
        rows = Markup("\n").join(
            Markup('<tr class="{}">').format(self.mark) * (number in set(self.marked))
            + Markup("<tr>") * (number not in set(self.marked))
            + _cell(row[0]).html("th", "row")
            + Markup().join(_cell(cell).html() for cell in row[1:])
            + Markup("</tr>")
            for number, row in enumerate(filter(None, self.rows))
        )
        classes = Markup(' class="{}"').format(self.classes) if self.classes else Markup()
        return Markup(
            '<div class="scroll" tabindex="0" role="region" aria-label="{}">\n<table{}>\n<thead><tr>{}</tr></thead>\n'
            "<tbody>\n{}\n</tbody>\n</table>\n</div>"
        ).format(self.title, classes, heads, rows)


def _cell(cell: Cell | str) -> Cell:
    return Cell(cell) if isinstance(cell, str) else cell
