"""Files of examples: what is read, and what is said of those that are not as they should be."""

from __future__ import annotations

import csv
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertfast.errors import ArgumentError
from bertfast.training.finetuning.conll import read_conll, read_conll_files
from bertfast.training.finetuning.data import label_names, label_numbers, read_labelled_texts
from bertfast.training.finetuning.squad import read_squad


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(read: Any, path: Path, message: str, **options: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        read(path, **options)
    assert str(caught.value).removeprefix(str(path)) == message


# --------------------------------------------------------------------------------------------- classification


def test_tsv_has_no_quotes(tmp_path: Path):
    path = write(tmp_path / "a.tsv", 'label\ttext\n1\t"Hello, she said.\r\n\n0\t a\u2028b \n')
    found = read_labelled_texts(path)
    assert found.texts == ['"Hello, she said.', " a\u2028b "]
    assert found.labels == ["1", "0"]
    assert found.lines == [2, 4]
    assert found.text_pairs is None


def test_csv_has_quotes_and_texts_of_several_lines(tmp_path: Path):
    path = tmp_path / "a.csv"
    rows = [["a", "b", "other", "label"], ['one, "two"\nthree', "", "x", "good"], ["4", "5", "", "bad"]]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    found = read_labelled_texts(path, text_column="a", text_pair_column="b")
    assert found.texts == ['one, "two"\nthree', "4"]
    assert found.text_pairs == ["", "5"]
    assert [found.place(index) for index in range(2)] == [f"{path}:3", f"{path}:4"]


def test_json_lines_and_compressed_files(tmp_path: Path):
    lines = [{"text": "a", "label": 1}, {"text": "b", "label": "x"}]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    assert read_labelled_texts(path).labels == ["1", "x"]


def test_a_byte_order_mark_and_long_fields(tmp_path: Path):
    path = write(tmp_path / "a.csv", "\ufefftext,label\n" + "x" * 200_000 + ",1\n")
    before = csv.field_size_limit()
    assert len(read_labelled_texts(path).texts[0]) == 200_000
    assert csv.field_size_limit() == before


def test_numbers_and_several_labels(tmp_path: Path):
    path = write(tmp_path / "a.tsv", "text\tlabel\na\t1.5\nb\t-2\n")
    assert read_labelled_texts(path, problem_type="regression").labels == [1.5, -2.0]
    path = write(tmp_path / "a.jsonl", '{"text": "a", "label": ["x", 2]}\n{"text": "b", "label": []}\n')
    assert read_labelled_texts(path, problem_type="multi_label_classification").labels == [("x", "2"), ()]


@pytest.mark.parametrize(
    ("name", "text", "message", "options"),
    [
        ("a.txt", "", ": expected a name that ends in .tsv, .csv, .jsonl, or in one of these and .gz", {}),
        ("a.tsv", "", ": expected a line with the names of the columns, got an empty file", {}),
        ("a.tsv", "text\tlabel\n", ": expected examples, found none", {}),
        ("a.tsv", "text\tlabels\n", ":1: no column 'label', found 'text', 'labels'", {}),
        (
            "a.tsv",
            "text\ttext\tlabel\n",
            ":1: more than one column 'text', found 'text', 'text', 'label'",
            {},
        ),
        ("a.tsv", "text\tlabel\na\t1\nb\n", ":3: expected 2 columns as in line 1, got 1", {}),
        ("a.tsv", "text\tlabel\na\t\n", ":2: field 'label': expected a label, got an empty one", {}),
        ("a.tsv", b"text\tlabel\n\xff\t1\n", ":2: not UTF-8: byte 0xff at position 0", {}),
        ("a.csv", 'text,label\n"a,1\nb,2\n', ":3: not CSV: unexpected end of data", {}),
        ("a.csv", 'text,label\n"a"b,1\n', ":2: not CSV: ',' expected after '\"'", {}),
        ("a.jsonl", "", ": expected examples, found none", {}),
        ("a.jsonl", "\n[]\n", ":2: expected a JSON object, got list", {}),
        ("a.jsonl", '{"text": "a"}\n', ":1: no field 'label', only 'text'", {}),
        ("a.jsonl", '{"text": 1, "label": 1}', ":1: field 'text': expected a string, got int", {}),
        (
            "a.jsonl",
            '{"text": "\\ud800", "label": 1}',
            ":1: field 'text': half of a surrogate pair is no text",
            {},
        ),
        (
            "a.jsonl",
            '{"text": "a", "label": true}',
            ":1: field 'label': expected the name of a label, got True",
            {},
        ),
        (
            "a.jsonl",
            '{"text": "a", "label": "b"}',
            ":1: field 'label': expected a list of labels, got 'b'",
            {"problem_type": "multi_label_classification"},
        ),
        (
            "a.jsonl",
            '{"text": "a", "label": ["b", "b"]}',
            ":1: field 'label': expected each label once, got ['b', 'b']",
            {"problem_type": "multi_label_classification"},
        ),
        (
            "a.tsv",
            "text\tlabel\na\t1\nb\tnan\n",
            ":3: field 'label': expected a number, got 'nan'",
            {"problem_type": "regression"},
        ),
    ],
)
def test_bad_examples(tmp_path: Path, name: str, text: str | bytes, message: str, options: dict[str, Any]):
    refused(read_labelled_texts, write(tmp_path / name, text), message, **options)


def test_bad_options(tmp_path: Path):
    path = write(tmp_path / "a.tsv", "text\tlabel\na\t1\n")
    refused(
        read_labelled_texts,
        path,
        "columns: expected different names, got 'text', 'text'",
        label_column="text",
    )
    with pytest.raises(ArgumentError, match="problem_type: expected"):
        read_labelled_texts(path, problem_type="classification")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        read_labelled_texts(tmp_path / "b.tsv")


def test_the_order_of_labels():
    assert label_names(["b", "a", "b"]) == ["a", "b"]
    assert label_names(["10", "2", "-1"]) == ["-1", "2", "10"]
    assert label_names(["10", "2", "x"]) == ["10", "2", "x"]
    assert label_names([("b", "a"), (), ("c",)]) == ["a", "b", "c"]


def test_a_label_that_is_new_is_named_with_its_line(tmp_path: Path):
    path = write(tmp_path / "a.tsv", "text\tlabel\na\tx\nb\tz\n")
    found = read_labelled_texts(path)
    assert label_numbers(found, ["x", "z"]) == [0, 1]
    with pytest.raises(ArgumentError, match=re.escape(f"{path}:3: label 'z' is not in 'x', 'y'")):
        label_numbers(found, ["x", "y"])


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=8)


@given(rows=st.lists(st.tuples(CELLS, st.sampled_from("ab")), min_size=1, max_size=5))
def test_any_csv_comes_back(rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("text", "label"), *rows])
    found = read_labelled_texts(path)
    assert list(zip(found.texts, found.labels, strict=True)) == rows


# ------------------------------------------------------------------------------------------------------ CoNLL

CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

 \t
Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER"""


def test_columns_of_conll(tmp_path: Path):
    found = read_conll(write(tmp_path / "a", CONLL))
    assert found.words == [["EU", "rejects"], ["Peter", "Blackburn"]]
    assert found.tags == [["B-ORG", "O"], ["B-PER", "I-PER"]]
    assert found.lines == [3, 7]
    assert found.scheme == "iob2"


def test_words_that_are_spaces_of_other_kinds(tmp_path: Path):
    found = read_conll(write(tmp_path / "a", "\u3000\tO\nx\u00a0y\tB-A\n"))
    assert found.words == [["\u3000", "x\u00a0y"]]


@pytest.mark.parametrize(
    ("tags", "scheme", "as_read"),
    [
        ("I-A I-A O I-B I-A", "iob2", "B-A I-A O B-B B-A"),
        ("I-A B-A I-A", "iob2", "B-A B-A I-A"),
        ("B-A I-A B-A", "iob2", None),
        ("B-A E-A S-B O B-A I-A E-A", "iobes", None),
        ("B-A M-A E-A", "bmes", None),
        ("B-A L-A U-A", "bilou", None),
        ("NN VB -LRB- O", "none", None),
        ("O O", "none", None),
    ],
)
def test_schemes(tmp_path: Path, tags: str, scheme: str, as_read: str | None):
    path = write(tmp_path / "a", "".join(f"w {tag}\n" for tag in tags.split()))
    found = read_conll(path)
    assert found.scheme == scheme
    assert found.tags == [(as_read or tags).split()]


@pytest.mark.parametrize(
    ("files", "schemes"),
    [
        (("B-A M-A E-A", "S-A B-A E-A"), "bmes bmes"),
        (("S-A B-A E-A", "B-A M-A E-A"), "bmes bmes"),
        (("S-A", "S-A O"), "iobes iobes"),
        (("S-A", "O O", "B-A M-A E-A"), "bmes none bmes"),
        (("B-A M-A E-A", "B-A I-A E-A"), "bmes iobes"),
        (("B-A E-A", "B-A O"), "iobes iob2"),
        (("B-A O", "I-A B-A"), "iob2 iob2"),
    ],
)
def test_one_scheme_for_files_that_belong_together(tmp_path: Path, files: tuple[str, ...], schemes: str):
    paths = [
        write(tmp_path / str(number), "".join(f"w {tag}\n" for tag in tags.split()))
        for number, tags in enumerate(files)
    ]
    assert [found.scheme for found in read_conll_files(paths)] == schemes.split()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": expected words with tags, found none"),
        ("-DOCSTART- O\n\n", ": expected words with tags, found none"),
        ("a O\nb\n", ":2: expected 2 columns as before, got 'b'"),
        ("a\n", ":1: expected a word and its tag, got 'a'"),
        ("a x O\nb O\n", ":2: expected 3 columns as before, got 'b O'"),
        ("a O\n\nb B-A\nc A\n", ":4: expected O or a letter, a hyphen and a type, got 'A'"),
        ("a B-\n", ":1: expected a type behind 'B-'"),
        ("a B-A\n\nb O\nc I-A\n", ":4: not IOB2: I-A behind O in line 4; not IOB1: B-A behind O in line 1"),
        ("a S-A\nb I-A\n", ":2: not IOBES: I-A behind S-A in line 2"),
        (
            "a S-A\nb B-A\n\nc O\n",
            ":2: not IOBES: B-A at the end in line 2; not BMES: B-A at the end in line 2",
        ),
        ("a B-A\nb I-B\nc E-B\n", ":2: not IOBES: I-B behind B-A in line 2"),
        (
            "a M-A\nc O\n\nd M-B\nb L-A\n",
            ":5: expected the letters of one scheme, found 'L' in line 5, 'M' in line 1",
        ),
    ],
)
def test_bad_columns(tmp_path: Path, text: str, message: str):
    refused(read_conll, write(tmp_path / "a.conll", text), message)


# ------------------------------------------------------------------------------------------------------ SQuAD


def squad(context: str, *questions: Any) -> dict[str, Any]:
    return {"data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}]}


def asked(number: Any = "q", *answers: tuple[Any, Any], **more: Any) -> dict[str, Any]:
    found = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": number, "question": "What?", "answers": found} | more


def test_squad(tmp_path: Path):
    content = squad(
        "It is 😀 in Rome.",
        asked("1", ("Rome", 11), ("in Rome", 8)),
        asked("2", is_impossible=True, plausible_answers=[{"text": "x", "answer_start": 0}]),
    )
    found = read_squad(write(tmp_path / "a.json", json.dumps(content)))
    first, second = found.items
    assert (first.answers, first.start) == (("Rome", "in Rome"), 11)
    assert (second.answers, second.start) == ((), -1)
    assert found.has_negatives
    assert found.contexts == 1
    assert found.place(1) == f"{tmp_path / 'a.json'}: question '2'"


def test_answers_that_are_not_where_they_should_be(tmp_path: Path):
    questions = [asked("1", (" Rome ", 10)), asked("2", ("Rome", 9)), asked("3", ("Paris", 0)), asked("4")]
    path = write(tmp_path / "a.json", json.dumps(squad("It is 😀 in Rome.", *questions)))
    # To evaluate on, all will do.
    assert len(read_squad(path)) == 4
    with pytest.warns(UserWarning, match=r"1 of 4 questions are left out.*'3'"):
        found = read_squad(path, with_starts=True)
    assert [(one.id, one.start) for one in found.items] == [("1", 11), ("2", 11), ("4", -1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], ": expected an object with a list 'data'"),
        ({"data": [1]}, ": data[0]: expected an object, got int"),
        ({"data": [{"paragraphs": {}}]}, ": data[0]: expected an object with a list 'paragraphs'"),
        ({"data": []}, ": expected questions, found none"),
        (squad("", asked()), ": data[0].paragraphs[0].context: expected a text, got ''"),
        (squad("x", asked(None)), ": data[0].paragraphs[0].qas[0].id: expected a text, got None"),
        (squad("x", asked("a"), asked("a")), ": data[0].paragraphs[0].qas[1]: id 'a' is there twice"),
        (
            squad("x", {"id": "a", "question": "b"}),
            ": data[0].paragraphs[0].qas[0]: expected an object with a list 'answers'",
        ),
        (
            squad("x", asked("a", ("x", "0"))),
            ": data[0].paragraphs[0].qas[0].answers[0].answer_start: expected a number of characters, "
            "got '0'",
        ),
        (
            squad("x", asked("a", ("x", 0), is_impossible=True)),
            ": data[0].paragraphs[0].qas[0].answers[0]: expected no answer to a question with is_impossible",
        ),
        (
            squad("x", asked("a", question=" ")),
            ": data[0].paragraphs[0].qas[0].question: expected a text, got ' '",
        ),
    ],
)
def test_bad_squad(tmp_path: Path, content: Any, message: str):
    refused(read_squad, write(tmp_path / "a.json", json.dumps(content)), message)


def test_squad_that_is_no_json(tmp_path: Path):
    refused(read_squad, write(tmp_path / "a.json", '{"data":\n [}'), ":2: not JSON: Expecting value")
    refused(read_squad, write(tmp_path / "a.json", "[" * 200_000), ": not SQuAD: nested too deeply")
    lost = squad("x", asked("a", ("y", 0)))
    path = write(tmp_path / "a.json", json.dumps(lost))
    refused(
        read_squad,
        path,
        ": expected answers at their answer_start, found none that is",
        with_starts=True,
    )
