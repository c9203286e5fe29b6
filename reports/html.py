"""HTML from templates, in which everything is escaped."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from reports.table import Table


@lru_cache(maxsize=1)
def environment() -> Any:
    """The templates; everything put into them is escaped."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_html_table(table: Table) -> str:
    """The table as an HTML fragment, everything escaped."""
    return str(environment().get_template("table.html.jinja").render(table=table))
