"""Which tables SQL reads: DuckDB's parser sees what a pattern over words does not."""

import duckdb
import pytest

from timtrack.tasks.tables.catalogue import catalogue
from timtrack.tasks.tables.database import INPUTS
from timtrack.tasks.tables.selected import tables_read


@pytest.mark.parametrize(
    ("sql", "read"),
    [
        ("select * from a -- from b", {"a"}),
        ("select 'from b' as text from a", {"a"}),
        ("with own as (from a) select * from own join b using (x)", {"a", "b"}),
        ("from a, b", {"a", "b"}),
        ("select * from (unpivot a on x, y)", {"a"}),
        ("select (select max(x) from b) from a semi join c using (x)", {"a", "b", "c"}),
        ("select extract(year from day) from a", {"a"}),
    ],
)
def test_tables_are_those_that_are_read(sql, read):
    assert tables_read(sql) == read


def test_what_is_no_select_is_refused():
    with pytest.raises(duckdb.ParserException):
        tables_read("selec 1")


def test_every_table_of_ours_reads_only_what_there_is():
    known = catalogue().keys() | INPUTS.keys()
    for table in catalogue().values():
        assert table.sources, table.name
        assert table.sources <= known, table.name
