"""The index of claims: what `bridge.claims` says, folded, in SQLite; rebuilt at every start.

Never the truth: a claim is acted on only when it has been read back from the log, and what the index
says of it then is right only as long as it has taken all that came before. So an index that could
not take something (a full disk) is of no use any more: `reset`, and the log is read again. Used in
the event loop: a look takes microseconds, and a batch of the log one transaction.
"""

import sqlite3
import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from bridge.claims import Entry, Ruling, fold

_TABLE = """
CREATE TABLE claims (
  key TEXT PRIMARY KEY, request_id TEXT, lane INTEGER, fingerprint TEXT,
  time_ms INTEGER, rules_ms INTEGER,
  heal_id TEXT, heal_ms INTEGER, heal_rules_ms INTEGER, is_written INTEGER,
  until_ms INTEGER
) WITHOUT ROWID;
CREATE INDEX by_end ON claims (until_ms);
CREATE INDEX by_heal ON claims (request_id) WHERE heal_ms >= 0;
"""
_FIND = """
SELECT key, request_id, lane, fingerprint, time_ms, rules_ms,
       heal_id, heal_ms, heal_rules_ms, is_written
FROM claims WHERE key = ?
"""
_PUT = "INSERT OR REPLACE INTO claims VALUES (?,?,?,?,?,?,?,?,?,?,?)"
_HEALED = "SELECT max(heal_ms) FROM claims WHERE request_id = ? AND heal_ms >= 0"
_PRUNE = "DELETE FROM claims WHERE key IN (SELECT key FROM claims WHERE until_ms <= ? LIMIT 1000)"


class Index:
    """Rulings by claim key.

    Args:
        folder: Where its file goes; None: it is kept in memory. The file has no name, so it ends
            with the process, however that ends.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._database = _open(folder)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, key: str) -> Ruling | None:
        """Return what the log says of a key, as far as it has been taken."""
        row = self._database.execute(_FIND, (key,)).fetchone()
        if row is None:
            return None
        key, request_id, lane, fingerprint, time_ms, rules_ms, heal_id, heal_ms, *rest = row
        return Ruling(
            key=key,
            request_id=request_id,
            lane=lane,
            fingerprint=fingerprint,
            time_ms=time_ms,
            rules_ms=rules_ms,
            heal_id=heal_id,
            heal_ms=heal_ms,
            heal_rules_ms=rest[0],
            is_written=bool(rest[1]),
        )

    def healed_ms(self, request_id: str) -> int | None:
        """Return when a request was last written again, Unix milliseconds; None: never."""
        (found,) = self._database.execute(_HEALED, (request_id,)).fetchone()
        return None if found is None else int(found)

    def take(self, entries: Iterable[Entry], *, read_to_ms: int = 0) -> None:
        """Fold records in, in log order; a record that is told twice changes nothing.

        Args:
            entries: In log order per key.
            read_to_ms: Up to here every partition has been read; claims that ended before are
                forgotten. Earlier, and a loser still to be read would pass for the winner.

        Raises:
            sqlite3.Error: Some or all of it was not taken; nothing that is found later is sure.
        """
        self._database.execute("BEGIN")
        for entry in entries:
            before = self.find(entry.key)
            after = fold(before, entry)
            if after is not None and after is not before:
                self._put(after)
                self._count += before is None
        ended = self._database.execute(_PRUNE, (read_to_ms,))
        self._count -= ended.rowcount
        self._database.execute("COMMIT")

    def reset(self) -> None:
        """Begin anew, with nothing known.

        Raises:
            sqlite3.Error, OSError: The folder cannot be written to; the index is empty, in memory.
        """
        self._swap(None)  # whatever the disk says: what is in the old file may be torn
        if self._folder is not None:
            self._swap(self._folder)

    def _swap(self, folder: Path | None) -> None:
        database = _open(folder)
        self._database.close()
        self._database, self._count = database, 0

    def close(self) -> None:
        """Forget everything."""
        self._database.close()

    def _put(self, ruling: Ruling) -> None:
        row = (
            *(ruling.key, ruling.request_id, ruling.lane, ruling.fingerprint),
            *(ruling.time_ms, ruling.rules_ms),
            *(ruling.heal_id, ruling.heal_ms, ruling.heal_rules_ms, ruling.is_written),
            ruling.until_ms,
        )
        self._database.execute(_PUT, row)


def _open(folder: Path | None) -> sqlite3.Connection:
    database = (
        sqlite3.connect(":memory:", isolation_level=None) if folder is None else _file(folder)
    )
    try:
        database.executescript(_TABLE)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _file(folder: Path) -> sqlite3.Connection:
    with closing(tempfile.NamedTemporaryFile(dir=folder, prefix="claims-")) as file:
        database = sqlite3.connect(file.name, isolation_level=None)
        # Nothing is to survive a crash: no journal, no waiting for the disk.
        database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = MEMORY;"
            "CREATE TABLE opened (x)"  # the file is opened by its name before that is gone
        )
    return database
