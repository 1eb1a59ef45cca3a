"""The highest number that each counted table has ever given, so that none is given again.

Knows where SQLite and PostgreSQL keep it. Invariant: a number that was given, also one whose row is gone, is not above
what is told here.
"""

from collections.abc import Mapping

from sqlalchemy import Column, Connection, Table, func, select, text

from app.store.schema import metadata


def highest_given(connection: Connection) -> dict[str, int]:
    """By the names of the tables; 0: none was ever given."""
    return {table.name: _highest(connection, table, column) for table, column in _counted()}


def give_only_above(connection: Connection, highest: Mapping[str, int]) -> None:
    """From now on each table gives higher numbers than `highest`, and than it has given before.

    Under PostgreSQL for good, also if the transaction is rolled back: its counters know no transactions.
    """
    for table, column in _counted():
        wanted = max(highest[table.name], _highest(connection, table, column))
        if wanted > 0:
            _set(connection, table, column, wanted)


def _counted() -> list[tuple[Table, Column[int]]]:
    tables = metadata.sorted_tables
    return [(table, column) for table in tables if (column := table.autoincrement_column) is not None]


def _highest(connection: Connection, table: Table, column: Column[int]) -> int:
    """The row with the highest number counts too: who wrote it by hand may not have counted it."""
    of_rows = connection.execute(select(func.max(column))).scalar() or 0
    if connection.dialect.name == "sqlite":
        given = text("SELECT seq FROM sqlite_sequence WHERE name = :table").bindparams(table=table.name)
        counted = connection.execute(given).scalar() or 0
    else:
        sequence = _sequence(connection, table, column)
        given = text(f"SELECT last_value - CASE WHEN is_called THEN 0 ELSE 1 END FROM {sequence}")  # noqa: S608
        counted = connection.execute(given).scalar_one()
    return max(int(of_rows), int(counted))


def _set(connection: Connection, table: Table, column: Column[int], highest: int) -> None:
    if connection.dialect.name != "sqlite":
        connection.execute(select(func.setval(_sequence(connection, table, column), highest, True)))
        return
    values = {"table": table.name, "highest": highest}
    counted = text("UPDATE sqlite_sequence SET seq = :highest WHERE name = :table")
    if connection.execute(counted, values).rowcount == 0:
        connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :highest)"), values)


def _sequence(connection: Connection, table: Table, column: Column[int]) -> str:
    """The name of PostgreSQL's counter, quoted as it must be."""
    return str(connection.execute(select(func.pg_get_serial_sequence(table.name, column.name))).scalar_one())
