"""From a module's text to a function in memory, by way of a private cache of object files.

A file is named by the hash of everything that decides its content: what the kernel is made from, the code that writes
its text, processor, versions. So a kernel that is there costs no text: writing that takes ten times as long as loading.
It is written beside its place and renamed, so that processes that start at once, an interrupted write or a read-only
folder do no harm; an entry that does not load is made anew.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm

from ... import lang
from ...errors import TargetError
from .machine import Machine

_MAGIC = b"cellwright object 1\n"
_alive: list[object] = []  # what the functions in use stand on


def cache_folder() -> Path:
    """CELLWRIGHT_CACHE, else `cellwright` in the user's cache folder."""
    chosen = os.environ.get("CELLWRIGHT_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(base) / "cellwright"


def cache_report() -> str:
    """The folder of the cache, and how much is in it."""
    entries = [e.stat().st_size for e in cache_folder().glob("*.o")]
    return f"{cache_folder()}: {len(entries)} kernels, {sum(entries) / 2**20:.1f} MiB (CELLWRIGHT_CACHE moves it)"


def load(recipe: str, text: Callable[[], str], machine: Machine) -> int:
    """The address of the function `kernel` of a module, written and compiled when it is not in the cache.

    recipe: what decides the text for this machine, but for the code that writes it.
    TargetError: LLVM cannot compile or run it here.
    """
    try:
        return _load(recipe, text, machine)
    except RuntimeError as error:
        raise TargetError(
            f"the target 'cpu' cannot compile for {machine.cpu}: {error}; use the target 'torch'"
        ) from error


def _load(recipe: str, text: Callable[[], str], machine: Machine) -> int:
    _initialise()
    path = cache_folder() / f"{_key(recipe, machine)}.o"
    data = _read(path)
    if data is not None:
        try:
            return _link(path.stem, data)
        except RuntimeError:
            data = None
    data = compile_module(text(), machine)
    _write(path, data)
    return _link(path.stem, data)


def compile_module(text: str, machine: Machine) -> bytes:
    """The object code of a module."""
    _initialise()
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=3, reloc="pic", codemodel="default"
    )
    module = llvm.parse_assembly(text)
    module.triple = llvm.get_process_triple()
    module.data_layout = str(target.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_unrolling = False
    builder = llvm.create_pass_builder(target, options)
    builder.getModulePassManager().run(module, builder)
    return bytes(target.emit_object(module))


def _initialise() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def _key(recipe: str, machine: Machine) -> str:
    parts = (recipe, _writers(), repr(machine), llvmlite.__version__, str(llvm.llvm_version_info))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


@cache
def _writers() -> str:
    """The code that makes passes and texts, as a hash."""
    found = [f for package in (__package__, lang) for f in files(package).iterdir() if f.name.endswith((".py", ".pyc"))]
    return hashlib.sha256(b"\0".join(sorted(f.read_bytes() for f in found))).hexdigest()


def _link(unique: str, data: bytes) -> int:
    # JITLink places code and constants side by side; the older linker gives up when they are 2 GiB apart.
    jit = llvm.create_lljit_compiler(use_jit_link=True)
    library = (
        llvm.JITLibraryBuilder().add_object_img(data).export_symbol("kernel").link(jit, f"cw_{unique}_{len(_alive)}")
    )
    _alive.append((jit, library))
    return int(library["kernel"])


def _read(path: Path) -> bytes | None:
    """The object code of an entry; None when there is none, or when it is not whole."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    head = len(_MAGIC) + 32
    if not data.startswith(_MAGIC) or hashlib.sha256(data[head:]).digest() != data[len(_MAGIC) : head]:
        return None
    return data[head:]


def _write(path: Path, data: bytes) -> None:
    """Store an entry; a folder that cannot be written only costs the next process a compilation."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as file:
            part = Path(file.name)
            try:
                file.write(_MAGIC + hashlib.sha256(data).digest() + data)
            except OSError:
                part.unlink(missing_ok=True)
                raise
        os.replace(part, path)
    except OSError:
        return
