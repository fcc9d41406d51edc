"""Tables as people have them: from a spreadsheet with a byte-order mark, semicolons or tabs, and any line ends."""

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path

from fusionrepro.errors import DataError, typed
from fusionrepro.files import check_regular

__all__ = ["read_rows"]


@typed
def read_rows(path: str | Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The line number and the cells of every row by column name, lower case, without blanks around; empty rows are left out.

    Raises
    ------
    DataError
        when the file cannot be read as a table of text.
    """
    path = Path(path)
    check_regular(path)
    try:
        raw = path.read_bytes()
        wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; save the table as CSV in UTF-8.") from None
    except OSError as e:
        raise DataError(f"{path} cannot be read ({e.strerror or e}).") from e
    head = text.lstrip("\r\n").splitlines()[0] if text.strip() else ""
    delimiter = max(",;\t", key=head.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        names = None
        for cells in reader:
            cells = [c.strip() for c in cells]
            if not any(cells):
                continue
            if names is None:
                names = [c.lower() for c in cells]
                continue
            yield reader.line_num, dict(zip(names, cells + [""] * (len(names) - len(cells)), strict=False))
    except csv.Error as e:
        raise DataError(f"{path}, line {reader.line_num}: no row of a table ({e}).") from None
