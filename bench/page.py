"""Puts the tables of `bench/results` into docs/performance.md, between the marks `<!-- part -->` and `<!-- end -->`."""

from __future__ import annotations

import json
import re

from bench.__main__ import RESULTS
from bench.tables import as_tables
from tests.server_process import REPOSITORY

PAGE = REPOSITORY / "docs" / "performance.md"
_TABLE = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def renewed(page: str) -> str:
    """The page with today's tables."""

    def table(found: re.Match[str]) -> str:
        result = json.loads((RESULTS / f"{found[2]}.json").read_text("utf-8"))
        return f"{found[1]}\n{as_tables(found[2], result['figures'])}\n{found[3]}"

    return _TABLE.sub(table, page)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text("utf-8")), "utf-8")
