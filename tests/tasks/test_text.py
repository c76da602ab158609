import hashlib
import os
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwright import DataError
from cellwright.tasks.charlm import text as module
from cellwright.tasks.charlm.streams import stored
from cellwright.tasks.charlm.text import Corpus, read
from cellwright.tasks.data import ragged
from cellwright.tasks.data.tokens import vocabulary_of


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
        ("utf-16".encode("utf-16"), ("is UTF-16", "iconv -f utf-16 -t utf-8")),
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


TEXTS = st.text(st.sampled_from("ab \r\n\ufeffäß日😀"), max_size=40)


@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(1, 9), st.data())
def test_pieces_of_any_size_are_the_same_text(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], size: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("texts")
    names = [folder / str(n) for n in range(len(texts))]
    for name, text in zip(names, texts, strict=True):
        name.write_bytes(text.encode())
    filled = [text for text in (text.removeprefix("\ufeff") for text in texts) if text]
    whole = "".join(text if text.endswith("\n") else text + "\n" for text in filled[:-1]) + "".join(filled[-1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PIECE", size)
        if not whole:
            with pytest.raises(DataError, match="the text is empty"):
                read(names)
            return
        corpus = read(names)
    assert text_of(corpus) == whole
    assert corpus.utf8.tobytes() == whole.encode()
    assert corpus.summary == {
        "sha256": hashlib.sha256(whole.encode()).hexdigest(),
        "characters": len(whole),
        "files": len(texts),
    }
    start, stop = (data.draw(st.integers(0, len(whole) + 1)) for _ in "ab")
    assert "".join(corpus.pieces(start, stop)) == whole[start:stop]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"abcde\xe9fgh", "byte 0xe9 at offset 5"),
        (b"abcd\xc3", r"byte 0xc3 at offset 4 \(unexpected end of data\)"),
        ("abc日".encode()[:-1] + b"x", "byte 0xe6 at offset 3"),
        (b"abcd\0", "NUL byte at offset 4"),
        (b"\xff\xfda\0b\0", "NUL byte at offset 3"),  # not UTF-8 from the first byte on, and binary
    ],
)
def test_an_offset_is_that_in_the_file(
    tmp_path: Path, data: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PIECE", 3)
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DataError, match=words):
        read([tmp_path / "x"])
    # in a folder it is left out as a whole
    (tmp_path / "y").write_text("good")
    corpus = read([tmp_path])
    assert text_of(corpus) == "good" and sum(corpus.skipped.values()) == 1 and corpus.files == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are of Unix")
def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(("ä\n" * 50_000).encode()))
    writer.start()
    corpus = read([pipe])
    writer.join()
    assert text_of(corpus) == "ä\n" * 50_000


@pytest.mark.parametrize("level", ["char", "byte", "word", "bpe"])
def test_memory_holds_a_piece_of_the_text(tmp_path: Path, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the file to ids on the disk, with their vocabulary."""
    monkeypatch.setattr(module, "_PIECE", 2**12)
    monkeypatch.setattr(ragged, "_BUFFER", 2**12)
    (tmp_path / "x").write_text("".join(f"word{n % 97} über\n" for n in range(50_000)))
    size = (tmp_path / "x").stat().st_size
    tracemalloc.start()
    try:
        corpus = read([tmp_path / "x"])
        vocabulary = vocabulary_of(corpus.pieces(), level, 300 if level == "bpe" else None)
        ids = stored(vocabulary, [corpus.pieces()])[0]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 400_000 < size / 1.5  # with the whole text in memory it is more than three times its size
    assert vocabulary.decode(ids[-30:]).endswith("über\n")
