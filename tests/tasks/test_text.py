import hashlib
import os
from pathlib import Path

import pytest

from cellwright import DataError
from cellwright.tasks.charlm.text import Corpus, read


def text_of(corpus: Corpus) -> str:
    """The whole of it."""
    return "".join(corpus.pieces())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Texts at two depths, and everything that must be left out."""
    for name, data in {
        "b.py": b"b\n",
        "a.txt": "ä".encode(),
        "sub/c.py": b"c",
        "sub/.hidden.py": b"hidden",
        ".git/d.py": b"git",
        "__pycache__/e.py": b"cache",
        "binary.py": b"x\0y",
        "latin.py": b"caf\xe9",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
    return tmp_path


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "dos.txt"
    file.write_bytes(b"one\r\ntwo\rthree\n\xf0\x9f\x98\x80")
    assert text_of(read([file])) == "one\r\ntwo\rthree\n😀"


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "bom.txt"
    file.write_bytes(b"\xef\xbb\xbfa\xef\xbb\xbfb")
    assert text_of(read([file])) == "a\ufeffb"


def test_files_are_joined_with_a_newline_where_one_is_missing(tmp_path: Path) -> None:
    names = []
    for i, text in enumerate(["one", "two\n", "", "three"]):
        names.append(tmp_path / f"{i}")
        names[-1].write_text(text)
    assert text_of(read(names)) == "one\ntwo\nthree"


def test_a_folder_is_its_visible_text_files_in_order(folder: Path) -> None:
    corpus = read([folder])
    assert text_of(corpus) == "ä\nb\nc"
    assert corpus.files == 3
    assert corpus.skipped == {"binary": 1, "not UTF-8": 1}
    assert corpus.note == "2 files skipped (1 binary, 1 not UTF-8)"


@pytest.mark.parametrize(
    ("glob", "text"), [("*.py", "b\nc"), ("**/*.py", "b\nc"), ("sub/*", "c"), ("a.*", "ä"), ("*", "ä\nb\nc")]
)
def test_glob_chooses_files_of_a_folder(folder: Path, glob: str, text: str) -> None:
    assert text_of(read([folder], glob)) == text


def test_paths_keep_their_order(folder: Path) -> None:
    assert text_of(read([folder / "sub", folder / "b.py"])) == "c\nb\n"


def test_the_digest_is_that_of_the_text(folder: Path) -> None:
    assert read([folder / "a.txt"]).digest == hashlib.sha256("ä".encode()).hexdigest()


def test_without_paths_it_is_the_standard_library() -> None:
    corpus = read([])
    assert len(text_of(corpus)) > 1_000_000
    assert Path(os.__file__).read_text(encoding="utf-8") in text_of(corpus)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"caf\xe9 au lait", ("not UTF-8", "0xe9", "offset 3", "iconv")),
        (b"abc\0def", ("NUL byte", "offset 3")),
        ("utf-16".encode("utf-16"), ("text.txt",)),
        (b"", ("empty", "0 characters")),
        (b"\xef\xbb\xbf", ("empty", "0 characters")),
    ],
)
def test_a_named_file_must_be_text(tmp_path: Path, data: bytes, words: tuple[str, ...]) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read([file])
    assert all(word in str(caught.value) for word in ("text.txt", *words))


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.txt does not exist"):
        read([tmp_path / "nothing.txt"])


def test_a_folder_without_a_match_says_what_it_skipped(folder: Path) -> None:
    with pytest.raises(DataError, match=r"no text file matches --glob '\*\.md'"):
        read([folder], "*.md")
    with pytest.raises(DataError, match=r"1 file skipped \(1 binary\)"):
        read([folder], "bin*")
