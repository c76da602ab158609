import hashlib
from pathlib import Path

import pytest

from cellwright import DataError
from cellwright.tasks.data.columns import label_column
from cellwright.tasks.data.tables import Table, numbers


def table(folder: Path, text: str | bytes, name: str = "a.csv") -> Table:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return Table(path)


def test_quotes_and_line_ends(tmp_path: Path) -> None:
    found = table(tmp_path, '\ufefftext,label\r\n"two\nlines, ""quoted""",x\r\n\r\nlast,y\r\n')
    assert found.columns == ("text", "label")
    assert list(found.rows()) == [(2, ['two\nlines, "quoted"', "x"]), (5, ["last", "y"])]


def test_quotes_of_a_tsv_are_often_only_quotes(tmp_path: Path) -> None:
    """A sentence that begins with a quotation must not swallow the lines after it."""
    rows = ['"Yes," he said\ta', '"no\tb', 'x "y" z\tc', '"with ""two"" and\ta tab"\td', '"q"\te"', "last\tf"]
    found = table(tmp_path, "text\tlabel\r\n" + "\r\n".join(rows) + "\r\n", "a.tsv")
    assert list(found.rows()) == [
        (2, ['"Yes," he said', "a"]),
        (3, ['"no', "b"]),
        (4, ['x "y" z', "c"]),
        (5, ['with "two" and\ta tab', "d"]),
        (6, ["q", 'e"']),
        (7, ["last", "f"]),
    ]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_csv_may_have_other_separators(tmp_path: Path, separator: str) -> None:
    found = table(tmp_path, "text,label\nx,1,5\n".replace(",", separator, 2).replace("1,5", f'"1{separator}5"'))
    assert found.columns == ("text", "label")
    assert list(found.rows()) == [(2, ["x", f"1{separator}5"])]
    commas = table(tmp_path, "text,label\na;b,c\n")
    assert list(commas.rows()) == [(2, ["a;b", "c"])]
    one = table(tmp_path, "text\na;b\n")
    assert list(one.rows()) == [(2, ["a;b"])]


@pytest.mark.parametrize(
    ("text", "columns", "row"),
    [
        ("day;Temp, C\n1.1.;1,5\n2.1.;2,5\n", ("day", "Temp, C"), (2, ["1.1.", "1,5"])),
        ("sep=;\na,b;c\nx,y;z\n", ("a,b", "c"), (3, ["x,y", "z"])),
        ('"sep=\t"\na\tb\n1;2\tx\n', ("a", "b"), (3, ["1;2", "x"])),
        ("\n \ntext;label, final\nx;y\n", ("text", "label, final"), (4, ["x", "y"])),
        ("text , label\nx, y\n", ("text", "label"), (2, ["x", " y"])),
        ('text,label\n"a;\nb;c",y\n"d;e",z\n', ("text", "label"), (2, ["a;\nb;c", "y"])),
    ],
)
def test_several_lines_say_what_separates(
    tmp_path: Path, text: str, columns: tuple[str, ...], row: tuple[int, list[str]]
) -> None:
    found = table(tmp_path, text)
    assert found.columns == columns
    assert next(found.rows()) == row


def test_numbers_of_columns_say_that_there_are_no_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("good,a\nbad,b\n")
    bare = Table(tmp_path / "a.csv", asked=("1", "2"))
    assert (bare.header, bare.columns, list(bare.rows())) == (
        False,
        ("1", "2"),
        [(1, ["good", "a"]), (2, ["bad", "b"])],
    )
    assert Table(tmp_path / "a.csv", asked=("good", "2")).columns == ("good", "a")
    (tmp_path / "b.csv").write_text("2,x\nbad,b\n")
    assert Table(tmp_path / "b.csv", asked=("", "2")).columns == ("2", "x")
    assert Table(tmp_path / "b.csv", asked=("1", "2")).columns == ("1", "2")
    (tmp_path / "c.csv").write_text("kind,0,1\na,5,6\n")
    assert Table(tmp_path / "c.csv", asked=("kind",)).columns == ("kind", "0", "1")
    assert not Table(tmp_path / "c.csv").header


def test_a_table_without_names(tmp_path: Path) -> None:
    found = table(tmp_path, "1\t0.5\t-3\n2\t1e3\t4\n", "a.tsv")
    assert (found.header, found.columns) == (False, ("1", "2", "3"))
    assert found.peek() == [["1", "0.5", "-3"]]
    assert found.peek(9) == [["1", "0.5", "-3"], ["2", "1e3", "4"]]
    assert list(found.rows()) == [(1, ["1", "0.5", "-3"]), (2, ["2", "1e3", "4"])]


def test_json_lines(tmp_path: Path) -> None:
    found = table(tmp_path, '{"text": "ä", "label": 3}\n\n{"label": "b", "more": 1}\n', "a.jsonl")
    assert found.columns == ("text", "label")
    assert list(found.rows()) == [(1, ["ä", "3"]), (3, ["", "b"])]


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,x\n")
    digest = hashlib.sha256()
    list(Table(path, digest).rows())
    assert digest.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "", ("is empty",)),
        ("a.csv", "a,b\n1,2,3\n", ("row 2 has 3 columns, expected 2",)),
        ("a.csv", "a,b\n1\n", ("row 2 has 1 columns",)),
        ("a.csv", "a,a\nx,y\n", ("column 'a' twice",)),
        ("a.csv", 'a,b\n"x,y\n', ("row 2", "quotes")),
        ("a.csv", "a,b\rx,1\r", ("row 1", "carriage return alone", "convert")),
        ("a.csv", b"a,b\nx,\xe9\n", ("line 2 is not UTF-8", "0xe9", "iconv")),
        ("a.csv", "text,label\n".encode("utf-16"), ("is UTF-16", "iconv -f utf-16 -t utf-8")),
        ("a.csv", b"\xfe\xff" + "a,b\n".encode("utf-16-be"), ("is UTF-16",)),
        ("a.csv", b"a,b\nx,\0\n", ("line 2 has a NUL byte",)),
        ("a.jsonl", '{"a": 1}\n{"a": \n', ("row 2 is not JSON",)),
        ("a.jsonl", "[1]\n", ("row 1 is a list",)),
        ("a.jsonl", '{"a": [1]}\n', ("row 1, column 'a' is a list",)),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, name: str, text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        list(table(tmp_path, text, name).rows())
    assert str(tmp_path / name) in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


def test_numbers_name_column_and_row() -> None:
    assert numbers(["1", "-2e3"], "ab", "f, row 2", False).tolist() == [1, -2000]
    missing = numbers(["1", "", "NaN", "?"], "abcd", "f, row 2", True)
    assert missing[0] == 1
    assert all(value != value for value in missing[1:])
    for cells, word in ((["1", "x"], "'b' is 'x', expected a number"), (["1", ""], "'b' has no value")):
        with pytest.raises(DataError, match=f"f, row 2, column {word}"):
            numbers(cells, "ab", "f, row 2", False)
    for cell in ("inf", "-inf", "1e999", "1e39", "-3.5e38"):
        with pytest.raises(DataError, match=f"'b' is '{cell}', expected a finite number up to 3.4e\\+38"):
            numbers(["", cell], "ab", "f, row 2", True)


def test_the_label_is_found_or_asked_for(tmp_path: Path) -> None:
    assert label_column(table(tmp_path, "x,label,y\na,b,c\n"), "") == "label"
    assert label_column(table(tmp_path, "x,phase,y\n1,rest,\n"), "") == "phase"
    assert label_column(table(tmp_path, "x,phase\n1,2\n"), "phase") == "phase"
    for wanted, word in (("", "2 columns that are no numbers"), ("z", "no column 'z' with the label")):
        with pytest.raises(DataError, match=word):
            label_column(table(tmp_path, "x,y\na,b\n"), wanted)
